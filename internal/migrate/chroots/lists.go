package chroots

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// maxList is the size in bytes up to which a list of exclusions is read, maxIncludes the number of lists that one
// includes, and maxLines the number of their lines.
const (
	maxList     = 1 << 20
	maxIncludes = 32
	maxLines    = 2000
)

// openRegular opens a regular file of a root, whose other files are not opened, or do not make it wait: a FIFO would
// wait for a writer.
func openRegular(root *os.Root, name string) (*os.File, error) {
	info, err := root.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
	}
	if err != nil {
		return nil, err
	}
	return regular(root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0))
}

var errNotRegular = errors.New("it is not a regular file")

// regular returns a file that was opened without waiting, if it is a regular one. It closes any other.
func regular(f *os.File, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: f.Name(), Err: errNotRegular}
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// printable reports whether a text has no control characters, which XML does not have either.
func printable(text string) bool {
	return utf8.ValidString(text) && strings.IndexFunc(text, unicode.IsControl) < 0
}

func readList(f io.Reader, name string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, maxList+1))
	if err == nil && len(data) > maxList {
		err = fmt.Errorf("read %s: larger than %d MiB", name, maxList>>20)
	}
	return data, err
}

// warewulfExcludes reads etc/warewulf/excludes of a chroot: patterns of the shell, each on a line.
func warewulfExcludes(r *Root, root *os.Root, _ []string) {
	const name = "etc/warewulf/excludes"
	f, err := openRegular(root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var data []byte
	if err == nil {
		data, err = readList(f, name)
		f.Close()
	}
	if err != nil {
		r.note("", 0, "the exclusions of %s are not carried over: %v", r.Path, err)
		return
	}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		if text := strings.TrimSpace(string(line)); text != "" && text[0] != '#' {
			r.exclude(text, filepath.Join(r.Path, name), n)
		}
	}
}

// xcatExcludes reads the .exlist of a root. lists are such files, or directories in which packimage looks for them.
func xcatExcludes(r *Root, _ *os.Root, lists []string) {
	found := false
	for _, l := range lists {
		if isDir(l) {
			if l = xcatList(r.Path, l); l == "" || found {
				continue
			}
		}
		found = true
		list := exlist{root: r, within: directories(lists)}
		list.read(l, 0)
		list.apply()
	}
	if !found {
		r.note("", 0, "%s has no .exlist: nothing is excluded that packimage leaves out", r.Path)
	}
}

// directories returns the directories that lists are, or are in.
func directories(lists []string) (dirs []string) {
	for _, l := range lists {
		if !isDir(l) {
			l = filepath.Dir(l)
		}
		dirs = append(dirs, l)
	}
	return dirs
}

// xcatList returns the list of a root in DIR/DISTRIBUTION, by the order in which xCAT looks for it: the most specific
// name first.
func xcatList(root, dir string) string {
	version, arch, profile, ok := xcatParts(root)
	if !ok {
		return ""
	}
	short, _, _ := strings.Cut(version, ".")
	for _, name := range []string{
		profile + "." + version + "." + arch, profile + "." + version, profile + "." + short + "." + arch,
		profile + "." + short, profile + "." + arch, profile,
	} {
		if found, _ := filepath.Glob(filepath.Join(dir, "*", quoted(name)+".exlist")); len(found) > 0 {
			return found[0]
		}
	}
	return ""
}

var special = regexp.MustCompile(`[*?\[\\]`)

func quoted(name string) string { return special.ReplaceAllString(name, `\$0`) }

// exlist is a list of what packimage leaves out: patterns of find -path, one on a line. "+" takes into the image what
// another line leaves out, and #INCLUDE:FILE# stands for the lines of a file.
type exlist struct {
	root     *Root
	within   []string // directories: no other file is read, whatever a list includes
	lines    []exlistLine
	includes int
}

// exlistLine is a pattern and its place.
type exlistLine struct {
	pattern string
	keep    bool
	file    string
	line    int
}

var include = regexp.MustCompile(`^\s*#INCLUDE:([^#\n]+)#`)

func (x *exlist) read(file string, depth int) {
	if x.includes++; x.includes > maxIncludes || depth > 8 {
		x.root.note(file, 0, "the list is not carried over: lists include more than %d lists", maxIncludes)
		return
	}
	data, err := x.load(file, depth)
	if err != nil {
		x.root.note("", 0, "a list of exclusions is not carried over: %v", err)
		return
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		if m := include.FindStringSubmatch(line); m != nil {
			other := strings.TrimSpace(m[1])
			if !filepath.IsAbs(other) {
				other = filepath.Join(filepath.Dir(file), other)
			}
			x.read(other, depth+1)
			continue
		}
		text, _, _ := strings.Cut(line, "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if len(x.lines) == maxLines {
			x.root.note(file, n, "this line and what follows are not carried over: there are more than %d", maxLines)
			return
		}
		pattern, keep := strings.CutPrefix(text, "+")
		pattern = strings.TrimPrefix(strings.TrimPrefix(pattern, "-"), ".")
		x.lines = append(x.lines, exlistLine{pattern, keep, file, n})
	}
}

// load reads a list: one that was given, or one in the given directories that is included. A link that leads out of
// these directories is not followed then.
func (x *exlist) load(file string, depth int) ([]byte, error) {
	if depth == 0 {
		f, err := regular(os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readList(f, file)
	}
	for _, dir := range x.within {
		rel, err := filepath.Rel(dir, file)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		f, err := openRegular(root, rel)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return readList(f, file)
	}
	return nil, fmt.Errorf("read %s: it is not in %s", file, strings.Join(x.within, " or "))
}

// apply adds the patterns, but for those in which something else is kept: a rule here has no exceptions.
func (x *exlist) apply() {
	for _, l := range x.lines {
		if l.keep {
			continue
		}
		kept := ""
		for _, k := range x.lines {
			if k.keep && kept == "" && covers(l.pattern, k.pattern) {
				kept = k.pattern
			}
		}
		if kept != "" {
			x.root.note(l.file, l.line, "%s is not excluded: %s in it is kept, and a rule has no exceptions",
				l.pattern, kept)
			continue
		}
		x.root.exclude(l.pattern, l.file, l.line)
	}
}

// covers reports whether a pattern matches a name, which may be a pattern itself, or something that it is in.
func covers(pattern, name string) bool {
	for ; len(name) > 1; name = path.Dir(name) {
		if ok, err := path.Match(pattern, strings.TrimRight(name, "*")); err == nil && ok {
			return true
		}
		if ok, err := path.Match(pattern, name); err == nil && ok {
			return true
		}
	}
	return false
}
