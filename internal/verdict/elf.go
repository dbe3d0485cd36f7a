package verdict

import (
	"bytes"
	"encoding/binary"
	"io"
	"path"
	"slices"
	"strings"
)

// linker finds the files that a program loads when it starts, as the dynamic linker does.
type linker struct {
	tree  tree
	dirs  []string            // where libraries are looked for
	cache map[string][]string // the files that a file needs directly, by its path
}

func newLinker(t tree) *linker {
	l := &linker{
		tree: t, cache: map[string][]string{},
		dirs: []string{"usr/local/lib", "lib64", "usr/lib64", "lib", "usr/lib"},
	}
	for _, name := range t.names("usr/lib") {
		if strings.Contains(name, "-linux-gnu") {
			l.dirs = append(l.dirs, "usr/lib/"+name, "lib/"+name)
		}
	}
	for _, name := range t.names("etc/ld.so.conf.d") {
		for line := range strings.Lines(t.text("etc/ld.so.conf.d/"+name, maxUnit)) {
			if line = strings.TrimSpace(line); path.IsAbs(line) {
				l.dirs = append(l.dirs, line[1:])
			}
		}
	}
	return l
}

// maxFiles bounds the files of one program.
const maxFiles = 1024

// files returns the paths of all files that the program loads, itself included, and the links that lead to them.
func (l *linker) files(program string) []string {
	seen := map[string]bool{}
	var list []string
	for next := []string{program}; len(next) > 0 && len(list) < maxFiles; next = next[1:] {
		real, links, ok := l.tree.resolve(next[0])
		for _, p := range append(links, real) {
			if p != "" && !seen[p] {
				seen[p] = true
				list = append(list, p)
				if ok && p == real {
					next = append(next, l.needs(real)...)
				}
			}
		}
	}
	return list
}

// needs returns the libraries and the interpreter that a program or library needs directly.
func (l *linker) needs(file string) []string {
	if list, ok := l.cache[file]; ok {
		return list
	}
	list := l.read(file)
	l.cache[file] = list
	return list
}

// read parses a script or an ELF file.
func (l *linker) read(file string) []string {
	f, err := l.tree.root.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	at, ok := f.(io.ReaderAt)
	if !ok {
		return nil
	}
	var head [256]byte
	n, _ := at.ReadAt(head[:], 0)
	if script, ok := bytes.CutPrefix(head[:n], []byte("#!")); ok {
		line, _, _ := bytes.Cut(script, []byte("\n"))
		return interpreters(strings.Fields(string(line)))
	}
	e := parseELF(at)
	list := e.interp
	for _, lib := range e.needed {
		list = append(list, l.library(lib, file, e.paths)...)
	}
	return list
}

// interpreters returns the programs that the first line of a script names. /usr/bin/env is followed by a second one.
func interpreters(words []string) []string {
	if len(words) == 0 || !path.IsAbs(words[0]) {
		return nil
	}
	list := []string{words[0][1:]}
	i := slices.IndexFunc(words[1:], func(w string) bool { return !strings.HasPrefix(w, "-") })
	if path.Base(words[0]) == "env" && i >= 0 {
		list = append(list, "usr/bin/"+path.Base(words[1+i]))
	}
	return list
}

// library returns the path of a library that a file needs. paths are the search paths in the file itself.
func (l *linker) library(name, file string, paths []string) []string {
	if strings.Contains(name, "/") {
		return []string{strings.TrimPrefix(name, "/")}
	}
	origin := "/" + path.Dir(file)
	for _, dir := range paths {
		dir = strings.NewReplacer("$ORIGIN", origin, "${ORIGIN}", origin).Replace(dir)
		if p := strings.TrimPrefix(path.Join(dir, name), "/"); l.exists(p) {
			return []string{p}
		}
	}
	for _, dir := range l.dirs {
		if p := path.Join(dir, name); l.exists(p) {
			return []string{p}
		}
	}
	return nil
}

func (l *linker) exists(p string) bool {
	_, _, ok := l.tree.resolve(p)
	return ok
}

// elf is the information in an ELF file about how it is loaded.
type elf struct {
	interp []string
	needed []string
	paths  []string // RPATH and RUNPATH
}

// The ELF format (elf(5)), 64 bit, little endian, as on all architectures of nodes.
const (
	elfHeader   = 64
	elfSegment  = 56
	maxSegments = 128
	maxDynamic  = 64 << 10
	maxNeeded   = 256

	segmentLoad    = 1
	segmentDynamic = 2
	segmentInterp  = 3

	dynNeeded  = 1
	dynStrings = 5
	dynRpath   = 15
	dynRunpath = 29
)

type segment struct{ kind, off, addr, size uint64 }

func parseELF(r io.ReaderAt) (e elf) {
	le := binary.LittleEndian
	head := section(r, 0, elfHeader)
	if len(head) < elfHeader || string(head[:6]) != "\x7fELF\x02\x01" {
		return e
	}
	n := min(uint64(le.Uint16(head[56:])), maxSegments)
	table := section(r, le.Uint64(head[32:]), n*elfSegment)
	var segments []segment
	for ; len(table) >= elfSegment; table = table[elfSegment:] {
		segments = append(segments, segment{
			kind: uint64(le.Uint32(table)), off: le.Uint64(table[8:]), addr: le.Uint64(table[16:]),
			size: le.Uint64(table[32:]),
		})
	}
	for _, s := range segments {
		switch s.kind {
		case segmentInterp:
			if p := text(r, s.off); path.IsAbs(p) {
				e.interp = []string{p[1:]}
			}
		case segmentDynamic:
			e.dynamic(r, section(r, s.off, min(s.size, maxDynamic)), segments)
		}
	}
	return e
}

// dynamic parses the dynamic section.
func (e *elf) dynamic(r io.ReaderAt, b []byte, segments []segment) {
	le := binary.LittleEndian
	var names, paths []uint64
	strs := uint64(0)
	for ; len(b) >= 16; b = b[16:] {
		switch value := le.Uint64(b[8:]); le.Uint64(b) {
		case dynNeeded:
			names = append(names, value)
		case dynRpath, dynRunpath:
			paths = append(paths, value)
		case dynStrings:
			strs = offset(value, segments)
		}
	}
	for _, at := range names[:min(len(names), maxNeeded)] {
		if name := text(r, strs+at); name != "" {
			e.needed = append(e.needed, name)
		}
	}
	for _, at := range paths[:min(len(paths), 2)] {
		e.paths = append(e.paths, strings.Split(text(r, strs+at), ":")...)
	}
}

// offset converts an address in memory to an offset in the file.
func offset(addr uint64, segments []segment) uint64 {
	for _, s := range segments {
		if s.kind == segmentLoad && addr >= s.addr && addr-s.addr < s.size {
			return addr - s.addr + s.off
		}
	}
	return addr
}

// section returns at most size bytes of the file from off on.
func section(r io.ReaderAt, off, size uint64) []byte {
	if int64(off) < 0 {
		return nil
	}
	b := make([]byte, size)
	n, _ := r.ReadAt(b, int64(off))
	return b[:max(n, 0)]
}

// text returns the zero-terminated string at off, "" if it has no end.
func text(r io.ReaderAt, off uint64) string {
	b, _, ok := bytes.Cut(section(r, off, 1024), []byte{0})
	if !ok {
		return ""
	}
	return string(b)
}
