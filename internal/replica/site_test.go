package replica

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"dim/internal/image"
	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

// root is who nodes mostly call as.
var root = &vfs.Cred{}

// site is a replica in tests, with what is needed to restart its server.
type site struct {
	*Replica
	t    testing.TB
	m    *memory
	opts Options
	s    *Set
	spec Spec
}

func newSite(t testing.TB, v image.Version, m *memory) *site {
	t.Helper()
	return newSiteIn(t, t.TempDir(), v, m)
}

func newSiteIn(t testing.TB, dir string, v image.Version, m *memory) *site {
	t.Helper()
	needRoot(t)
	o := &site{t: t, m: m, spec: Spec{Node: "n01", Image: "compute", Version: v}}
	o.opts = Options{Dir: filepath.Join(dir, "replicas"), Source: m, Durability: Relaxed}
	o.open()
	t.Cleanup(func() { o.s.Close() })
	return o
}

func (o *site) open() {
	o.t.Helper()
	s, err := Open(o.opts)
	if err != nil {
		o.t.Fatal(err)
	}
	o.s = s
	if o.Replica, err = s.Attach(o.spec); err != nil {
		o.t.Fatal(err)
	}
}

func (o *site) restart() {
	o.t.Helper()
	if err := o.s.Close(); err != nil {
		o.t.Fatal(err)
	}
	o.open()
}

func (o *site) to(v image.Version) Report {
	o.t.Helper()
	o.spec.Version = v
	rep, err := o.s.Switch(context.Background(), []Move{o.move()})
	if err != nil {
		o.t.Fatal(err)
	}
	return rep
}

func (o *site) move() Move {
	return Move{Replica: o.Replica, Version: o.spec.Version, Files: o.spec.Files, Keep: o.spec.Keep, Shared: o.spec.Shared, Rules: o.spec.Rules}
}

// lookup returns the handle and attributes of path.
func (o *site) lookup(path string) (vfs.Handle, vfs.Attr, error) {
	h := o.Root()
	var a vfs.Attr
	if err := o.Attr(h, &a); err != nil {
		return h, a, err
	}
	if path == "" {
		return h, a, nil
	}
	for part := range strings.SplitSeq(path, "/") {
		var err error
		if h, err = o.Lookup(root, h, part, &a); err != nil {
			return h, a, err
		}
	}
	return h, a, nil
}

func (o *site) handle(path string) vfs.Handle {
	o.t.Helper()
	h, _, err := o.lookup(path)
	if err != nil {
		o.t.Fatalf("look up %s: %v", path, err)
	}
	return h
}

func (o *site) attr(path string) vfs.Attr {
	o.t.Helper()
	_, a, err := o.lookup(path)
	if err != nil {
		o.t.Fatalf("look up %s: %v", path, err)
	}
	return a
}

func (o *site) read(h vfs.Handle) string {
	buf := make([]byte, 1<<16)
	n, _, err := o.Read(root, h, buf, 0)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(buf[:n])
}

func (o *site) content(path string) string {
	h, _, err := o.lookup(path)
	if err != nil {
		return "error: " + err.Error()
	}
	return o.read(h)
}

// write replaces or makes the file at path, as "echo content > path" does.
func (o *site) write(path, content string) {
	o.t.Helper()
	dir, name := parentPath(path), path[strings.LastIndexByte(path, '/')+1:]
	made, err := o.Create(root, o.handle(dir), name, &vfs.Create{Attr: vfs.SetAttr{Valid: vfs.SetMode | vfs.SetSize, Mode: 0o644}})
	if err == nil {
		_, err = o.Write(root, made.Handle, []byte(content), 0, vfs.FileSync)
	}
	if err != nil {
		o.t.Fatalf("write %s: %v", path, err)
	}
}

func (o *site) remove(path string) {
	o.t.Helper()
	dir, name := o.handle(parentPath(path)), path[strings.LastIndexByte(path, '/')+1:]
	_, err := o.Remove(root, dir, name)
	if err == vfs.EISDIR {
		for _, k := range o.names(path) {
			o.remove(image.JoinPath(path, k))
		}
		_, err = o.Rmdir(root, dir, name)
	}
	if err != nil {
		o.t.Fatalf("remove %s: %v", path, err)
	}
}

func (o *site) mkdir(path string) {
	o.t.Helper()
	s := vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o755}
	if _, err := o.Mkdir(root, o.handle(parentPath(path)), path[strings.LastIndexByte(path, '/')+1:], &s); err != nil {
		o.t.Fatalf("mkdir %s: %v", path, err)
	}
}

func (o *site) names(path string) []string {
	o.t.Helper()
	var names []string
	_, err := o.ReadDir(root, o.handle(path), 0, vfs.NamesOnly, func(e *vfs.DirEntry) bool {
		if !isDot(e.Name) {
			names = append(names, strings.Clone(e.Name))
		}
		return true
	})
	if err != nil {
		o.t.Fatalf("list %s: %v", path, err)
	}
	slices.Sort(names)
	return names
}

// dirs returns the paths of all directories at and below path.
func (o *site) dirs(path string, h vfs.Handle, list []string) []string {
	list = append(list, path)
	o.ReadDir(root, h, 0, vfs.WithAttr, func(e *vfs.DirEntry) bool {
		if e.Attr.Type == vfs.Directory && !isDot(e.Name) {
			list = o.dirs(image.JoinPath(path, e.Name), e.Handle, list)
		}
		return true
	})
	return list
}

// tree describes everything: one line for each path.
func (o *site) tree() map[string]string {
	o.t.Helper()
	all := make(map[string]string)
	var walk func(dir string)
	walk = func(dir string) {
		for _, name := range o.names(dir) {
			path := image.JoinPath(dir, name)
			h, a, err := o.lookup(path)
			if err != nil {
				o.t.Fatalf("look up %s: %v", path, err)
			}
			line := fmt.Sprintf("%d %o %d:%d", a.Type, a.Mode, a.UID, a.GID)
			switch a.Type {
			case vfs.Regular:
				line += fmt.Sprintf(" x%d %q", a.Nlink, o.read(h))
			case vfs.Symlink:
				target, _ := o.Readlink(root, h)
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

func (o *site) want(path, content string) {
	o.t.Helper()
	if got := o.content(path); got != content {
		o.t.Errorf("%s: got %q, want %q", path, got, content)
	}
}

func d(path string) vfstest.Entry {
	return vfstest.Entry{Path: path, Type: vfs.Directory, Mode: 0o755, Mtime: vfs.Time{Sec: 1e9}}
}

func f(path, content string) vfstest.Entry {
	return vfstest.Entry{Path: path, Type: vfs.Regular, Mode: 0o644, Content: content, Mtime: vfs.Time{Sec: 1e9}}
}

func gone(err error) string { return "error: " + err.Error() }

var (
	v1 = []vfstest.Entry{
		d("etc"), f("etc/a", "a1"), f("etc/b", "b1"), f("etc/c", "c1"), f("etc/keep", "k1"), f("etc/mode", "m1"),
		d("opt"), d("opt/app"), f("opt/app/x", "x1"), f("opt/app/y", "y1"), d("opt/other"), f("opt/other/z", "z1"),
		d("gone"), f("gone/file", "g1"), d("gone/sub"), f("gone/sub/s", "s1"), d("same"), f("same/f", "f1"),
		d("turn"), f("turn/t", "t1"),
	}
	v2 = []vfstest.Entry{
		d("etc"), f("etc/a", "a2"), f("etc/b", "b2"), f("etc/keep", "k2"), {Path: "etc/mode", Type: vfs.Regular, Mode: 0o600, Content: "m1", Mtime: vfs.Time{Sec: 1e9}},
		f("etc/new", "n2"),
		d("opt"), d("opt/app"), f("opt/app/x", "x2"), f("opt/app/y", "y1"), d("opt/other"), f("opt/other/z", "z1"),
		d("same"), f("same/f", "f1"), f("turn", "a file now"),
	}
)
