package replica

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"dim/internal/disktest"
	"dim/internal/vfs"
)

// What cannot be shared is copied, up to the rule's bound; files that an earlier snapshot has are linked to it.
func TestADiskThatCannotShareBlocksCopiesWhatTheRuleAllows(t *testing.T) {
	m := newMemory(t)
	one, two := m.version(t, 1, v1), m.version(t, 2, v2)
	o := newSite(t, one, m)
	o.keepsSnapshots(3)
	o.spec.Rules.Snapshots.Copy = 40_000
	o.write("same/own", strings.Repeat("x", 30_000))
	if clones(t, o.opts.Dir) {
		t.Skip("this disk shares blocks")
	}
	o.to(two)
	list, err := o.Snapshots()
	if err != nil || len(list) != 1 || list[0].Copied != 32768 || list[0].Bytes != 32768 {
		t.Errorf("%+v, %v", list, err)
	}
	// It changed long ago, as far as the next snapshot can tell: then it is known when it is the same.
	file := filepath.Join(o.opts.Dir, "n01/compute/upper/same/own")
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(o.opts.Dir, "n01/compute", snapshotArea, list[0].ID(), "same/own")
	if err := unix.Lsetxattr(copied, xattrOf, originOf(&st), 0); err != nil {
		t.Fatal(err)
	}
	twin := o.newestTwin()
	defer twin.close()
	for until, want := range map[int64]bool{nanos(st.Ctim) - 1: false, nanos(st.Ctim): true} {
		twin.until = until
		dir, err := o.s.openBeneath("n01/compute/upper/same", openDir)
		if err != nil {
			t.Fatal(err)
		}
		how, err := twin.choose(&treeEntry{path: "same/own", dir: dir, name: "own", st: st})
		unix.Close(dir)
		if err != nil || (how.link != nil) != want || (how.dress != nil) != want {
			t.Errorf("until %d: %+v, %v", until-nanos(st.Ctim), how, err)
		}
	}
	o.write("same/own", strings.Repeat("x", 50_000))
	rep := o.to(one)
	if len(rep.Missed) != 1 || !errors.Is(rep.Missed[0].Err, errTooLarge) || rep.Replicas != 1 || o.SnapshotProblem() == "" {
		t.Errorf("report %+v, %q", rep, o.SnapshotProblem())
	}
	if got := o.shots(); len(got) != 1 {
		t.Errorf("snapshots: %v", got)
	}
	if names, err := os.ReadDir(filepath.Join(o.opts.Dir, "n01/compute", snapshotArea)); err != nil || len(names) != 1 {
		t.Errorf("on the disk: %v, %v", names, err)
	}
	o.write("same/own", "small")
	if rep := o.to(two); rep.Snapshots != 1 || o.SnapshotProblem() != "" {
		t.Errorf("report %+v, %q", rep, o.SnapshotProblem())
	}
}

// The plan of a restore says what it takes: what comes back, and what is kept for the undo.
func TestTheBytesThatARestoreCopiesAreToldBefore(t *testing.T) {
	m := newMemory(t)
	for _, disk := range []func(*testing.T) string{func(t *testing.T) string { return t.TempDir() }, func(t *testing.T) string { return disktest.Reflink(t).Dir }} {
		o := newSiteIn(t, disk(t), m.version(t, 1, v1), m)
		shares := clones(t, o.opts.Dir)
		if got := o.s.shares(); got != shares {
			t.Fatalf("shares blocks: %v, is taken to: %v", shares, got)
		}
		o.write("same/own", strings.Repeat("x", 30_000))
		o.write("same/still", strings.Repeat("x", 90_000))
		if _, err := o.Link(root, o.handle("same/own"), o.handle("same"), "link"); err != nil {
			t.Fatal(err)
		}
		stamp := o.snapshotNow()
		o.remove("same/link")
		o.write("same/own", strings.Repeat("y", 50_000))
		plan, err := o.Rewind(Rewinding{To: stamp, Dry: true})
		if err != nil {
			t.Fatal(err)
		}
		list := o.rewind(stamp)
		if list.Copies != plan.Copies {
			t.Errorf("planned to copy %d bytes, told of %d", plan.Copies, list.Copies)
		}
		shots, err := o.Snapshots()
		if err != nil || len(shots) != 2 {
			t.Fatalf("%+v, %v", shots, err)
		}
		const back = 32768
		if want := shots[0].Copied + back; shares && plan.Copies != 0 || !shares && plan.Copies != want {
			t.Errorf("planned to copy %d bytes, for the undo were copied %d", plan.Copies, shots[0].Copied)
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
	one, two := m.version(t, 1, v1), m.version(t, 2, v2)
	o := newSite(t, one, m)
	o.s.Close()
	o.opts.Dir, o.opts.Durability = filepath.Join(dir, "replicas"), Synced
	o.open()
	o.keepsSnapshots(3)
	o.spec.Rules.Snapshots.Copy = 1
	o.write("same/own", strings.Repeat("x", 100_000))
	before := o.tree()
	if rep := o.to(two); rep.Snapshots != 1 || len(rep.Missed) > 0 {
		t.Errorf("report %+v", rep)
	}
	if list, err := o.Snapshots(); err != nil || len(list) != 1 || list[0].Copied != 0 || list[0].Bytes < 100_000 {
		t.Errorf("%+v, %v", list, err)
	}
	o.to(one)
	// Written in place: the snapshot keeps what it has.
	if _, err := o.Write(root, o.handle("same/own"), []byte("other"), 50_000, vfs.FileSync); err != nil {
		t.Fatal(err)
	}
	o.rewind("compute@1")
	if diff := cmp.Diff(before, o.tree()); diff != "" {
		t.Error(diff)
	}
	checkClean(t, o)
	o.s.Close()
	o.s, _ = Open(Options{Dir: filepath.Join(t.TempDir(), "other"), Source: m}) // lets the disk be unmounted
}

// A disk that is nearly full takes no snapshot: the switch goes on without, a restore does not.
func TestAFullDiskTakesNoSnapshot(t *testing.T) {
	dir := disktest.Reflink(t).Dir
	m := newMemory(t)
	one, two := m.version(t, 1, v1), m.version(t, 2, v2)
	o := newSite(t, one, m)
	o.s.Close()
	o.opts.Dir = filepath.Join(dir, "replicas")
	o.open()
	o.keepsSnapshots(3)
	o.write("same/own", "own")
	o.to(two)
	o.write("same/own", "other")
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
	if rep.Replicas != 1 || len(rep.Missed) != 1 || !errors.Is(rep.Missed[0].Err, errNoRoom) {
		t.Errorf("report %+v", rep)
	}
	if _, err := o.Rewind(Rewinding{To: "compute@1"}); !errors.Is(err, errNoRoom) {
		t.Errorf("restore: %v", err)
	}
	o.want("same/own", "other")
	o.s.Close()
	o.s, _ = Open(Options{Dir: filepath.Join(t.TempDir(), "other"), Source: m})
}
