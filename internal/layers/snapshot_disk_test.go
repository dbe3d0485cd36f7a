package layers

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"dim/internal/disktest"
	"dim/internal/replica"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// The plan of a restore has the bytes to copy: those that come back, and those that are kept for the undo.
func TestThePlanOfARestoreHasTheBytesToCopy(t *testing.T) {
	m := newMemory(t)
	for _, disk := range []func(*testing.T) string{
		func(t *testing.T) string { return t.TempDir() },
		func(t *testing.T) string { return disktest.Reflink(t).Dir },
	} {
		o := newSiteIn(t, disk(t), m.Version(t, 1, v1), m)
		shares := clones(t, o.opts.Dir)
		e := testkit.Value(o.Edit("test"))(t)
		got := e.SharesBlocks()
		testkit.Must(t, e.Cancel(nil))
		if got != shares {
			t.Fatalf("shares blocks: %v, detected: %v", shares, got)
		}
		o.WriteFile("same/own", strings.Repeat("x", 30_000))
		o.WriteFile("same/still", strings.Repeat("x", 90_000))
		if _, err := o.Link(root, o.Handle("same/own"), o.Handle("same"), "link"); err != nil {
			t.Fatal(err)
		}
		stamp := o.snapshotNow()
		o.RemoveAll("same/link")
		o.WriteFile("same/own", strings.Repeat("y", 50_000))
		plan, err := o.RestoreSnapshot(RestoreSnapshotOptions{To: stamp, Dry: true})
		if err != nil {
			t.Fatal(err)
		}
		list := o.restoreSnapshot(stamp)
		if list.Copies != plan.Copies {
			t.Errorf("planned to copy %d bytes, reported %d", plan.Copies, list.Copies)
		}
		kept, err := o.snapshots()
		if err != nil || len(kept) != 2 {
			t.Fatalf("%+v, %v", kept, err)
		}
		const back = 32768
		if want := kept[0].Copied + back; shares && plan.Copies != 0 || !shares && plan.Copies != want {
			t.Errorf("planned to copy %d bytes, copied %d for the undo", plan.Copies, kept[0].Copied)
		}
	}
}

// clones reports whether the file system of a directory shares blocks between files.
func clones(t *testing.T, dir string) bool {
	t.Helper()
	a, err := os.Create(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(a.Name())
	defer a.Close()
	b, err := os.Create(filepath.Join(dir, "b"))
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(b.Name())
	defer b.Close()
	if _, err := a.WriteString(strings.Repeat("x", 8192)); err != nil {
		t.Fatal(err)
	}
	return unix.IoctlFileClone(int(b.Fd()), int(a.Fd())) == nil
}

func TestADiskThatSharesBlocksCopiesNothing(t *testing.T) {
	dir := disktest.Reflink(t).Dir
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSite(t, one, m)
	o.s.Close()
	o.opts.Dir, o.opts.Durability = filepath.Join(dir, "replicas"), replica.Synced
	o.open()
	o.keepsSnapshots(3)
	o.spec.Rules.SnapshotCopy = 1
	o.WriteFile("same/own", strings.Repeat("x", 100_000))
	before := o.Dump()
	if rep := o.to(two); rep.Snapshots != 1 || len(rep.Missed) > 0 {
		t.Errorf("report %+v", rep)
	}
	if list, err := o.snapshots(); err != nil || len(list) != 1 || list[0].Copied != 0 || list[0].Bytes < 100_000 {
		t.Errorf("%+v, %v", list, err)
	}
	o.to(one)
	// Written in place: the snapshot keeps what it has.
	if _, err := o.Write(root, o.Handle("same/own"), []byte("other"), 50_000, vfs.FileSync); err != nil {
		t.Fatal(err)
	}
	o.restoreSnapshot("compute@1")
	if diff := cmp.Diff(before, o.Dump()); diff != "" {
		t.Error(diff)
	}
	checkClean(t, o)
	o.s.Close()
	// The disk can be unmounted now.
	o.s, _ = replica.Open(replica.Options{Dir: filepath.Join(t.TempDir(), "other"), Source: m})
}

const nearlyFull = "the disk is nearly full"

// A disk that is nearly full takes no snapshot. A switch is done without one, a restore is not.
func TestAFullDiskTakesNoSnapshot(t *testing.T) {
	dir := disktest.Reflink(t).Dir
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSite(t, one, m)
	o.s.Close()
	o.opts.Dir = filepath.Join(dir, "replicas")
	o.open()
	o.keepsSnapshots(3)
	o.WriteFile("same/own", "own")
	o.to(two)
	o.WriteFile("same/own", "other")
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	full, err := os.Create(filepath.Join(dir, "full"))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Fallocate(int(full.Fd()), 0, 0, int64(fs.Bavail*uint64(fs.Bsize))*98/100); err != nil {
		t.Fatal(err)
	}
	full.Close()
	rep := o.to(one)
	if rep.Replicas != 1 || len(rep.Missed) != 1 || !strings.Contains(rep.Missed[0].Error(), nearlyFull) {
		t.Errorf("report %+v", rep)
	}
	_, err = o.RestoreSnapshot(RestoreSnapshotOptions{To: "compute@1"})
	if err == nil || !strings.Contains(err.Error(), nearlyFull) {
		t.Errorf("restore: %v", err)
	}
	o.Want("same/own", "other")
	o.s.Close()
	o.s, _ = replica.Open(replica.Options{Dir: filepath.Join(t.TempDir(), "other"), Source: m})
}
