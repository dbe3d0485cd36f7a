package replica

import (
	"strings"
	"testing"

	"dim/internal/layer"
	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

// chain makes directories one in another below dir until one is refused, and returns the deepest and its path's length.
func (o *site) chain(dir vfs.Handle, name string) (deepest vfs.Handle, n int, err error) {
	s := vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o755}
	for {
		made, err := o.Mkdir(root, dir, name, &s)
		if err != nil {
			return dir, n, err
		}
		dir, n = made.Handle, n+1
	}
}

func TestANodeCannotNestDirectoriesWithoutEnd(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, nil), m)
	name := strings.Repeat("d", 99)
	o.MakeDir("a")
	o.MakeDir("b")
	o.MakeDir("b/c")
	deepest, n, err := o.chain(o.Handle("a"), name)
	if err != vfs.ENAMETOOLONG || n != (layer.PathMax-1)/100 {
		t.Fatalf("after %d levels: %v", n, err)
	}
	if _, _, err := o.chain(o.Handle("b/c"), name); err != vfs.ENAMETOOLONG {
		t.Fatal(err)
	}
	// A chain that is moved to the end of another one makes it longer than mkdir could.
	if _, err := o.Rename(root, o.Root(), "b", deepest, "b"); err != vfs.ENAMETOOLONG {
		t.Fatalf("rename of a deep directory into a deep one: %v", err)
	}
	if _, err := o.Rename(root, o.Root(), "b", o.Handle("a"), name[1:]); err != vfs.ENAMETOOLONG {
		t.Fatalf("rename of a deep directory one level down: %v", err)
	}
	if _, err := o.Rename(root, o.Handle("b"), "c", o.Root(), "c"); err != nil {
		t.Fatalf("rename of a deep directory one level up: %v", err)
	}
	long := strings.Repeat("f", 255)
	if _, err := o.Create(root, deepest, long, &vfs.Create{}); err != vfs.ENAMETOOLONG {
		t.Fatalf("create: %v", err)
	}
	if _, err := o.Link(root, o.file("file"), deepest, long); err != vfs.ENAMETOOLONG {
		t.Fatalf("link: %v", err)
	}
	if _, err := o.Rename(root, o.Root(), "file", deepest, long); err != vfs.ENAMETOOLONG {
		t.Fatalf("rename: %v", err)
	}
	o.restart()
	if got := o.Names("c"); len(got) != 1 {
		t.Errorf("c holds %v after a restart", got)
	}
	if err := o.Attr(deepest, new(vfs.Attr)); err != nil {
		t.Errorf("the deepest directory after a restart: %v", err)
	}
}

func (o *site) file(path string) vfs.Handle {
	o.t.Helper()
	o.WriteFile(path, "x")
	return o.Handle(path)
}

func TestAPathOfTheVersionThatIsTooLongForALayerCanBeReadButNotChanged(t *testing.T) {
	m := newMemory(t)
	var list []vfstest.Entry
	var path string
	for len(path) < layer.PathMax+200 {
		path += strings.Repeat("d", 99)
		list = append(list, vfstest.Entry{Path: path, Type: vfs.Directory, Mode: 0o755})
		path += "/"
	}
	path += "file"
	list = append(list, vfstest.Entry{Path: path, Type: vfs.Regular, Mode: 0o644, Content: "old"})
	o := newSite(t, m.Version(t, 1, list), m)
	h := o.Handle(path)
	if got := o.ReadAll(h); got != "old" {
		t.Fatalf("read %q", got)
	}
	if _, err := o.Write(root, h, []byte("new"), 0, vfs.FileSync); err != vfs.ENAMETOOLONG {
		t.Errorf("write: %v", err)
	}
	if _, err := o.Create(root, o.Handle(parentPath(path)), "other", &vfs.Create{}); err != vfs.ENAMETOOLONG {
		t.Errorf("create: %v", err)
	}
	if _, err := o.Remove(root, o.Handle(parentPath(path)), "file"); err != vfs.ENAMETOOLONG {
		t.Errorf("remove: %v", err)
	}
	o.restart()
	o.Want(path, "old")
}

func TestADeviceThatWouldBeAWhiteoutStaysInTheVersion(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, []vfstest.Entry{
		{Path: "var", Type: vfs.Directory, Mode: 0o755},
		{Path: "var/gone", Type: vfs.CharDevice, Mode: 0o600},
		{Path: "var/null", Type: vfs.CharDevice, Mode: 0o600, Major: 1, Minor: 3},
	}), m)
	h, dir := o.Handle("var/gone"), o.Handle("var")
	if _, err := o.SetAttr(root, h, &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o644}); err != vfs.EPERM {
		t.Errorf("chmod: %v", err)
	}
	if _, err := o.Link(root, h, dir, "other"); err != vfs.EPERM {
		t.Errorf("link: %v", err)
	}
	if _, err := o.Rename(root, dir, "gone", dir, "moved"); err != vfs.EPERM {
		t.Errorf("rename: %v", err)
	}
	if _, err := o.Rename(root, o.Root(), "var", o.Root(), "opt"); err != vfs.EPERM {
		t.Errorf("rename of the directory: %v", err)
	}
	o.restart()
	if a := o.Stat("var/gone"); a.Type != vfs.CharDevice {
		t.Errorf("type %v", a.Type)
	}
	o.RemoveAll("var/gone")
	o.restart()
	if got := o.Names("var"); len(got) != 1 {
		t.Errorf("var holds %v", got)
	}
}
