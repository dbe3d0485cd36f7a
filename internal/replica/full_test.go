package replica

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"dim/internal/replica/replicatest"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// onSmallDisk is newSite with the layers on a file system of size bytes.
func onSmallDisk(t *testing.T, size int, m *replicatest.Memory, o *site) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		o.s.Close()
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	o.s.Close()
	o.opts.Dir = filepath.Join(dir, "replicas")
	o.open()
}

// On a full disk calls fail with the right error and change nothing. All works again when there is room.
func TestAFullDiskLeavesTheOldState(t *testing.T) {
	testkit.NeedRoot(t, needsRoot)
	m := newMemory(t)
	big := strings.Repeat("x", 300_000)
	seed := append(slices.Clone(v1), f("etc/big", big))
	o := newSite(t, m.Version(t, 1, seed), m)
	onSmallDisk(t, 400_000, m, o)
	o.WriteFile("etc/fill", strings.Repeat("y", 50_000))
	o.WriteFile("etc/a", strings.Repeat("z", 100_000))
	before := o.Dump()
	h := o.Handle("etc/big")
	if _, err := o.Write(root, h, []byte("X"), 0, vfs.FileSync); err != vfs.ENOSPC {
		t.Errorf("write that has to copy up: %v", err)
	}
	if _, err := o.SetAttr(root, h, &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o600}); err != vfs.ENOSPC {
		t.Errorf("chmod that has to copy up: %v", err)
	}
	if _, err := o.Rename(root, o.Handle("etc"), "big", o.Handle("opt"), "big"); err != vfs.ENOSPC {
		t.Errorf("rename that has to copy up: %v", err)
	}
	if diff := cmp.Diff(before, o.Dump()); diff != "" {
		t.Errorf("a failed call has changed something:\n%s", diff)
	}
	if left, _ := os.ReadDir(filepath.Join(o.opts.Dir, "n01/compute/work")); len(left) != 0 {
		t.Errorf("left in work/: %v", left)
	}
	// A truncation needs no room, and neither does a removal that needs no whiteout.
	if _, err := o.SetAttr(root, h, &vfs.SetAttr{Valid: vfs.SetSize, Size: 10}); err != nil {
		t.Errorf("truncate: %v", err)
	}
	if got := o.Content("etc/big"); got != big[:10] {
		t.Errorf("truncated: %d bytes", len(got))
	}
	o.RemoveAll("etc/fill")
	o.WriteFile("etc/b", strings.Repeat("w", 50_000))
	after := o.Dump()
	o.restart()
	if diff := cmp.Diff(after, o.Dump()); diff != "" {
		t.Errorf("after a restart:\n%s", diff)
	}
}

// On a read-only disk files can be read and changes are refused. All works again, without a restart, when it is
// writable. A read-only mount over the layer's file stands in for the disk, for the kernel does not make a disk
// read-only under files that are open for writing.
func TestAReadOnlyDiskRefusesWritesUntilItIsWritable(t *testing.T) {
	testkit.NeedRoot(t, needsRoot)
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.WriteFile("etc/own", "own")
	o.restart()
	file := filepath.Join(o.opts.Dir, "n01/compute/upper/etc/own")
	if err := unix.Mount(file, file, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(file, unix.MNT_DETACH) })
	if err := unix.Mount("", file, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	h := o.Handle("etc/own")
	if got := o.ReadAll(h); got != "own" {
		t.Errorf("read: %q", got)
	}
	if _, err := o.Write(root, h, []byte("X"), 0, vfs.FileSync); err != vfs.EROFS {
		t.Errorf("write: %v", err)
	}
	if _, err := o.SetAttr(root, h, &vfs.SetAttr{Valid: vfs.SetSize}); err != vfs.EROFS {
		t.Errorf("truncate: %v", err)
	}
	if err := unix.Unmount(file, unix.MNT_DETACH); err != nil { // it is still open for reading
		t.Fatal(err)
	}
	if _, err := o.Write(root, h, []byte("X"), 0, vfs.FileSync); err != nil {
		t.Errorf("write when it is writable again: %v", err)
	}
	if got := o.Content("etc/own"); got != "Xwn" {
		t.Errorf("written: %q", got)
	}
}

// A crash leaves files in work/, entries made by hand have no ids, and a hard-link group may be copied up in part.
func TestTheFirstCallRepairsWhatACrashOrAHandHasLeft(t *testing.T) {
	m := newMemory(t)
	seed := append(slices.Clone(v1), f("same/f2", "linked"))
	last := len(seed) - 1
	link := seed[last]
	link.Path, link.LinkTo = "etc/linked", "same/f2"
	o := newSite(t, m.Version(t, 1, append(seed, link)), m)
	o.WriteFile("etc/linked", "both names")
	layer := filepath.Join(o.opts.Dir, "n01/compute")
	want := o.Dump()
	if err := os.WriteFile(layer+"/work/#zz", []byte("left"), 0o600); err != nil {
		t.Fatal(err)
	}
	// As after a crash before the second link.
	if err := unix.Lsetxattr(layer+"/upper/etc/linked", "trusted.dim.group", []byte("y"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(layer + "/upper/same/f2"); err != nil {
		t.Fatal(err)
	}
	o.restart()
	if diff := cmp.Diff(want, o.Dump()); diff != "" {
		t.Errorf("a group copied up in part (-want +got):\n%s", diff)
	}
	if left, _ := os.ReadDir(layer + "/work"); len(left) != 0 {
		t.Errorf("left in work/: %v", left)
	}
	if err := os.WriteFile(layer+"/upper/etc/hand", []byte("made"), 0o644); err != nil {
		t.Fatal(err)
	}
	o.restart()
	o.Want("etc/hand", "made")
	h := o.Handle("etc/hand")
	o.restart()
	if o.Handle("etc/hand") != h {
		t.Error("the handle of an entry made by hand has changed by a restart")
	}
}

// A handle of one node must not lead into another node's replica, whatever it contains.
func TestHandlesOfOthersAreStale(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.WriteFile("etc/mine", "x")
	other, err := o.s.Attach(Spec{Node: "n02", Image: "compute", Version: o.spec.Version})
	if err != nil {
		t.Fatal(err)
	}
	var a vfs.Attr
	h := o.Handle("etc/mine")
	if err := other.Attr(h, &a); err != vfs.ESTALE {
		t.Errorf("another's handle: %v", err)
	}
	b := slices.Clone(h.Bytes())
	tree := other.Tree()
	copy(b[2:], tree[:])
	forged, _ := vfs.MakeHandle(b)
	if err := other.Attr(forged, &a); err != vfs.ESTALE {
		t.Errorf("another's id in an own handle: %v", err)
	}
	good := o.Handle("etc/a")
	b = slices.Clone(good.Bytes())
	b[len(b)-1] ^= 1
	forged, _ = vfs.MakeHandle(b)
	if err := o.Attr(forged, &a); err != vfs.ESTALE {
		t.Errorf("an own id with another digest: %v", err)
	}
	for n := range 50 {
		h, _ := vfs.MakeHandle(make([]byte, n))
		if err := o.Attr(h, &a); err != vfs.EBADHANDLE {
			t.Errorf("%d zero bytes: %v", n, err)
		}
	}
}

func FuzzAttrOfAnyHandle(f *testing.F) {
	m := newMemory(f)
	s := newSet(Options{Source: m})
	r, err := s.ReadOnly(m.Version(f, 1, v1))
	if err != nil {
		f.Fatal(err)
	}
	h := r.Root()
	f.Add(h.Bytes())
	var a vfs.Attr
	etc, _ := r.Lookup(root, h, "etc", &a)
	f.Add(etc.Bytes())
	file, _ := r.Lookup(root, etc, "a", &a)
	f.Add(file.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, ok := vfs.MakeHandle(b)
		if !ok {
			return
		}
		if err := r.Attr(h, &a); err != nil && err != vfs.ESTALE && err != vfs.EBADHANDLE {
			t.Error(err)
		}
	})
}
