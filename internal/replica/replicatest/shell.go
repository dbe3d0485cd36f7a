package replicatest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"dim/internal/image"
	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

// Root returns the superuser, as whom nodes mostly call.
func Root() *vfs.Cred { return &vfs.Cred{} }

// Shell does to a file tree by path what a shell's commands do.
type Shell struct {
	fs   vfs.FS
	t    testing.TB
	root *vfs.Cred
}

// NewShell returns a Shell on fs.
func NewShell(t testing.TB, fs vfs.FS) Shell { return Shell{fs, t, Root()} }

// Find returns the handle and attributes of path.
func (s *Shell) Find(path string) (vfs.Handle, vfs.Attr, error) {
	h := s.fs.Root()
	var a vfs.Attr
	if err := s.fs.Attr(h, &a); err != nil {
		return h, a, err
	}
	if path == "" {
		return h, a, nil
	}
	for part := range strings.SplitSeq(path, "/") {
		var err error
		if h, err = s.fs.Lookup(s.root, h, part, &a); err != nil {
			return h, a, err
		}
	}
	return h, a, nil
}

// Handle returns the handle of path.
func (s *Shell) Handle(path string) vfs.Handle {
	s.t.Helper()
	h, _, err := s.Find(path)
	if err != nil {
		s.t.Fatalf("look up %s: %v", path, err)
	}
	return h
}

// Stat returns the attributes of path.
func (s *Shell) Stat(path string) vfs.Attr {
	s.t.Helper()
	_, a, err := s.Find(path)
	if err != nil {
		s.t.Fatalf("look up %s: %v", path, err)
	}
	return a
}

// ReadAll returns the content of h, or the text of the error.
func (s *Shell) ReadAll(h vfs.Handle) string {
	buf := make([]byte, 1<<16)
	n, _, err := s.fs.Read(s.root, h, buf, 0)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(buf[:n])
}

// Content returns the content of the file at path, or the text of the error.
func (s *Shell) Content(path string) string {
	h, _, err := s.Find(path)
	if err != nil {
		return "error: " + err.Error()
	}
	return s.ReadAll(h)
}

// WriteFile replaces or makes the file at path, as "echo content > path" does.
func (s *Shell) WriteFile(path, content string) {
	s.t.Helper()
	dir, name := parent(path), path[strings.LastIndexByte(path, '/')+1:]
	how := vfs.Create{Attr: vfs.SetAttr{Valid: vfs.SetMode | vfs.SetSize, Mode: 0o644}}
	made, err := s.fs.Create(s.root, s.Handle(dir), name, &how)
	if err == nil {
		_, err = s.fs.Write(s.root, made.Handle, []byte(content), 0, vfs.FileSync)
	}
	if err != nil {
		s.t.Fatalf("write %s: %v", path, err)
	}
}

// RemoveAll removes path, and all that is in it.
func (s *Shell) RemoveAll(path string) {
	s.t.Helper()
	dir, name := s.Handle(parent(path)), path[strings.LastIndexByte(path, '/')+1:]
	_, err := s.fs.Remove(s.root, dir, name)
	if err == vfs.EISDIR {
		for _, k := range s.Names(path) {
			s.RemoveAll(image.JoinPath(path, k))
		}
		_, err = s.fs.Rmdir(s.root, dir, name)
	}
	if err != nil {
		s.t.Fatalf("remove %s: %v", path, err)
	}
}

// MakeDir makes a directory.
func (s *Shell) MakeDir(path string) {
	s.t.Helper()
	set := vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o755}
	name := path[strings.LastIndexByte(path, '/')+1:]
	if _, err := s.fs.Mkdir(s.root, s.Handle(parent(path)), name, &set); err != nil {
		s.t.Fatalf("mkdir %s: %v", path, err)
	}
}

// Names returns the names in the directory path, sorted.
func (s *Shell) Names(path string) []string {
	s.t.Helper()
	var names []string
	_, err := s.fs.ReadDir(s.root, s.Handle(path), 0, vfs.NamesOnly, func(e *vfs.DirEntry) bool {
		if e.Name != "." && e.Name != ".." {
			names = append(names, strings.Clone(e.Name))
		}
		return true
	})
	if err != nil {
		s.t.Fatalf("list %s: %v", path, err)
	}
	slices.Sort(names)
	return names
}

// Dirs returns the paths of all directories at and below path.
func (s *Shell) Dirs(path string, h vfs.Handle, list []string) []string {
	list = append(list, path)
	s.fs.ReadDir(s.root, h, 0, vfs.WithAttr, func(e *vfs.DirEntry) bool {
		if e.Attr.Type == vfs.Directory && e.Name != "." && e.Name != ".." {
			list = s.Dirs(image.JoinPath(path, e.Name), e.Handle, list)
		}
		return true
	})
	return list
}

// Dump describes everything: one line for each path.
func (s *Shell) Dump() map[string]string {
	s.t.Helper()
	all := make(map[string]string)
	var walk func(dir string)
	walk = func(dir string) {
		for _, name := range s.Names(dir) {
			path := image.JoinPath(dir, name)
			h, a, err := s.Find(path)
			if err != nil {
				s.t.Fatalf("look up %s: %v", path, err)
			}
			line := fmt.Sprintf("%d %o %d:%d", a.Type, a.Mode, a.UID, a.GID)
			switch a.Type {
			case vfs.Regular:
				line += fmt.Sprintf(" x%d %q", a.Nlink, s.ReadAll(h))
			case vfs.Symlink:
				target, _ := s.fs.Readlink(s.root, h)
				line += " -> " + target
			case vfs.Directory:
				walk(path)
			default:
				line += fmt.Sprintf(" x%d %d,%d", a.Nlink, a.Major, a.Minor)
			}
			all[path] = line
		}
	}
	walk("")
	return all
}

// Want checks the content of the file at path.
func (s *Shell) Want(path, content string) {
	s.t.Helper()
	if got := s.Content(path); got != content {
		s.t.Errorf("%s: got %q, want %q", path, got, content)
	}
}

func parent(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

// Dir is a directory of a version.
func Dir(path string) vfstest.Entry {
	return vfstest.Entry{Path: path, Type: vfs.Directory, Mode: 0o755, Mtime: vfs.Time{Sec: 1e9}}
}

// File is a file of a version.
func File(path, content string) vfstest.Entry {
	return vfstest.Entry{Path: path, Type: vfs.Regular, Mode: 0o644, Content: content, Mtime: vfs.Time{Sec: 1e9}}
}

// Failed is what Content returns for an error.
func Failed(err error) string { return "error: " + err.Error() }

// V1 is a version.
func V1() []vfstest.Entry {
	return []vfstest.Entry{
		Dir("etc"), File("etc/a", "a1"), File("etc/b", "b1"), File("etc/c", "c1"),
		File("etc/keep", "k1"), File("etc/mode", "m1"),
		Dir("opt"), Dir("opt/app"), File("opt/app/x", "x1"), File("opt/app/y", "y1"),
		Dir("opt/other"), File("opt/other/z", "z1"),
		Dir("gone"), File("gone/file", "g1"), Dir("gone/sub"), File("gone/sub/s", "s1"),
		Dir("same"), File("same/f", "f1"),
		Dir("turn"), File("turn/t", "t1"),
	}
}

// V2 is a version that differs from V1 in many ways.
func V2() []vfstest.Entry {
	return []vfstest.Entry{
		Dir("etc"), File("etc/a", "a2"), File("etc/b", "b2"), File("etc/keep", "k2"),
		{Path: "etc/mode", Type: vfs.Regular, Mode: 0o600, Content: "m1", Mtime: vfs.Time{Sec: 1e9}},
		File("etc/new", "n2"),
		Dir("opt"), Dir("opt/app"), File("opt/app/x", "x2"), File("opt/app/y", "y1"),
		Dir("opt/other"), File("opt/other/z", "z1"),
		Dir("same"), File("same/f", "f1"), File("turn", "a file now"),
	}
}
