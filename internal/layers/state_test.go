package layers

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/image/pathmatch"
	"dim/internal/vfs"
)

// restored returns the result of Restore, one line for each entry.
func (o *site) restored(q RestoreOptions) []string {
	o.t.Helper()
	list, err := o.Restore(q)
	if err != nil {
		o.t.Fatal(err)
	}
	var lines []string
	for _, b := range list {
		line := b.Saved.Path + " " + string(b.Saved.Kind) + " to " + b.Path
		if b.Displaced {
			line += " displacing"
		}
		lines = append(lines, line)
	}
	return lines
}

func TestASetAsideCopyComesBackAsTheNodeHadIt(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.WriteFile("etc/a", "mine")
	open := o.Handle("etc/a")
	before := o.Stat("etc")
	o.to(m.Version(t, 2, v2))
	saved, err := o.Saved()
	if err != nil || len(saved) != 1 || saved[0].Why != "switch compute@1 compute@2" || saved[0].Size != 4 ||
		saved[0].Type != vfs.Regular {
		t.Fatalf("saved: %+v, %v", saved, err)
	}

	plan := o.restored(RestoreOptions{Path: "/etc/a", Dry: true})
	o.Want("etc/a", "a2")
	if diff := cmp.Diff([]string{"etc/a entry to etc/a"}, plan); diff != "" {
		t.Errorf("plan:\n%s", diff)
	}
	if diff := cmp.Diff(plan, o.restored(RestoreOptions{Path: "/etc/a"})); diff != "" {
		t.Errorf("done (+), and planned (-):\n%s", diff)
	}
	o.Want("etc/a", "mine")
	if o.Handle("etc/a") != open || o.ReadAll(open) != "mine" {
		t.Error("the handle of the file no longer works")
	}
	if after := o.Stat("etc"); !before.Ctime.Before(after.Ctime) {
		t.Error("the directory has no new ctime: a client would go on showing the old entry")
	}
	if left := savedOf(o); len(left) != 0 {
		t.Errorf("still set aside: %v", left)
	}
	if left := o.stamps(); len(left) != 0 {
		t.Errorf("directories left in saved/: %v", left)
	}
	o.restart()
	o.Want("etc/a", "mine")
	if _, err := o.Restore(RestoreOptions{Path: "etc/a"}); !errors.Is(err, ErrNotSaved) {
		t.Errorf("restore what is not there: %v", err)
	}
}

func TestARestoreSetsAsideWhatItDisplaces(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.WriteFile("etc/a", "old")
	o.to(m.Version(t, 2, v2))
	o.WriteFile("etc/a", "new")
	want := []string{"etc/a entry to etc/a displacing"}
	if diff := cmp.Diff(want, o.restored(RestoreOptions{Path: "etc"})); diff != "" {
		t.Error(diff)
	}
	o.Want("etc/a", "old")
	saved, _ := o.Saved()
	if len(saved) != 1 || saved[0].Why != "restore" {
		t.Fatalf("saved: %+v", saved)
	}
	// It comes back, selected by the beginning of its stamp.
	o.restored(RestoreOptions{Path: "etc/a", From: saved[0].ID()[:24]})
	o.Want("etc/a", "new")
	// It is restored to another directory, which does not exist yet.
	want = []string{"etc/a entry to root/old/a"}
	if diff := cmp.Diff(want, o.restored(RestoreOptions{Path: "etc/a", To: "/root/old"})); diff != "" {
		t.Error(diff)
	}
	o.Want("root/old/a", "old")
	o.Want("etc/a", "new")
}

// Every kind of entry that a switch sets aside comes back. The replica is then as if the node had made all
// changes over the new version.
func TestEveryKindOfSetAsideEntryComesBack(t *testing.T) {
	m := newMemory(t)
	newer := slices.Clone(v2)
	newer[0].Mode = 0o711
	o := newSite(t, m.Version(t, 1, v1), m)
	o.WriteFile("etc/a", "mine")
	o.WriteFile("etc/c", "mine, deleted by the master")
	o.RemoveAll("etc/b")
	o.RemoveAll("opt/app")
	o.MakeDir("opt/app")
	o.WriteFile("opt/app/own", "own")
	o.WriteFile("gone/sub/s", "mine")
	if _, err := o.SetAttr(root, o.Handle("etc"), &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o700}); err != nil {
		t.Fatal(err)
	}
	o.to(m.Version(t, 2, newer))
	want := []string{
		"etc attributes", "etc/a entry", "etc/b removal", "etc/c entry", "gone/sub/s entry", "opt/app opaque",
	}
	if diff := cmp.Diff(want, savedOf(o)); diff != "" {
		t.Fatalf("set aside:\n%s", diff)
	}
	if got := o.restored(RestoreOptions{}); len(got) != len(want) {
		t.Errorf("restored %v", got)
	}
	check := func() {
		t.Helper()
		for path, content := range map[string]string{
			"etc/a": "mine", "etc/c": "mine, deleted by the master", "etc/b": gone(vfs.ENOENT), "etc/new": "n2",
			"opt/app/own": "own",
			"opt/app/x":   gone(vfs.ENOENT), "gone/sub/s": "mine",
		} {
			o.Want(path, content)
		}
		if mode := o.Stat("etc").Mode; mode != 0o700 {
			t.Errorf("etc has mode %o", mode)
		}
		if left := savedOf(o); len(left) != 0 {
			t.Errorf("still set aside: %v", left)
		}
	}
	check()
	o.restart()
	check()
}

// The master replaces a directory by a file, and then brings it back. The node's copy is restored elsewhere,
// and does not take the id of the path with it.
func TestADirectoryThatIsRestoredElsewhereLeavesTheMastersAlone(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSite(t, one, m)
	turn := o.Handle("turn")
	o.WriteFile("turn/own", "own")
	o.to(two)
	o.to(one)
	o.MakeDir("old")
	want := []string{"turn entry to old/turn"}
	if diff := cmp.Diff(want, o.restored(RestoreOptions{Path: "turn", To: "old"})); diff != "" {
		t.Error(diff)
	}
	for range 2 {
		o.Want("old/turn/own", "own")
		o.Want("turn/t", "t1")
		if o.Handle("turn") != turn || o.Handle("old/turn") == turn {
			t.Error("the handle of the master's directory has changed")
		}
		o.restart()
	}
}

func TestARestoreIsRefusedBeforeAnythingMoves(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.WriteFile("etc/a", "mine")
	o.WriteFile("turn/own", "own")
	o.to(m.Version(t, 2, v2))
	shared, _ := pathmatch.Parse("/etc")
	o.spec.Shared = pathmatch.List{shared}
	o.rules()
	saved := savedOf(o)
	for _, q := range []RestoreOptions{
		{Path: "etc/a"}, {}, {Path: "a/../b"}, {Path: "nothing"}, {Path: "etc/a", To: "turn"},
	} {
		if _, err := o.Restore(q); err == nil {
			t.Errorf("%+v was done", q)
		}
	}
	if diff := cmp.Diff(saved, savedOf(o)); diff != "" {
		t.Error(diff)
	}
}

func TestForgettingKeepsIDsOfOpenFiles(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSite(t, one, m)
	o.WriteFile("etc/a", "mine")
	o.to(two)
	o.to(one)
	now := o.Handle("etc/a") // the version's, under another id, for the set-aside file has that of its path and content
	if list, err := o.Forget(ForgetOptions{Path: "etc", Before: time.Unix(1, 0)}); err != nil || len(list) != 0 {
		t.Errorf("forgot %v, %v", list, err)
	}
	list, err := o.Forget(ForgetOptions{Path: "etc", Dry: true})
	if err != nil || len(list) != 1 || len(savedOf(o)) != 1 {
		t.Errorf("would forget %v, %v", list, err)
	}
	if list, err := o.Forget(ForgetOptions{Path: "etc"}); err != nil || len(list) != 1 {
		t.Errorf("forgot %v, %v", list, err)
	}
	for range 2 {
		if left := savedOf(o); len(left) != 0 {
			t.Errorf("still listed: %v", left)
		}
		if o.Handle("etc/a") != now || o.ReadAll(now) != "a1" {
			t.Error("the id of the version's file was taken back")
		}
		o.restart()
	}
	// When the id is no longer needed, Expire removes it.
	o.to(two)
	o.clock = 100 * 24 * time.Hour
	if _, err := o.expire(); err != nil {
		t.Fatal(err)
	}
	if left := o.stamps(); len(left) != 0 {
		t.Errorf("left in saved/: %v", left)
	}
}

// A file that was set aside under one of its names is the node's under the other.
func TestForgettingKeepsTheContentUnderAnotherName(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.WriteFile("etc/a", "mine")
	if _, err := o.Link(root, o.Handle("etc/a"), o.Handle("etc"), "other"); err != nil {
		t.Fatal(err)
	}
	open := o.Handle("etc/other")
	if list, err := o.Reset(ResetOptions{Paths: []string{"etc/a"}}); err != nil || len(list) != 1 {
		t.Fatalf("reset: %+v, %v", list, err)
	}
	o.Want("etc/a", "a1") // goes by another id: the node's file has its own
	if list, err := o.Forget(ForgetOptions{Path: "etc/a"}); err != nil || len(list) != 1 {
		t.Fatalf("forget: %+v, %v", list, err)
	}
	for range 2 {
		o.Want("etc/other", "mine")
		o.Want("etc/a", "a1")
		if got := o.ReadAll(open); got != "mine" || o.Handle("etc/a") == open {
			t.Errorf("read by the old handle: %q", got)
		}
		o.restart()
	}
}

func TestExpireRemovesWhatWasSetAsideLongAgo(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.spec.Rules.SavedFor = time.Hour
	o.WriteFile("etc/a", "mine")
	o.to(m.Version(t, 2, v2))
	if n, err := o.expire(); n != 0 || err != nil {
		t.Errorf("%d gone at once, %v", n, err)
	}
	o.clock = 2 * time.Hour
	o.rules()
	if n, err := o.expire(); n != 1 || err != nil {
		t.Errorf("%d gone after their time, %v", n, err)
	}
	if left := savedOf(o); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	o.Want("etc/a", "a2")
}

// What was set aside while the clock was years ahead is removed after its time by the right clock, not years later.
func TestExpireCountsTheAgeOfStampsInTheFuture(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.spec.Rules.SavedFor = 3 * 24 * time.Hour
	o.clock = 3 * 365 * 24 * time.Hour
	o.WriteFile("etc/a", "mine")
	o.to(m.Version(t, 2, v2))
	at := o.stamps()[0]
	for i, want := range []int{0, 0, 0, 1, 0} { // the clock is right; it is a year ahead; it is right again
		o.clock = []time.Duration{0, 365 * 24, 365*24 + 1, 365*24 + 41, 0}[i] * time.Hour
		if n, err := o.expire(); n != want || err != nil {
			t.Fatalf("expiry %d: %d gone, %v; want %d", i, n, err, want)
		}
		if left := o.Expires(at).Sub(o.opts.Now()); i == 2 && (left < 22*time.Hour || left > 24*time.Hour) {
			t.Errorf("after 49 counted hours of 72 it is removed in %v", left)
		}
	}
	o.Want("etc/a", "a2")
}

func TestDiffListsWhatTheNodeHasChanged(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.WriteFile("etc/a", "mine")
	o.RemoveAll("etc/b")
	o.MakeDir("own")
	o.WriteFile("own/f", "four")
	for path, mode := range map[string]uint32{"etc/c": 0o600, "opt": 0o700} {
		if _, err := o.SetAttr(root, o.Handle(path), &vfs.SetAttr{Valid: vfs.SetMode, Mode: mode}); err != nil {
			t.Fatal(err)
		}
	}
	o.RemoveAll("opt/app")
	o.MakeDir("opt/app")
	list, err := o.Diff("")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range list {
		got = append(got, fmt.Sprintf("%s %s %d/%d %s", w.Path, w.Kind, w.Size, w.Was, w.Attrs))
	}
	want := []string{
		"etc/a content 4/2 ", "etc/b removed 2/0 ", "etc/c attributes 2/2 mode", "opt attributes 0/0 mode",
		"opt/app content 0/0 hides",
		"own added 0/0 ", "own/f added 4/0 ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The server dies at each point of a reset in turn: the replica shows what it did before, or the version, and
// nothing is lost.
func TestAnInterruptedResetLosesNothing(t *testing.T) {
	m := newMemory(t)
	v := m.Version(t, 1, v1)
	for _, paths := range [][]string{nil, {"etc", "opt"}} {
		for point := 1; ; point++ {
			o := newSite(t, v, m)
			o.WriteFile("etc/a", "mine")
			o.WriteFile("opt/own", "own")
			o.RemoveAll("etc/b")
			before, left := o.Dump(), point
			o.fault = func(string) error {
				if left--; left <= 0 {
					return errCrash
				}
				return nil
			}
			_, err := o.Reset(ResetOptions{Paths: paths})
			if left > 0 {
				if err != nil || point < 2 {
					t.Fatalf("%d points, %v", point-1, err)
				}
				break
			}
			if !errors.Is(err, errCrash) {
				t.Fatalf("point %d: %v", point, err)
			}
			o.restart()
			if _, err := o.Restore(RestoreOptions{}); err != nil && !errors.Is(err, ErrNotSaved) {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, o.Dump()); diff != "" {
				t.Errorf("crash at point %d of a reset of %q, then a restore (-want +got):\n%s", point, paths, diff)
			}
		}
	}
}

// When a layer is read again, files that calls are just copying up stay in work/, also those of a node that had
// no layer when it was first read.
func TestReadingALayerAgainKeepsStagedFiles(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.Want("etc/a", "a1")
	o.WriteFile("etc/a", "mine")
	staged := filepath.Join(o.opts.Dir, "n01/compute/work/#staged")
	if err := os.WriteFile(staged, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Reset(ResetOptions{Paths: []string{"etc/a"}}); err != nil {
		t.Fatal(err)
	}
	o.Want("etc/a", "a1")
	if _, err := os.Lstat(staged); err != nil {
		t.Error(err)
	}
	o.restart()
	o.Want("etc/a", "a1")
	if _, err := os.Lstat(staged); !os.IsNotExist(err) {
		t.Errorf("what a crash has left in work/: %v", err)
	}
}

// A node that runs during a reset keeps the files that it has open, and sees the version at once.
func TestAResetUnderARunningNode(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	old := o.Handle("etc/a")
	o.WriteFile("etc/a", "mine")
	was := o.Stat("etc")
	if plan, err := o.Reset(ResetOptions{Dry: true}); err != nil || len(plan) != 1 || o.Content("etc/a") != "mine" {
		t.Errorf("plan %+v, %v", plan, err)
	}
	if _, err := o.Reset(ResetOptions{}); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		o.Want("etc/a", "a1")
		if o.Handle("etc/a") == old || o.ReadAll(old) != "mine" {
			t.Errorf("the node's file by its handle: %q", o.ReadAll(old))
		}
		if now := o.Stat("etc"); !was.Ctime.Before(now.Ctime) {
			t.Error("a directory has no new ctime")
		}
	}
	check()
	o.restart()
	check()
	saved, _ := o.Saved()
	if len(saved) != 1 || saved[0].Why != "reset" || saved[0].Path != "etc/a" {
		t.Errorf("saved: %+v", saved)
	}
}
