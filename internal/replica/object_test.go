package replica

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"dim/internal/testkit"
	"dim/internal/vfs"
)

// Files are made without a name where that is possible, and then linked. Where it is not, or where a whiteout
// is in the way, they are renamed to their names. There must be no difference, now or after a restart.
func TestFilesMadeWithAndWithoutANameAreTheSame(t *testing.T) {
	testkit.NeedRoot(t, needsRoot)
	var made [2]map[string]string
	for i := range made {
		m := newMemory(t)
		o := newSite(t, m.Version(t, 1, v1), m)
		o.s.named.Store(i == 1)
		o.WriteFile("etc/plain", "content")
		o.RemoveAll("etc/a")
		o.WriteFile("etc/a", "over a whiteout")
		user := &vfs.Cred{UID: 7, GID: 8}
		set := vfs.SetAttr{Mode: 0o4711, Size: 5, Mtime: vfs.Time{Sec: 1e9, Nsec: 5}}
		set.Valid = vfs.SetMode | vfs.SetSize | vfs.SetMtime
		how := vfs.Create{Attr: set}
		if _, err := o.SetAttr(root, o.Handle("opt"), &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o2777}); err != nil {
			t.Fatal(err)
		}
		c, err := o.Create(user, o.Handle("opt"), "by user", &how)
		if a := c.Attr; err != nil || a.Mode != 0o4711 || a.UID != 7 || a.Size != 5 || a.Mtime != set.Mtime {
			t.Errorf("made %+v, %v", a, err)
		}
		how = vfs.Create{Mode: vfs.Exclusive, Verifier: [8]byte{1, 2, 3}}
		first, err := o.Create(root, o.Handle("etc"), "once", &how)
		if err != nil {
			t.Fatal(err)
		}
		o.restart()
		if again, err := o.Create(root, o.Handle("etc"), "once", &how); err != nil || again.Handle != first.Handle {
			t.Errorf("a repeated exclusive create: %v", err)
		}
		made[i] = o.Dump()
		layer := filepath.Join(o.opts.Dir, "n01/compute")
		if left, _ := os.ReadDir(layer + "/work"); len(left) != 0 {
			t.Errorf("left in work/: %v", left)
		}
		if n, err := unix.Lgetxattr(layer+"/upper/opt/by user", "trusted.dim.id", nil); n != 8 {
			t.Errorf("the id has %d bytes, %v", n, err)
		}
	}
	if diff := cmp.Diff(made[0], made[1]); diff != "" {
		t.Error(diff)
	}
}

func TestAFileSystemWithoutUnnamedFilesIsProbedOnce(t *testing.T) {
	testkit.NeedRoot(t, needsRoot)
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	proc, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY, 0) // a file system that has none
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(proc)
	for range 2 {
		if _, err := o.createUnnamed(proc, &objectSpec{kind: vfs.Regular, mode: 0o600}); err != errNoUnnamed {
			t.Errorf("got %v", err)
		}
	}
	if !o.s.named.Load() {
		t.Error("it is probed again")
	}
}
