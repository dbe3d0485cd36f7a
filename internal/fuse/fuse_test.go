package fuse

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"dim/internal/testkit"
	"dim/internal/vfs"
	"dim/internal/vfs/dirfs"
	"dim/internal/vfs/vfstest"
)

// mounted mounts a dirfs that holds the seed, and returns the mount point and the directory behind it. Tests in this
// process must not map files of the mount: a page fault blocks a thread, and the Go scheduler is not told.
func mounted(t *testing.T, opt Options, seed ...vfstest.Entry) (mnt, behind string) {
	t.Helper()
	testkit.NeedRoot(t, "it mounts")
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("needs /dev/fuse")
	}
	behind, mnt = t.TempDir(), t.TempDir()
	vfstest.WriteDir(t, behind, seed)
	fs, err := dirfs.Open(behind, dirfs.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := Mount(mnt, fs, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.Unmount(); err != nil {
			t.Error(err)
		}
		srv.Wait()
		fs.Close()
	})
	return mnt, behind
}

func regular(path, content string) vfstest.Entry {
	return vfstest.Entry{
		Path: path, Type: vfs.Regular, Mode: 0o644, Content: content, Mtime: vfs.Time{Sec: 1000, Nsec: 7},
	}
}

func names(t *testing.T, dir string) string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestAMountShowsAndChangesTheTree(t *testing.T) {
	mnt, behind := mounted(t, Options{}, regular("f", "content"))
	b, err := os.ReadFile(filepath.Join(mnt, "f"))
	if err != nil || string(b) != "content" {
		t.Fatalf("read %q, %v", b, err)
	}
	var a, c unix.Stat_t
	testkit.Must(t, unix.Stat(filepath.Join(mnt, "f"), &a), unix.Stat(filepath.Join(behind, "f"), &c))
	a.Dev, a.Atim, a.Blksize = c.Dev, c.Atim, c.Blksize
	if diff := cmp.Diff(c, a); diff != "" {
		t.Errorf("attributes (-behind +mounted):\n%s", diff)
	}
	if err := os.WriteFile(filepath.Join(mnt, "g"), []byte("made"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(behind, "g")); string(b) != "made" {
		t.Errorf("behind the mount: %q, %v", b, err)
	}
}

func TestChangesBehindTheMountAreVisibleAtOnce(t *testing.T) {
	mnt, behind := mounted(t, Options{}, regular("f", "old"))
	if b, _ := os.ReadFile(filepath.Join(mnt, "f")); string(b) != "old" {
		t.Fatalf("read %q", b)
	}
	if err := os.WriteFile(filepath.Join(behind, "f.new"), []byte("newer"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(behind, "f.new"), filepath.Join(behind, "f")); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(mnt, "f")); string(b) != "newer" {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestARemovedFileThatIsOpenIsHiddenAndThenRemoved(t *testing.T) {
	d := vfstest.Entry{Path: "d", Type: vfs.Directory, Mode: 0o755}
	mnt, behind := mounted(t, Options{}, d, regular("d/f", "content"))
	f, err := os.OpenFile(filepath.Join(mnt, "d/f"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(filepath.Join(mnt, "d/f")), os.Remove(filepath.Join(mnt, "d"))); err != nil {
		t.Fatal(err)
	}
	if got := names(t, mnt); got != "" {
		t.Errorf("the mount shows %q", got)
	}
	hidden := names(t, behind)
	if !strings.HasPrefix(hidden, hiddenPrefix) {
		t.Errorf("behind the mount is %q", hidden)
	}
	if _, err := os.Stat(filepath.Join(mnt, hidden)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the hidden name is found: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink != 0 {
		t.Errorf("nlink %d, %v", st.Nlink, err)
	}
	b := make([]byte, 7)
	if _, err := f.ReadAt(b, 0); err != nil || string(b) != "content" {
		t.Errorf("read %q, %v", b, err)
	}
	f.Close()
	// RELEASE and FORGET have no reply, so nothing tells when the kernel has sent them.
	testkit.Eventually(t, "the hidden name is removed", func() bool { return names(t, behind) == "" })
}

func TestAReplacedFileLeavesNoHiddenName(t *testing.T) {
	mnt, behind := mounted(t, Options{}, regular("f", "old"), regular("g", "new"))
	if err := os.Rename(filepath.Join(mnt, "g"), filepath.Join(mnt, "f")); err != nil {
		t.Fatal(err)
	}
	if got := names(t, mnt); got != "f" {
		t.Errorf("the mount shows %q", got)
	}
	testkit.Eventually(t, "the hidden name is removed", func() bool { return names(t, behind) == "f" })
}

func TestADirectoryThatIsOpenCanBeRemoved(t *testing.T) {
	mnt, _ := mounted(t, Options{}, vfstest.Entry{Path: "d", Type: vfs.Directory, Mode: 0o755})
	d, err := os.Open(filepath.Join(mnt, "d"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := os.Remove(filepath.Join(mnt, "d")); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(d.Fd()), &st); err != nil || st.Nlink != 0 {
		t.Errorf("nlink %d, %v", st.Nlink, err)
	}
	if list, err := d.Readdirnames(-1); len(list) > 0 || err != nil && !errors.Is(err, unix.ENOENT) {
		t.Errorf("it lists %q, %v", list, err)
	}
}

func TestAReadOnlyMountRefusesChanges(t *testing.T) {
	mnt, _ := mounted(t, Options{ReadOnly: true}, regular("f", "content"))
	for what, err := range map[string]error{
		"write":  os.WriteFile(filepath.Join(mnt, "f"), nil, 0),
		"mkdir":  os.Mkdir(filepath.Join(mnt, "d"), 0o755),
		"remove": os.Remove(filepath.Join(mnt, "f")),
		"chmod":  os.Chmod(filepath.Join(mnt, "f"), 0),
	} {
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if b, err := os.ReadFile(filepath.Join(mnt, "f")); string(b) != "content" {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestExtendedAttributesAreShownAndNotSet(t *testing.T) {
	f := regular("f", "")
	f.Xattrs = map[string]string{"user.b": "two", "user.a": "one"}
	mnt, _ := mounted(t, Options{}, f)
	p := filepath.Join(mnt, "f")
	buf := make([]byte, 100)
	n, err := unix.Getxattr(p, "user.b", buf)
	if err != nil || string(buf[:n]) != "two" {
		t.Errorf("got %q, %v", buf[:max(n, 0)], err)
	}
	if n, err = unix.Getxattr(p, "user.b", nil); n != 3 || err != nil {
		t.Errorf("size %d, %v", n, err)
	}
	if _, err = unix.Getxattr(p, "user.b", buf[:2]); err != unix.ERANGE {
		t.Errorf("a buffer too small: %v", err)
	}
	n, err = unix.Listxattr(p, buf)
	list := strings.Split(string(buf[:max(n, 0)]), "\x00")
	if err != nil || !slices.Contains(list, "user.a") || !slices.Contains(list, "user.b") {
		t.Errorf("list %q, %v", list, err)
	}
	if err := unix.Setxattr(p, "user.c", nil, 0); err != unix.EOPNOTSUPP {
		t.Errorf("set: %v", err)
	}
}

func TestNodesAreDroppedWhenTheyAreNotInUse(t *testing.T) {
	testkit.NeedRoot(t, "dirfs opens handles with open_by_handle_at")
	fs := testkit.Value(dirfs.Open(t.TempDir(), dirfs.Options{}))(t)
	defer fs.Close()
	tab := newTable(fs.Root())
	h, _ := vfs.MakeHandle([]byte("some object"))
	n := tab.addLookup(h)
	tab.addLookup(h)
	fh := tab.openFile(n)
	tab.hide(h, "hidden")
	if got := tab.forget(n.id, 1) + tab.forget(n.id, 1); got != "" {
		t.Errorf("an open file is removed: %q", got)
	}
	if got := tab.closeFile(fh); got != "hidden" {
		t.Errorf("the last close removes %q", got)
	}
	if _, ok := tab.get(n.id); ok {
		t.Error("the node is still there")
	}
	if again := tab.addLookup(h); again.id == n.id {
		t.Error("a node id was used twice")
	}
	if tab.forget(tab.root.id, 100); tab.root.lookups == 0 {
		t.Error("the root was forgotten")
	}
}

func TestGroupsAreReadFromTheStatusOfAProcess(t *testing.T) {
	for _, c := range []struct {
		name, in string
		want     []uint32
	}{
		{"some", "Name:\tx\nGid:\t1\t1\t1\t1\nGroups:\t7 2000 4294967294 \nNStgid:\t1\n",
			[]uint32{7, 2000, 4294967294}},
		{"none", "Groups:\t \nx", nil},
		{"no line", "Name:\tGroups: 5\n", nil},
		{"invalid numbers", "Groups:\t-1 x 99999999999 3", []uint32{3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, parseGroups([]byte(c.in))); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzParseGroups(f *testing.F) {
	f.Add([]byte("Groups:\t7 2000 \n"))
	f.Add([]byte("Groups:"))
	f.Fuzz(func(_ *testing.T, b []byte) { parseGroups(b) })
}

func TestDeviceNumbersAreEncodedAndDecoded(t *testing.T) {
	for _, d := range [][2]uint32{{1, 3}, {259, 70000}, {4095, 1<<20 - 1}, {0, 0}} {
		major, minor := splitDev(kernelDev(d[0], d[1]))
		if major != d[0] || minor != d[1] {
			t.Errorf("%v became %d, %d", d, major, minor)
		}
	}
}
