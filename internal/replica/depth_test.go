package replica

import (
	"strings"
	"testing"

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
	o := newSite(t, m.version(t, 1, nil), m)
	name := strings.Repeat("d", 99)
	o.mkdir("a")
	o.mkdir("b")
	o.mkdir("b/c")
	deepest, n, err := o.chain(o.handle("a"), name)
	if err != vfs.ENAMETOOLONG || n != (pathMax-1)/100 {
		t.Fatalf("after %d levels: %v", n, err)
	}
	if _, _, err := o.chain(o.handle("b/c"), name); err != vfs.ENAMETOOLONG {
		t.Fatal(err)
	}
	// A chain that is moved to the end of another one makes it longer than mkdir could.
	if _, err := o.Rename(root, o.Root(), "b", deepest, "b"); err != vfs.ENAMETOOLONG {
		t.Fatalf("rename of a deep directory into a deep one: %v", err)
	}
	if _, err := o.Rename(root, o.Root(), "b", o.handle("a"), name[1:]); err != vfs.ENAMETOOLONG {
		t.Fatalf("rename of a deep directory one level down: %v", err)
	}
	if _, err := o.Rename(root, o.handle("b"), "c", o.Root(), "c"); err != nil {
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
	if got := o.names("c"); len(got) != 1 {
		t.Errorf("c holds %v after a restart", got)
	}
	if err := o.Attr(deepest, new(vfs.Attr)); err != nil {
		t.Errorf("the deepest directory after a restart: %v", err)
	}
}

func (o *site) file(path string) vfs.Handle {
	o.t.Helper()
	o.write(path, "x")
	return o.handle(path)
}

func TestAPathOfTheVersionThatIsTooLongForALayerCanBeReadButNotChanged(t *testing.T) {
	m := newMemory(t)
	var list []vfstest.Entry
	var path string
	for len(path) < pathMax+200 {
		path += strings.Repeat("d", 99)
		list = append(list, vfstest.Entry{Path: path, Type: vfs.Directory, Mode: 0o755})
		path += "/"
	}
	path += "file"
	list = append(list, vfstest.Entry{Path: path, Type: vfs.Regular, Mode: 0o644, Content: "old"})
	o := newSite(t, m.version(t, 1, list), m)
	h := o.handle(path)
	if got := o.read(h); got != "old" {
		t.Fatalf("read %q", got)
	}
	if _, err := o.Write(root, h, []byte("new"), 0, vfs.FileSync); err != vfs.ENAMETOOLONG {
		t.Errorf("write: %v", err)
	}
	if _, err := o.Create(root, o.handle(parentPath(path)), "other", &vfs.Create{}); err != vfs.ENAMETOOLONG {
		t.Errorf("create: %v", err)
	}
	if _, err := o.Remove(root, o.handle(parentPath(path)), "file"); err != vfs.ENAMETOOLONG {
		t.Errorf("remove: %v", err)
	}
	o.restart()
	o.want(path, "old")
}

func TestADeviceThatWouldBeAWhiteoutStaysInTheVersion(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.version(t, 1, []vfstest.Entry{
		{Path: "var", Type: vfs.Directory, Mode: 0o755},
		{Path: "var/gone", Type: vfs.CharDevice, Mode: 0o600},
		{Path: "var/null", Type: vfs.CharDevice, Mode: 0o600, Major: 1, Minor: 3},
	}), m)
	h, dir := o.handle("var/gone"), o.handle("var")
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
	if a := o.attr("var/gone"); a.Type != vfs.CharDevice {
		t.Errorf("type %v", a.Type)
	}
	o.remove("var/gone")
	o.restart()
	if got := o.names("var"); len(got) != 1 {
		t.Errorf("var holds %v", got)
	}
}
