package layers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/testkit"
	"dim/internal/vfs"
)

// checkSite is a replica with something of every kind in its directory.
func checkSite(t *testing.T) (o *site, dir string) {
	t.Helper()
	m := newMemory(t)
	o = newSite(t, m.Version(t, 1, v1), m)
	o.WriteFile("etc/a", "mine")
	o.to(m.Version(t, 2, v2))
	o.WriteFile("etc/a", "again")
	o.WriteFile("etc/b", "b")
	o.RemoveAll("etc/keep")
	o.RemoveAll("opt/app")
	o.MakeDir("opt/app")
	o.MakeDir("opt/app/sub")
	o.WriteFile("opt/app/sub/f", "f")
	if _, err := o.Link(root, o.Handle("etc/b"), o.Handle("etc"), "link"); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Symlink(root, o.Handle("etc"), "to", "a", &vfs.SetAttr{}); err != nil {
		t.Fatal(err)
	}
	return o, filepath.Join(o.opts.Dir, "n01/compute")
}

// offline closes the set and checks what it leaves.
func (o *site) offline() []Problem {
	o.t.Helper()
	if err := o.s.Close(); err != nil {
		o.t.Fatal(err)
	}
	list, err := CheckDir(o.opts.Dir)
	if err != nil {
		o.t.Fatal(err)
	}
	var all []Problem
	for _, c := range list {
		all = append(all, c.Problems...)
	}
	o.open()
	return all
}

func TestACheckOfAValidLayerFindsNothing(t *testing.T) {
	o, _ := checkSite(t)
	c, err := o.Check()
	if err != nil || len(c.Problems) != 0 || c.Entries < 8 || c.Bytes != 7 || c.Saved < 2 {
		t.Errorf("%+v, %v", c, err)
	}
	if all := o.offline(); len(all) != 0 {
		t.Errorf("offline: %v", all)
	}
}

func TestACheckFindsWhatTheFormatForbids(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  string
	}{
		{"an id twice", func(t *testing.T, dir string) {
			id := readXattr(t, dir+"/upper/opt/app/sub")
			testkit.Must(t, unix.Lsetxattr(dir+"/upper/etc/to", "trusted.dim.id", id, 0))
		}, "has the id of another entry"},
		{"a broken id", func(t *testing.T, dir string) {
			testkit.Must(t, unix.Lsetxattr(dir+"/upper/etc/a", "trusted.dim.id", []byte("short"), 0))
		}, "has a trusted.dim.id of 5 bytes"},
		{"a whiteout below an opaque directory", func(t *testing.T, dir string) {
			testkit.Must(t, unix.Mknod(dir+"/upper/opt/app/sub/white", unix.S_IFCHR, 0))
		}, "is a whiteout where nothing of the version shows"},
		{"a group with names missing", func(t *testing.T, dir string) {
			testkit.Must(t, unix.Lsetxattr(dir+"/upper/etc/b", "trusted.dim.group", []byte("y"), 0))
		}, "lacks names of its hard-link group"},
		{"a link from outside", func(t *testing.T, dir string) {
			testkit.Must(t, os.Link(dir+"/upper/etc/a", filepath.Dir(filepath.Dir(dir))+"/outside"))
		}, "has 2 names, 1 of them here"},
		{"something left in work", func(t *testing.T, dir string) {
			testkit.Must(t, os.WriteFile(dir+"/work/#1", nil, 0o600))
		}, "was left by a crash"},
		{"an unknown entry in the replica's directory", func(t *testing.T, dir string) {
			testkit.Must(t, os.Mkdir(dir+"/unknown", 0o700))
		}, "does not belong here"},
		{"a saved area without a time", func(t *testing.T, dir string) {
			testkit.Must(t, os.Mkdir(dir+"/saved/yesterday", 0o700))
		}, "is not named by a time"},
		{"an opaque mark that overlayfs does not know", func(t *testing.T, dir string) {
			testkit.Must(t, unix.Lsetxattr(dir+"/upper/opt/app", "trusted.overlay.opaque", []byte("z"), 0))
		}, `has "z" for trusted.overlay.opaque`},
		{"a journal that is cut short", func(t *testing.T, dir string) {
			f, err := os.OpenFile(filepath.Dir(filepath.Dir(dir))+"/switches.log", os.O_WRONLY|os.O_APPEND, 0)
			testkit.Must(t, err)
			_, err = f.Write([]byte("torn"))
			testkit.Must(t, err)
			testkit.Must(t, f.Close())
		}, "ends with 4 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, dir := checkSite(t)
			if err := o.s.Close(); err != nil {
				t.Fatal(err)
			}
			tt.spoil(t, dir)
			list, err := CheckDir(o.opts.Dir)
			if err != nil {
				t.Fatal(err)
			}
			found := ""
			for _, c := range list {
				for _, p := range c.Problems {
					found += p.Path + " " + p.Text + "\n"
				}
			}
			if !strings.Contains(found, tt.want) {
				t.Errorf("found %q, want %q", found, tt.want)
			}
			o.open()
		})
	}
}

func TestACheckOfAServedReplicaComparesMemoryAndDisk(t *testing.T) {
	o, dir := checkSite(t)
	o.Dump()
	if err := os.Remove(dir + "/upper/etc/to"); err != nil {
		t.Fatal(err)
	}
	c, err := o.Check()
	if err != nil || len(c.Problems) != 1 || !strings.Contains(c.Problems[0].Text, "is served and cannot be read") {
		t.Errorf("%+v, %v", c, err)
	}
}

func readXattr(t *testing.T, path string) []byte {
	t.Helper()
	buf := make([]byte, 64)
	n, err := unix.Lgetxattr(path, "trusted.dim.id", buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}
