package verdict

import (
	"bytes"
	"encoding/binary"
	"io"
	"path"
	"slices"
	"strings"
)

// reach finds what a program loads when it starts.
type reach struct {
	tree tree
	dirs []string            // where the dynamic linker looks
	memo map[string][]string // of what a file needs itself, by its path
}

func newReach(t tree) *reach {
	r := &reach{tree: t, memo: map[string][]string{}, dirs: []string{"usr/local/lib", "lib64", "usr/lib64", "lib", "usr/lib"}}
	for _, name := range t.names("usr/lib") {
		if strings.Contains(name, "-linux-gnu") {
			r.dirs = append(r.dirs, "usr/lib/"+name, "lib/"+name)
		}
	}
	for _, name := range t.names("etc/ld.so.conf.d") {
		for line := range strings.Lines(t.text("etc/ld.so.conf.d/"+name, maxUnit)) {
			if line = strings.TrimSpace(line); path.IsAbs(line) {
				r.dirs = append(r.dirs, line[1:])
			}
		}
	}
	return r
}

// maxReach bounds the files of one program.
const maxReach = 1024

// of returns the paths of all files that the program loads, its own first, with the links that lead to them.
func (r *reach) of(program string) []string {
	seen := map[string]bool{}
	var list []string
	for next := []string{program}; len(next) > 0 && len(list) < maxReach; next = next[1:] {
		real, links, ok := r.tree.resolve(next[0])
		for _, p := range append(links, real) {
			if p != "" && !seen[p] {
				seen[p] = true
				list = append(list, p)
				if ok && p == real {
					next = append(next, r.needs(real)...)
				}
			}
		}
	}
	return list
}

// needs returns what a program or library asks for: libraries and the interpreter.
func (r *reach) needs(file string) []string {
	if list, ok := r.memo[file]; ok {
		return list
	}
	list := r.read(file)
	r.memo[file] = list
	return list
}

func (r *reach) read(file string) []string {
	f, err := r.tree.root.Open(file)
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
		list = append(list, r.library(lib, file, e.paths)...)
	}
	return list
}

// interpreters returns the programs that the first line of a script names: /usr/bin/env names another.
func interpreters(words []string) []string {
	if len(words) == 0 || !path.IsAbs(words[0]) {
		return nil
	}
	list := []string{words[0][1:]}
	if i := slices.IndexFunc(words[1:], func(w string) bool { return !strings.HasPrefix(w, "-") }); path.Base(words[0]) == "env" && i >= 0 {
		list = append(list, "usr/bin/"+path.Base(words[1+i]))
	}
	return list
}

// library returns where the library is found that a file in need asks for; paths are those that the file itself names.
func (r *reach) library(name, file string, paths []string) []string {
	if strings.Contains(name, "/") {
		return []string{strings.TrimPrefix(name, "/")}
	}
	origin := "/" + path.Dir(file)
	for _, dir := range paths {
		dir = strings.NewReplacer("$ORIGIN", origin, "${ORIGIN}", origin).Replace(dir)
		if p := strings.TrimPrefix(path.Join(dir, name), "/"); r.there(p) {
			return []string{p}
		}
	}
	for _, dir := range r.dirs {
		if p := path.Join(dir, name); r.there(p) {
			return []string{p}
		}
	}
	return nil
}

func (r *reach) there(p string) bool {
	_, _, ok := r.tree.resolve(p)
	return ok
}

// elf is what a program's file says about its loading.
type elf struct {
	interp []string
	needed []string
	paths  []string // RPATH and RUNPATH
}

// Of the ELF format (elf(5)): 64 bit, little endian, as all architectures that nodes have.
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
		segments = append(segments, segment{uint64(le.Uint32(table)), le.Uint64(table[8:]), le.Uint64(table[16:]), le.Uint64(table[32:])})
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

// dynamic reads the dynamic section.
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

// offset turns an address in memory into one in the file.
func offset(addr uint64, segments []segment) uint64 {
	for _, s := range segments {
		if s.kind == segmentLoad && addr >= s.addr && addr-s.addr < s.size {
			return addr - s.addr + s.off
		}
	}
	return addr
}

// section returns what is in the file from off on, at most size bytes.
func section(r io.ReaderAt, off, size uint64) []byte {
	if int64(off) < 0 {
		return nil
	}
	b := make([]byte, size)
	n, _ := r.ReadAt(b, int64(off))
	return b[:max(n, 0)]
}

// text returns the string at off, "" when it does not end.
func text(r io.ReaderAt, off uint64) string {
	b, _, ok := bytes.Cut(section(r, off, 1024), []byte{0})
	if !ok {
		return ""
	}
	return string(b)
}
