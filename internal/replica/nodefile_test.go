package replica

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/image"
	"dim/internal/image/pathmatch"
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
		file := NodeFile{Path: path, Mode: 0o640, Size: uint64(len(c)), Mtime: image.Time{Sec: 5}}
		file.Digest = image.Sum([]byte(c))
		n.List = append(n.List, file)
	}
	slices.SortFunc(n.List, func(a, b NodeFile) int { return image.ComparePaths(a.Path, b.Path) })
	return n
}

func (o *site) toFiles(f NodeFiles) Report {
	o.t.Helper()
	o.spec.Files = f
	return o.to(o.spec.Version)
}

func TestNodeFilesHideTheVersionAndTheLayerHidesThem(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.s.Close()
	o.spec.Files = files(map[string]string{"etc/a": "node's", "new/dir/file": "deep", "etc/host": "n01"})
	o.open()
	check := func(a string) {
		t.Helper()
		o.Want("etc/a", a)
		o.Want("etc/b", "b1")
		o.Want("new/dir/file", "deep")
		if got := o.Names("new"); !slices.Equal(got, []string{"dir"}) {
			t.Errorf("names in a directory that is there for a node file: %v", got)
		}
		if a := o.Stat(""); a.Nlink != 2+6 {
			t.Errorf("links of the root: %d", a.Nlink)
		}
	}
	check("node's")
	h := o.Handle("etc/a")
	o.WriteFile("etc/a", "mine")
	if o.Handle("etc/a") != h {
		t.Error("copying up has changed the handle")
	}
	check("mine")
	o.WriteFile("new/dir/own", "own")
	o.RemoveAll("etc/host")
	o.restart()
	check("mine")
	o.Want("etc/host", gone(vfs.ENOENT))
	o.Want("new/dir/own", "own")
	o.RemoveAll("new")
	o.restart()
	o.Want("new/dir/file", gone(vfs.ENOENT))
}

func TestChangedNodeFilesAreASwitch(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.toFiles(files(map[string]string{"etc/a": "one", "etc/host": "n01", "etc/gone": "bye"}))
	old, etc := o.Handle("etc/a"), o.Stat("etc").Ctime
	o.WriteFile("etc/host", "mine")
	rep := o.toFiles(files(map[string]string{"etc/a": "two", "etc/host": "n01"}))
	if len(rep.Aside) != 0 {
		t.Errorf("set aside: %v", rep.Aside)
	}
	o.Want("etc/a", "two")
	o.Want("etc/host", "mine")
	o.Want("etc/gone", gone(vfs.ENOENT))
	if !etc.Before(o.Stat("etc").Ctime) {
		t.Error("the directory's ctime has not grown")
	}
	if got := o.ReadAll(old); got != "one" {
		t.Errorf("replaced node file: %q", got)
	}
	rep = o.toFiles(files(map[string]string{"etc/a": "two", "etc/host": "n02"}))
	if diff := cmp.Diff(1, len(rep.Aside)); diff != "" {
		t.Errorf("set aside: %v", rep.Aside)
	}
	o.Want("etc/host", "n02")
	o.toFiles(NodeFiles{})
	o.Want("etc/a", "a1")
	etc = o.Stat("etc").Ctime
	o.s.Close()
	o.spec.Files = files(map[string]string{"etc/b": "by restart"})
	o.open()
	o.Want("etc/b", "by restart")
	if !etc.Before(o.Stat("etc").Ctime) {
		t.Error("the directory's ctime has not grown over the restart")
	}
}

func TestANodeFileThatIsRenderedAgainTheSameKeepsItsTimeAndCostsNoSwitch(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	renderedAt := func(sec int64, contents map[string]string) NodeFiles {
		list := files(contents)
		for i := range list.List {
			list.List[i].Mtime.Sec = sec
		}
		return list
	}
	o.toFiles(renderedAt(10, map[string]string{"etc/a": "one", "opt/host": "n01"}))
	etc, opt, size := o.Stat("etc").Ctime, o.Stat("opt").Ctime, o.s.journal.log.Size()
	check := func(when string, a int64) {
		t.Helper()
		if got := o.Stat("etc/a").Mtime.Sec; got != a {
			t.Errorf("%s: etc/a has the time %d, want %d", when, got, a)
		}
		if got := o.Stat("opt/host").Mtime.Sec; got != 10 {
			t.Errorf("%s: opt/host has the time %d, want 10", when, got)
		}
		if o.Stat("opt").Ctime != opt {
			t.Errorf("%s: the ctime of opt has changed", when)
		}
	}
	rep := o.toFiles(renderedAt(20, map[string]string{"etc/a": "one", "opt/host": "n01"}))
	check("rendered again", 10)
	if rep.Replicas != 0 || o.Stat("etc").Ctime != etc || o.s.journal.log.Size() != size {
		t.Errorf("files that are the same were switched: %d replicas", rep.Replicas)
	}
	o.toFiles(renderedAt(30, map[string]string{"etc/a": "two", "opt/host": "n01"}))
	check("one has changed", 30)
	etc, size = o.Stat("etc").Ctime, o.s.journal.log.Size()
	o.s.Close()
	o.spec.Files = renderedAt(40, map[string]string{"etc/a": "two", "opt/host": "n01"})
	o.open()
	check("after a restart", 30)
	if o.Stat("etc").Ctime != etc || o.s.journal.log.Size() != size {
		t.Error("the restart has switched files that are the same")
	}
}

func TestSharedPathsAreReadOnlyForRootToo(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	p, err := pathmatch.Parse("/opt")
	if err != nil {
		t.Fatal(err)
	}
	o.s.Close()
	o.spec.Shared = pathmatch.List{p}
	o.open()
	opt, app, etc := o.Handle("opt"), o.Handle("opt/app"), o.Handle("etc")
	calls := map[string]func() error{
		"create":  func() error { _, err := o.Create(root, app, "n", &vfs.Create{}); return err },
		"mkdir":   func() error { _, err := o.Mkdir(root, opt, "n", &vfs.SetAttr{}); return err },
		"write":   func() error { _, err := o.Write(root, o.Handle("opt/app/x"), []byte("x"), 0, 0); return err },
		"setattr": func() error { _, err := o.SetAttr(root, opt, &vfs.SetAttr{Valid: vfs.SetMode}); return err },
		"remove":  func() error { _, err := o.Remove(root, app, "x"); return err },
		"rmdir":   func() error { _, err := o.Rmdir(root, opt, "other"); return err },
		"link":    func() error { _, err := o.Link(root, o.Handle("opt/app/x"), etc, "l"); return err },
		"rename":  func() error { _, err := o.Rename(root, app, "x", etc, "x"); return err },
		"move in": func() error { _, err := o.Rename(root, etc, "a", app, "a"); return err },
		"move":    func() error { _, err := o.Rename(root, o.Root(), "opt", etc, "opt"); return err },
	}
	for name, call := range calls {
		if err := call(); err != vfs.EROFS {
			t.Errorf("%s below a shared path: %v", name, err)
		}
	}
	o.WriteFile("etc/a", "elsewhere all is well")
}
