// Package storm has a master that changes all the time, and the load of a node that uses it: the content of
// each version, the master, and the readers, writers and programs in the guest. They check that they see whole
// versions only. It is for tests only.
package storm

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Entry is the object at a path.
type Entry struct {
	Mode   fs.FileMode
	Data   []byte
	Target string // of a symbolic link
	Link   string // another path of the same file
}

// Tree is a version: entries by their path below Dir.
type Tree map[string]Entry

// Dir is the path of the tree in the master and in replicas.
const Dir = "srv/storm"

// Bases has programs and libraries. Each version appends a few bytes to them.
type Bases map[string][]byte

// LoadBases reads the files of a directory.
func LoadBases(dir string) (Bases, error) {
	list, err := os.ReadDir(dir)
	bases := Bases{}
	for _, e := range list {
		if bases[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return nil, err
		}
	}
	return bases, err
}

// Numbers of what a version holds.
const (
	contents = 6
	many     = 300 // names that are always there, more than one reply of READDIRPLUS holds
	comers   = 20  // names beside them that each version has of its own
)

// At returns version v. Each differs from the one before in all kinds of ways: content, a mode alone, a name, a
// type, added and removed files and directories, hard links, programs and libraries.
func At(v int, bases Bases) Tree {
	t := Tree{}
	for i := range contents {
		t.file(fmt.Sprintf("content/f%d", i), v)
	}
	t["mode"] = Entry{Mode: fs.FileMode(0o600 | v%8), Data: []byte("mode\n")}
	t[fmt.Sprintf("renamed/n-%06d", v)] = Entry{Mode: 0o644, Data: []byte("renamed\n")}
	for _, name := range listOf(v) {
		t["list/"+name] = Entry{Mode: 0o644, Data: []byte("listed\n")}
	}
	for i := range many {
		t["many/"+manyName(i)] = Entry{Mode: 0o644}
	}
	for i := range comers {
		t[fmt.Sprintf("many/t%06d-%02d", v, i)] = Entry{Mode: 0o644}
	}
	for _, n := range []int{v - 1, v} {
		t.file(fmt.Sprintf("dirs/%s/deep/x", dirName(n)), n)
	}
	t.turn(v)
	t.hard(v)
	t["lib/data"] = Entry{Mode: 0o644, Data: pattern("lib/data", v%7, 256<<10)}
	for name, base := range bases {
		t["bin/"+name] = Entry{Mode: 0o755, Data: fmt.Appendf(slices.Clone(base), "variant %d\n", v%3)}
	}
	t.file("both", v)
	t.directories()
	return t
}

func (t Tree) file(path string, v int) { t[path] = Entry{Mode: 0o644, Data: Content(path, v)} }

// turn adds the path that has another type in each version.
func (t Tree) turn(v int) {
	switch v % 3 {
	case 0:
		t.file("turn", v)
	case 1:
		t.file("turn/d", v)
	case 2:
		t["turn"] = Entry{Mode: fs.ModeSymlink | 0o777, Target: "content/f0"}
	}
}

// hard adds three names of two files: by turns the first two names are one file, or the last two.
func (t Tree) hard(v int) {
	t.file("hard/a", v)
	t.file("hard/c", v)
	t["hard/b"] = Entry{Mode: 0o644, Link: hardTwin(v)}
}

func hardTwin(v int) string { return []string{"hard/a", "hard/c"}[v%2] }

func (t Tree) directories() {
	for path := range maps.Clone(t) {
		for dir := filepath.Dir(path); dir != "."; dir = filepath.Dir(dir) {
			t[dir] = Entry{Mode: fs.ModeDir | 0o755}
		}
	}
}

func listOf(v int) []string {
	names := []string{"stays"}
	for c := 'a'; c <= 'e'; c++ {
		names = append(names, fmt.Sprintf("v%06d-%c", v, c))
	}
	return names
}

func manyName(i int) string { return fmt.Sprintf("k%03d-%s", i, strings.Repeat("x", 180)) }

func dirName(v int) string { return fmt.Sprintf("d%06d", v) }

// Content returns the content of a file in version v: less than a page to several pages. Each line has the
// path, the version and the offset.
func Content(path string, v int) []byte {
	h := fnv.New32a()
	fmt.Fprint(h, path, v)
	return pattern(path, v, 500+int(h.Sum32()%60000))
}

func pattern(path string, v, n int) []byte {
	b := make([]byte, 0, n+100)
	for len(b) < n {
		b = fmt.Appendf(b, "%s v%06d %08d\n", path, v, len(b))
	}
	return b[:n]
}

// VersionOf returns the version whose Content data is, or an error if there is none.
func VersionOf(data []byte) (int, error) {
	path, v, err := header(data)
	if err == nil && !bytes.Equal(data, Content(path, v)) {
		err = fmt.Errorf("torn: %d bytes begin as %s of version %d", len(data), path, v)
	}
	return v, err
}

func header(data []byte) (path string, v int, err error) {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	if _, err = fmt.Sscanf(string(line), "%s v%06d", &path, &v); err != nil {
		err = fmt.Errorf("torn: %d bytes begin with %.60q", len(data), line)
	}
	return path, v, err
}

// CheckLibrary returns an error if the bytes of lib/data are not those of one version.
func CheckLibrary(data []byte) error {
	path, v, err := header(data)
	if err == nil && !bytes.Equal(data, pattern(path, v, len(data))) {
		err = fmt.Errorf("torn: the library begins as variant %d", v)
	}
	return err
}

// Replacement is how a file gets new content.
type Replacement int

// A file is written in place, or a new one is renamed over it.
const (
	InPlace Replacement = iota
	ByRename
)

// Put changes dir from one version to another.
func Put(dir string, from, to Tree, by Replacement) error {
	old := slices.Sorted(maps.Keys(from))
	slices.Reverse(old) // what is in a directory before it
	for _, path := range old {
		if now, stays := to[path]; stays && now.Mode.Type() == from[path].Mode.Type() && from[path].Link == "" &&
			now.Link == "" {
			continue
		}
		if err := os.Remove(filepath.Join(dir, path)); err != nil {
			return err
		}
		delete(from, path)
	}
	for _, path := range slices.Sorted(maps.Keys(to)) {
		e := to[path]
		was, there := from[path]
		var err error
		switch same := there && bytes.Equal(was.Data, e.Data); {
		case same && was.Mode == e.Mode, e.Link != "":
		case same:
			err = os.Chmod(filepath.Join(dir, path), e.Mode.Perm())
		default:
			err = put(filepath.Join(dir, path), &e, by)
		}
		if err != nil {
			return err
		}
	}
	for path, e := range to {
		if e.Link != "" {
			if err := os.Link(filepath.Join(dir, e.Link), filepath.Join(dir, path)); err != nil {
				return err
			}
		}
	}
	return nil
}

func put(path string, e *Entry, by Replacement) error {
	switch e.Mode.Type() {
	case fs.ModeDir:
		return os.MkdirAll(path, e.Mode.Perm())
	case fs.ModeSymlink:
		return os.Symlink(e.Target, path)
	}
	at := path
	if by == ByRename {
		at += ".new"
	}
	if err := os.WriteFile(at, e.Data, e.Mode.Perm()); err != nil {
		return err
	}
	if err := os.Chmod(at, e.Mode.Perm()); err != nil || by == InPlace {
		return err
	}
	return os.Rename(at, path)
}
