package layers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/image"
	"dim/internal/image/pathmatch"
	"dim/internal/layer"
	"dim/internal/recordmerge"
	"dim/internal/replica/replicatest"
	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

// keepsSnapshots sets how many snapshots the rules keep.
func (o *site) keepsSnapshots(keep int) {
	o.spec.Rules.Snapshots = keep
	o.rules()
}

// snapshotLines lists the snapshots: reason, versions, number of entries.
func (o *site) snapshotLines() []string {
	o.t.Helper()
	list, err := o.snapshots()
	if err != nil {
		o.t.Fatal(err)
	}
	lines := []string{}
	for _, one := range list {
		line := one.Why + " over"
		for _, v := range one.Over {
			line += " " + v.Ref().String()
		}
		lines = append(lines, fmt.Sprintf("%s: %d", line, one.Files))
	}
	return lines
}

func (o *site) restoreSnapshot(to string) *RestoredSnapshot {
	o.t.Helper()
	done, err := o.RestoreSnapshot(RestoreSnapshotOptions{To: to})
	if err != nil {
		o.t.Fatal(err)
	}
	return done
}

func (o *site) restoredPaths(q RestoreSnapshotOptions) []string {
	o.t.Helper()
	done, err := o.RestoreSnapshot(q)
	if err != nil {
		o.t.Fatal(err)
	}
	var lines []string
	for _, p := range done.Paths {
		line := fmt.Sprintf("%s %s %s", p.Path, p.What, p.Kind)
		if p.Displaced {
			line += " displacing"
		}
		lines = append(lines, line)
	}
	return lines
}

func TestRestoreSnapshotMakesTheLayerWhatItWasAtASwitch(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSite(t, one, m)
	o.keepsSnapshots(3)
	o.WriteFile("etc/a", "mine")
	o.WriteFile("etc/own", "own")
	o.RemoveAll("etc/b")
	o.MakeDir("dir")
	o.WriteFile("dir/f", "f")
	before := o.Dump()
	o.to(two)
	o.to(one)
	o.WriteFile("etc/own", "other")
	o.RemoveAll("dir")
	o.WriteFile("later", "later")
	running := o.Handle("etc/own")
	now := o.Dump()

	want := []string{
		"dir restored entry", "dir/f restored entry", "etc/a restored entry", "etc/b restored removal",
		"etc/own restored entry displacing", "later set aside entry",
	}
	if diff := cmp.Diff(want, o.restoredPaths(RestoreSnapshotOptions{To: "compute@1", Dry: true})); diff != "" {
		t.Errorf("plan:\n%s", diff)
	}
	if diff := cmp.Diff(now, o.Dump()); diff != "" {
		t.Errorf("the plan changed something:\n%s", diff)
	}
	was := o.Stat("etc")
	done := o.restoreSnapshot("compute@1")
	if diff := cmp.Diff(before, o.Dump()); diff != "" {
		t.Errorf("at the switch (-), restored (+):\n%s", diff)
	}
	if !was.Ctime.Before(o.Stat("etc").Ctime) {
		t.Error("a directory has no new ctime")
	}
	if got := o.ReadAll(running); got != "other" || o.Handle("etc/own") == running {
		t.Errorf("read by the old handle: %q", got)
	}
	o.restart()
	if diff := cmp.Diff(before, o.Dump()); diff != "" {
		t.Errorf("after a restart:\n%s", diff)
	}
	if got := o.ReadAll(running); got != "other" {
		t.Errorf("read by the old handle after a restart: %q", got)
	}
	aside := []string{"etc/a entry", "etc/b removal", "etc/own entry", "later entry"}
	if diff := cmp.Diff(aside, savedOf(o)); diff != "" {
		t.Errorf("set aside:\n%s", diff)
	}
	// The undo.
	o.restoreSnapshot(done.Undo)
	if diff := cmp.Diff(now, o.Dump()); diff != "" {
		t.Errorf("before the restore (-), undone (+):\n%s", diff)
	}
}

// If the layer is the same as at the last snapshot the next switch takes none. It records that the snapshot
// shows the layer over that version too.
func TestALayerThatHasNotChangedIsNotCopiedAgain(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSite(t, one, m)
	o.keepsSnapshots(5)
	idle := o.to(two) // it has no layer
	if got := o.snapshotLines(); idle.Snapshots != 0 || len(got) != 0 {
		t.Errorf("a node that has written nothing: %v", got)
	}
	o.WriteFile("same/own", "own")
	if rep := o.to(one); rep.Snapshots != 1 || rep.Replicas != 1 {
		t.Errorf("report %+v", rep)
	}
	if rep := o.to(two); rep.Snapshots != 0 || rep.Replicas != 1 {
		t.Errorf("report %+v", rep)
	}
	if _, err := o.Reset(ResetOptions{Dry: true}); err != nil { // a plan is no change
		t.Fatal(err)
	}
	o.to(one)
	want := []string{"switch compute@2 compute@1 over compute@2 compute@1 compute@2: 2"}
	if diff := cmp.Diff(want, o.snapshotLines()); diff != "" {
		t.Error(diff)
	}
	o.WriteFile("same/own", "more")
	o.to(two)
	if got := o.snapshotLines(); len(got) != 2 || got[0] != "switch compute@1 compute@2 over compute@1: 2" {
		t.Errorf("after a change: %v", got)
	}
	// A snapshot is also taken of a layer that is empty now.
	if _, err := o.Reset(ResetOptions{}); err != nil {
		t.Fatal(err)
	}
	o.to(one)
	if got := o.snapshotLines(); len(got) != 3 || got[0] != "switch compute@2 compute@1 over compute@2: 0" {
		t.Errorf("after a reset: %v", got)
	}
	o.WriteFile("same/own", "again")
	if got := o.restoredPaths(RestoreSnapshotOptions{To: "2"}); len(got) != 1 || got[0] != "same/own set aside entry" {
		t.Errorf("restored: %v", got)
	}
	o.Want("same/own", gone(vfs.ENOENT))
}

// Two copies of one name cannot go to one directory: the second would set the first aside again.
func TestCopiesOfOneNameAreNotPutIntoOneDirectory(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.WriteFile("etc/own", "in etc")
	o.WriteFile("opt/own", "in opt")
	if _, err := o.Reset(ResetOptions{Paths: []string{"etc/own", "opt/own"}}); err != nil {
		t.Fatal(err)
	}
	_, err := o.Restore(RestoreOptions{To: "old"})
	if err == nil || !strings.Contains(err.Error(), "would both be /old/own") {
		t.Errorf("restored both: %v", err)
	}
	if diff := cmp.Diff([]string{"etc/own entry", "opt/own entry"}, savedOf(o)); diff != "" {
		t.Error(diff)
	}
	o.restored(RestoreOptions{Path: "opt", To: "old"})
	o.Want("old/own", "in opt")
}

// A change of owner or mode of the master's directories is set aside and restored too.
func TestOwnerAndModeOfDirectoriesComeBack(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	chmod := func(path string, mode uint32) {
		t.Helper()
		if _, err := o.SetAttr(root, o.Handle(path), &vfs.SetAttr{Valid: vfs.SetMode, Mode: mode}); err != nil {
			t.Fatal(err)
		}
	}
	o.WriteFile("same/own", "own")
	then := o.snapshotNow()
	before := o.Dump()
	chmod("opt", 0o700)
	chmod("", 0o711)
	after, changed := o.snapshotNow(), o.Dump()
	want := []string{" restored attributes", "opt set aside attributes"}
	if diff := cmp.Diff(want, o.restoredPaths(RestoreSnapshotOptions{To: then})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(before, o.Dump()); diff != "" {
		t.Error(diff)
	}
	if got := o.restoredPaths(RestoreSnapshotOptions{To: after}); len(got) != 2 {
		t.Errorf("back: %v", got)
	}
	if diff := cmp.Diff(changed, o.Dump()); diff != "" {
		t.Error(diff)
	}
	checkClean(t, o)
}

// A file of records is merged by a restore as by a switch.
func TestARestoreOverAnotherVersionMerges(t *testing.T) {
	version := func(a, b string) []vfstest.Entry {
		return []vfstest.Entry{replicatest.Dir("etc"), replicatest.File("etc/a", a), replicatest.File("etc/b", b)}
	}
	m := newMemory(t)
	one, two := m.Version(t, 1, version("x 1\n", "x 1\n")), m.Version(t, 2, version("x 2\ny 2\n", "x 2\n"))
	o := newSite(t, one, m)
	o.keepsSnapshots(3)
	o.spec.Rules.Merge = map[string]recordmerge.Format{"etc/a": recordmerge.LineKey, "etc/b": recordmerge.LineKey}
	o.rules()
	o.WriteFile("etc/a", "x 3\nmine 1\n")
	o.WriteFile("etc/b", "x 3\n")
	o.to(two)
	want := o.Dump()
	o.Want("etc/a", "x 2\nmine 1\ny 2\n")
	if got := o.restoredPaths(RestoreSnapshotOptions{To: "compute@1"}); len(got) > 0 {
		t.Errorf("a restore of what the switch has left: %q", got)
	}
	o.WriteFile("etc/a", "x 9\n")
	done := o.restoreSnapshot("compute@1")
	if len(done.Paths) != 1 || !done.Paths[0].Displaced || len(done.Paths[0].Conflicts) != 1 {
		t.Errorf("restored: %+v", done.Paths)
	}
	if diff := cmp.Diff(want, o.Dump()); diff != "" {
		t.Errorf("after the switch (-), restored (+):\n%s", diff)
	}
	o.Want("etc/a", "x 2\nmine 1\ny 2\n")
	checkClean(t, o)
	o.restart()
	o.Want("etc/a", "x 2\nmine 1\ny 2\n")
}

func TestARestoreOverAnotherVersionKeepsToTheMaster(t *testing.T) {
	m := newMemory(t)
	newer := slices.Clone(v2)
	newer[0].Mode = 0o711
	one, two := m.Version(t, 1, v1), m.Version(t, 2, newer)
	o := newSite(t, one, m)
	o.keepsSnapshots(3)
	keep, _ := pathmatch.Parse("/etc/keep")
	o.spec.Keep = pathmatch.List{keep}
	for _, path := range []string{"etc/a", "etc/c", "etc/keep", "etc/own", "gone/sub/s", "turn/own"} {
		o.WriteFile(path, "mine")
	}
	o.RemoveAll("etc/b")
	o.RemoveAll("opt/app")
	o.MakeDir("opt/app")
	o.WriteFile("opt/app/own", "own")
	if _, err := o.SetAttr(root, o.Handle("etc"), &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o700}); err != nil {
		t.Fatal(err)
	}
	o.to(two)
	want := o.Dump()
	o.WriteFile("etc/own", "other")
	o.WriteFile("etc/a", "over the newer version")
	got := o.restoredPaths(RestoreSnapshotOptions{To: "compute@1"})
	if diff := cmp.Diff([]string{
		"etc held back attributes", "etc/a held back entry", "etc/a set aside entry", "etc/b held back removal",
		"etc/c held back entry", "etc/own restored entry displacing", "gone/sub/s held back entry",
		"opt/app held back opaque", "turn held back entry",
	}, got); diff != "" {
		t.Error(diff)
	}
	// It is what a switch would have left.
	if diff := cmp.Diff(want, o.Dump()); diff != "" {
		t.Errorf("after the switch (-), restored (+):\n%s", diff)
	}
	o.restart()
	if diff := cmp.Diff(want, o.Dump()); diff != "" {
		t.Errorf("after a restart:\n%s", diff)
	}
	checkClean(t, o)
}

// A switch leaves what the node has as the new version does. So does a restore: the file is the node's own afterwards.
func TestARestoreKeepsWhatTheMasterHasToo(t *testing.T) {
	m := newMemory(t)
	older, newer := replicatest.File("f", "older"), replicatest.File("f", "newer")
	one, two := m.Version(t, 1, []vfstest.Entry{older}), m.Version(t, 2, []vfstest.Entry{newer})
	o := newSite(t, one, m)
	o.keepsSnapshots(3)
	o.WriteFile("f", "newer")
	o.to(two)
	o.WriteFile("later", "own")
	if diff := cmp.Diff([]string{"later set aside entry"},
		o.restoredPaths(RestoreSnapshotOptions{To: "compute@1"})); diff != "" {
		t.Error(diff)
	}
	checkClean(t, o)
}

// checkClean checks that the replica's directory has the form that the format requires.
func checkClean(t *testing.T, o *site) {
	t.Helper()
	c, err := o.Check()
	if err != nil || len(c.Problems) > 0 {
		t.Errorf("check: %+v, %v", c.Problems, err)
	}
}

func TestSnapshotsAreFoundByVersionStampAndTime(t *testing.T) {
	at := func(s string) Snapshot {
		stamp, err := layer.ParseStamp(s)
		if err != nil {
			t.Fatal(err)
		}
		return Snapshot{Stamp: stamp}
	}
	list := []Snapshot{
		at("20260103T000000.000000000Z"), at("20260102T120000.000000000Z"), at("20260102T000000.000000000Z"),
	}
	list[0].Over = []image.Version{{Image: "compute", Number: 7}, {Image: "compute", Number: 8}}
	list[1].Over = []image.Version{{Image: "compute", Number: 7}}
	for to, want := range map[string]int{
		"compute@7": 0, "7": 0, "8": 0, "20260102T": 1, "20260102T000000": 2, "2026-01-02T12:00:00Z": 1,
		"2026-01-02T11:59:59+00:00": 2,
		"2027-01-01T00:00:00Z":      0, "": -1, "2026": -1, "other@7": -1, "2026-01-01T00:00:00Z": -1, "yesterday": -1,
	} {
		got, err := findSnapshot(list, to)
		if want < 0 {
			if !errors.Is(err, ErrNoSnapshot) {
				t.Errorf("%q: %v, %v", to, got, err)
			}
			continue
		}
		if err != nil || got != &list[want] {
			t.Errorf("%q: %v, %v", to, got, err)
		}
	}
}

func TestTheRuleBoundsSnapshotsByNumberAndAge(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSite(t, one, m)
	o.keepsSnapshots(2)
	o.WriteFile("same/own", "0")
	versions := []image.Version{two, one}
	for i := range 4 {
		o.WriteFile("same/own", fmt.Sprint(i))
		o.to(versions[i%2])
	}
	if got := o.snapshotLines(); len(got) != 2 || !strings.HasPrefix(got[0], "switch compute@2 compute@1") {
		t.Errorf("kept: %v", got)
	}
	area := filepath.Join(o.opts.Dir, "n01/compute", "snapshots")
	if names, err := os.ReadDir(area); err != nil || len(names) != 2 {
		t.Errorf("on the disk: %v, %v", names, err)
	}
	// Expire removes what a crash has left, and what is too old.
	if err := os.MkdirAll(filepath.Join(area, "#new-"+"20260102T000000.000000000Z/etc"), 0o700); err != nil {
		t.Fatal(err)
	}
	o.restart()
	o.spec.Rules.SnapshotsFor = time.Hour
	o.rules()
	if _, err := o.expire(); err != nil {
		t.Fatal(err)
	}
	if names, err := os.ReadDir(area); err != nil || len(names) != 2 {
		t.Errorf("after a restart: %v, %v", names, err)
	}
	o.clock = 2 * time.Hour
	if _, err := o.expire(); err != nil {
		t.Fatal(err)
	}
	if got := o.snapshotLines(); len(got) != 0 {
		t.Errorf("after their time: %v", got)
	}
	o.to(two)
	if got := o.snapshotLines(); len(got) != 1 {
		t.Errorf("the next switch took none: %v", got)
	}
}
