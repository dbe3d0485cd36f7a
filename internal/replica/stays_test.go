package replica

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

// later returns an entry like e that the master has touched since.
func later(e vfstest.Entry) vfstest.Entry {
	e.Mtime = vfs.Time{Sec: 3e9}
	return e
}

func TestWhatIsEqualButForTimesAndLocksStayTheNodes(t *testing.T) {
	link := func(path, target string) vfstest.Entry {
		return vfstest.Entry{Path: path, Type: vfs.Symlink, Target: target, Mtime: vfs.Time{Sec: 1e9}}
	}
	old := []vfstest.Entry{
		d("db"), f("db/lock", ""), f("db/lock-frontend", ""), f("db/locked", ""), f("db/touched", "o"),
		f("run.pid", "1\n"), f("gone.pid", "1\n"), f("removed.lock", ""), f("app.lock", "1"),
		f("same", "1"), link("samelink", "1"), f("mode", "1"), f("other", "1"), link("otherlink", "1"),
		f("removed", "x"), f("socket", "x"),
	}
	newer := []vfstest.Entry{
		d("db"), later(f("db/lock", "")), later(f("db/lock-frontend", "")), later(f("db/locked", "")),
		later(f("db/touched", "o")),
		f("run.pid", "22\n"), later(f("removed.lock", "5")), f("app.lock", string(make([]byte, lockMax+1))),
		f("same", "2"), link("samelink", "2"), f("mode", "2"), f("other", "2"), link("otherlink", "2"),
		later(f("removed", "x")), f("socket", "y"),
	}
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, old), m)
	for path, content := range map[string]string{
		"db/touched": "mine", "run.pid": "333\n", "gone.pid": "333\n", "app.lock": "9",
		"same": "2", "mode": "2", "other": "3",
	} {
		o.WriteFile(path, content)
	}
	for _, path := range []string{"db/lock", "db/lock-frontend"} { // as dpkg does
		if _, err := o.SetAttr(root, o.Handle(path), &vfs.SetAttr{Valid: vfs.SetSize}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.SetAttr(root, o.Handle("mode"), &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"removed", "removed.lock", "samelink", "otherlink", "socket"} {
		o.RemoveAll(path)
	}
	for path, target := range map[string]string{"samelink": "2", "otherlink": "3"} {
		if _, err := o.Symlink(root, o.Handle(""), path, target, &vfs.SetAttr{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.Mknod(root, o.Handle(""), "socket", &vfs.Node{Type: vfs.Socket}, &vfs.SetAttr{}); err != nil {
		t.Fatal(err)
	}
	handles := map[string]vfs.Handle{}
	for _, path := range []string{
		"db/lock", "db/lock-frontend", "db/touched", "run.pid", "gone.pid", "same", "samelink", "socket",
	} {
		handles[path] = o.Handle(path)
	}
	rep := o.to(m.Version(t, 2, newer))
	var got []string
	for _, a := range rep.Aside {
		got = append(got, a.Path+" "+string(a.Kind))
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"app.lock entry", "mode entry", "other entry", "otherlink entry"}, got); diff != "" {
		t.Errorf("set aside (-want +got):\n%s", diff)
	}
	check := func() {
		t.Helper()
		for path, h := range handles {
			if o.Handle(path) != h {
				t.Errorf("%s has another handle", path)
			}
		}
		for path, content := range map[string]string{
			"db/touched": "mine", "run.pid": "333\n", "gone.pid": "333\n", "same": "2", "mode": "2", "other": "2",
			"removed": gone(vfs.ENOENT), "removed.lock": gone(vfs.ENOENT),
		} {
			o.Want(path, content)
		}
	}
	check()
	o.restart()
	check()
}

func TestNamesOfLocks(t *testing.T) {
	for name, want := range map[string]bool{
		"lock": true, "lock-frontend": true, ".pwd.lock": true, "sshd.pid": true, "LCK..ttyS0": true, ".rpm.lock": true,
		"clock": false, "locks": false, "pid": false, "lock.conf": false, "padlock": false,
	} {
		if isLock(name) != want {
			t.Errorf("%s: %v, want %v", name, !want, want)
		}
	}
}
