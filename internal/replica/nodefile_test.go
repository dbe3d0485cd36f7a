package replica

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/image"
	"dim/internal/vfs"
)

// files makes node files with the given contents by path.
func files(contents map[string]string) NodeFiles {
	n := NodeFiles{Content: func(path string) ([]byte, error) {
		c, ok := contents[path]
		if !ok {
			return nil, errors.New("no such file")
		}
		return []byte(c), nil
	}}
	for path, c := range contents {
		n.List = append(n.List, NodeFile{Path: path, Mode: 0o640, Size: uint64(len(c)), Digest: image.Sum([]byte(c)), Mtime: image.Time{Sec: 5}})
	}
	slices.SortFunc(n.List, func(a, b NodeFile) int { return image.ComparePaths(a.Path, b.Path) })
	return n
}

func (o *site) toFiles(f NodeFiles) Report {
	o.t.Helper()
	o.spec.Files = f
	return o.to(o.spec.Version)
}

func TestNodeFilesStandBetweenTheVersionAndTheLayer(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.version(t, 1, v1), m)
	o.s.Close()
	o.spec.Files = files(map[string]string{"etc/a": "node's", "new/dir/file": "deep", "etc/host": "n01"})
	o.open()
	check := func(a string) {
		t.Helper()
		o.want("etc/a", a)
		o.want("etc/b", "b1")
		o.want("new/dir/file", "deep")
		if got := o.names("new"); !slices.Equal(got, []string{"dir"}) {
			t.Errorf("names in a directory that is there for a node file: %v", got)
		}
		if a := o.attr(""); a.Nlink != 2+6 {
			t.Errorf("links of the root: %d", a.Nlink)
		}
	}
	check("node's")
	h := o.handle("etc/a")
	o.write("etc/a", "mine")
	if o.handle("etc/a") != h {
		t.Error("copying up has changed the handle")
	}
	check("mine")
	o.write("new/dir/own", "own")
	o.remove("etc/host")
	o.restart()
	check("mine")
	o.want("etc/host", gone(vfs.ENOENT))
	o.want("new/dir/own", "own")
	o.remove("new")
	o.restart()
	o.want("new/dir/file", gone(vfs.ENOENT))
}

func TestChangedNodeFilesAreASwitch(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.version(t, 1, v1), m)
	o.toFiles(files(map[string]string{"etc/a": "one", "etc/host": "n01", "etc/gone": "bye"}))
	old, etc := o.handle("etc/a"), o.attr("etc").Ctime
	o.write("etc/host", "mine")
	rep := o.toFiles(files(map[string]string{"etc/a": "two", "etc/host": "n01"}))
	if len(rep.Aside) != 0 {
		t.Errorf("set aside: %v", rep.Aside)
	}
	o.want("etc/a", "two")
	o.want("etc/host", "mine")
	o.want("etc/gone", gone(vfs.ENOENT))
	if !etc.Before(o.attr("etc").Ctime) {
		t.Error("the directory's ctime has not grown")
	}
	if got := o.read(old); got != "one" {
		t.Errorf("replaced node file: %q", got)
	}
	rep = o.toFiles(files(map[string]string{"etc/a": "two", "etc/host": "n02"}))
	if diff := cmp.Diff(1, len(rep.Aside)); diff != "" {
		t.Errorf("set aside: %v", rep.Aside)
	}
	o.want("etc/host", "n02")
	o.toFiles(NodeFiles{})
	o.want("etc/a", "a1")
	etc = o.attr("etc").Ctime
	o.s.Close()
	o.spec.Files = files(map[string]string{"etc/b": "by restart"})
	o.open()
	o.want("etc/b", "by restart")
	if !etc.Before(o.attr("etc").Ctime) {
		t.Error("the directory's ctime has not grown over the restart")
	}
}

func TestSharedPathsAreReadOnlyForRootToo(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.version(t, 1, v1), m)
	p, err := image.ParsePattern("/opt")
	if err != nil {
		t.Fatal(err)
	}
	o.s.Close()
	o.spec.Shared = image.Patterns{p}
	o.open()
	opt, app, etc := o.handle("opt"), o.handle("opt/app"), o.handle("etc")
	calls := map[string]func() error{
		"create":  func() error { _, err := o.Create(root, app, "n", &vfs.Create{}); return err },
		"mkdir":   func() error { _, err := o.Mkdir(root, opt, "n", &vfs.SetAttr{}); return err },
		"write":   func() error { _, err := o.Write(root, o.handle("opt/app/x"), []byte("x"), 0, 0); return err },
		"setattr": func() error { _, err := o.SetAttr(root, opt, &vfs.SetAttr{Valid: vfs.SetMode}); return err },
		"remove":  func() error { _, err := o.Remove(root, app, "x"); return err },
		"rmdir":   func() error { _, err := o.Rmdir(root, opt, "other"); return err },
		"link":    func() error { _, err := o.Link(root, o.handle("opt/app/x"), etc, "l"); return err },
		"rename":  func() error { _, err := o.Rename(root, app, "x", etc, "x"); return err },
		"move in": func() error { _, err := o.Rename(root, etc, "a", app, "a"); return err },
		"move":    func() error { _, err := o.Rename(root, o.Root(), "opt", etc, "opt"); return err },
	}
	for name, call := range calls {
		if err := call(); err != vfs.EROFS {
			t.Errorf("%s below a shared path: %v", name, err)
		}
	}
	o.write("etc/a", "elsewhere all is well")
}
