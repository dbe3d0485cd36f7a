package replica

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/layer"
	"dim/internal/testkit"
)

// Content that cannot be shared is copied, up to the limit of the rules. Files that an earlier snapshot has are
// linked to it.
func TestADiskThatCannotShareBlocksCopiesWhatTheRuleAllows(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSite(t, one, m)
	o.spec.Rules.Snapshots = 3
	o.spec.Rules.SnapshotCopy = 40_000
	o.WriteFile("same/own", strings.Repeat("x", 30_000))
	if clones(t, o.opts.Dir) {
		t.Skip("this disk shares blocks")
	}
	o.to(two)
	list := o.snapshotsOnDisk()
	if len(list) != 1 {
		t.Fatalf("snapshots: %v", list)
	}
	info := snapshotInfo(t, filepath.Join(o.opts.Dir, "n01/compute/snapshots", list[0]))
	if info.Copied != 32768 || info.Bytes != 32768 {
		t.Errorf("%+v", info)
	}
	// If the file changed long before the next snapshot, the snapshot can tell whether it is the same.
	file := filepath.Join(o.opts.Dir, "n01/compute/upper/same/own")
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		t.Fatal(err)
	}
	copied := testkit.Value(o.s.root.OpenDir(o.dir.Snapshots(list[0], "same")))(t)
	defer unix.Close(copied)
	testkit.Must(t, layer.At(copied, "own").SetCopyOf(&st))
	last := o.lastSnapshot()
	defer last.close()
	for until, want := range map[int64]bool{nanos(st.Ctim) - 1: false, nanos(st.Ctim): true} {
		last.until = until
		dir, err := o.s.root.OpenDir("n01/compute/upper/same")
		if err != nil {
			t.Fatal(err)
		}
		how, err := last.choose(&layer.CopyEntry{Entry: layer.At(dir, "own"), At: "same/own", Stat: st})
		unix.Close(dir)
		if err != nil || (how.Link != nil) != want || (how.Adapt != nil) != want {
			t.Errorf("until %d: %+v, %v", until-nanos(st.Ctim), how, err)
		}
	}
	o.WriteFile("same/own", strings.Repeat("x", 50_000))
	rep := o.to(one)
	if len(rep.Missed) != 1 || !strings.Contains(rep.Missed[0].Error(), "more than may be copied") ||
		rep.Replicas != 1 || o.SnapshotProblem() == "" {
		t.Errorf("report %+v, %q", rep, o.SnapshotProblem())
	}
	if names := o.snapshotsOnDisk(); len(names) != 1 {
		t.Errorf("on the disk: %v", names)
	}
	o.WriteFile("same/own", "small")
	if rep := o.to(two); rep.Snapshots != 1 || o.SnapshotProblem() != "" {
		t.Errorf("report %+v, %q", rep, o.SnapshotProblem())
	}
}

// snapshotsOnDisk lists all in the directory of the snapshots.
func (o *site) snapshotsOnDisk() []string {
	o.t.Helper()
	return testkit.Value(o.s.root.List(o.dir.Snapshots()))(o.t)
}

func snapshotInfo(t *testing.T, path string) layer.SnapshotInfo {
	t.Helper()
	fd := testkit.Value(unix.Open(path, unix.O_RDONLY, 0))(t)
	defer unix.Close(fd)
	return layer.At(fd, ".").SnapshotInfo()
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
