package replica

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
	"pgregory.net/rapid"

	"dim/internal/image"
	"dim/internal/vfs"
)

// restored tells what Restore says, one line for each entry.
func (o *site) restored(q Restoration) []string {
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
	o := newSite(t, m.version(t, 1, v1), m)
	o.write("etc/a", "mine")
	open := o.handle("etc/a")
	before := o.attr("etc")
	o.to(m.version(t, 2, v2))
	saved, err := o.Saved()
	if err != nil || len(saved) != 1 || saved[0].Why != "switch compute@1 compute@2" || saved[0].Size != 4 || saved[0].Type != vfs.Regular {
		t.Fatalf("saved: %+v, %v", saved, err)
	}

	plan := o.restored(Restoration{Path: "/etc/a", Dry: true})
	o.want("etc/a", "a2")
	if diff := cmp.Diff([]string{"etc/a entry to etc/a"}, plan); diff != "" {
		t.Errorf("plan:\n%s", diff)
	}
	if diff := cmp.Diff(plan, o.restored(Restoration{Path: "/etc/a"})); diff != "" {
		t.Errorf("done (+), and planned (-):\n%s", diff)
	}
	o.want("etc/a", "mine")
	if o.handle("etc/a") != open || o.read(open) != "mine" {
		t.Error("who had the file open has it no more")
	}
	if after := o.attr("etc"); !before.Ctime.Before(after.Ctime) {
		t.Error("the directory has no new ctime: a client would go on showing the old")
	}
	if left := savedOf(o); len(left) != 0 {
		t.Errorf("still set aside: %v", left)
	}
	if left, err := o.stamps("saved"); err != nil || len(left) != 0 {
		t.Errorf("directories left in saved/: %v, %v", left, err)
	}
	o.restart()
	o.want("etc/a", "mine")
	if _, err := o.Restore(Restoration{Path: "etc/a"}); !errors.Is(err, ErrNotSaved) {
		t.Errorf("restore what is not there: %v", err)
	}
}

func TestARestoreSetsAsideWhatItDisplaces(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.version(t, 1, v1), m)
	o.write("etc/a", "old")
	o.to(m.version(t, 2, v2))
	o.write("etc/a", "new")
	if diff := cmp.Diff([]string{"etc/a entry to etc/a displacing"}, o.restored(Restoration{Path: "etc"})); diff != "" {
		t.Error(diff)
	}
	o.want("etc/a", "old")
	saved, _ := o.Saved()
	if len(saved) != 1 || saved[0].Why != "restore" {
		t.Fatalf("saved: %+v", saved)
	}
	// And back again, by the beginning of its stamp.
	o.restored(Restoration{Path: "etc/a", From: saved[0].ID()[:24]})
	o.want("etc/a", "new")
	// Elsewhere, into a directory that is not there yet.
	if diff := cmp.Diff([]string{"etc/a entry to root/old/a"}, o.restored(Restoration{Path: "etc/a", To: "/root/old"})); diff != "" {
		t.Error(diff)
	}
	o.want("root/old/a", "old")
	o.want("etc/a", "new")
}

// Every kind of thing that a switch sets aside comes back, so that the replica is as if the node had done all of it over the new version.
func TestEveryKindOfSetAsideEntryComesBack(t *testing.T) {
	m := newMemory(t)
	newer := slices.Clone(v2)
	newer[0].Mode = 0o711
	o := newSite(t, m.version(t, 1, v1), m)
	o.write("etc/a", "mine")
	o.write("etc/c", "mine, deleted by the master")
	o.remove("etc/b")
	o.remove("opt/app")
	o.mkdir("opt/app")
	o.write("opt/app/own", "own")
	o.write("gone/sub/s", "mine")
	if _, err := o.SetAttr(root, o.handle("etc"), &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o700}); err != nil {
		t.Fatal(err)
	}
	o.to(m.version(t, 2, newer))
	want := []string{"etc attributes", "etc/a entry", "etc/b removal", "etc/c entry", "gone/sub/s entry", "opt/app opaque"}
	if diff := cmp.Diff(want, savedOf(o)); diff != "" {
		t.Fatalf("set aside:\n%s", diff)
	}
	if got := o.restored(Restoration{}); len(got) != len(want) {
		t.Errorf("restored %v", got)
	}
	check := func() {
		t.Helper()
		for path, content := range map[string]string{
			"etc/a": "mine", "etc/c": "mine, deleted by the master", "etc/b": gone(vfs.ENOENT), "etc/new": "n2", "opt/app/own": "own",
			"opt/app/x": gone(vfs.ENOENT), "gone/sub/s": "mine",
		} {
			o.want(path, content)
		}
		if mode := o.attr("etc").Mode; mode != 0o700 {
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

// A directory that the master replaced by a file, and then brought back: the node's copy goes elsewhere, and takes no id with it.
func TestADirectoryThatIsRestoredElsewhereLeavesTheMastersAlone(t *testing.T) {
	m := newMemory(t)
	one, two := m.version(t, 1, v1), m.version(t, 2, v2)
	o := newSite(t, one, m)
	turn := o.handle("turn")
	o.write("turn/own", "own")
	o.to(two)
	o.to(one)
	o.mkdir("old")
	if diff := cmp.Diff([]string{"turn entry to old/turn"}, o.restored(Restoration{Path: "turn", To: "old"})); diff != "" {
		t.Error(diff)
	}
	for range 2 {
		o.want("old/turn/own", "own")
		o.want("turn/t", "t1")
		if o.handle("turn") != turn || o.handle("old/turn") == turn {
			t.Error("the master's directory lost its handle")
		}
		o.restart()
	}
}

func TestWhatCannotComeBackIsRefusedBeforeAnythingMoves(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.version(t, 1, v1), m)
	o.write("etc/a", "mine")
	o.write("turn/own", "own")
	o.to(m.version(t, 2, v2))
	shared, _ := image.ParsePattern("/etc")
	o.shared = image.Patterns{shared}
	saved := savedOf(o)
	for _, q := range []Restoration{{Path: "etc/a"}, {}, {Path: "a/../b"}, {Path: "nothing"}, {Path: "etc/a", To: "turn"}} {
		if _, err := o.Restore(q); err == nil {
			t.Errorf("%+v was done", q)
		}
	}
	if diff := cmp.Diff(saved, savedOf(o)); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsForgottenTakesNoIDFromWhoHasTheFileOpen(t *testing.T) {
	m := newMemory(t)
	one, two := m.version(t, 1, v1), m.version(t, 2, v2)
	o := newSite(t, one, m)
	o.write("etc/a", "mine")
	o.to(two)
	o.to(one)
	now := o.handle("etc/a") // the version's, under another id, for the set-aside file has that of its path and content
	if list, err := o.Forget(Oblivion{Path: "etc", Before: time.Unix(1, 0)}); err != nil || len(list) != 0 {
		t.Errorf("forgot %v, %v", list, err)
	}
	if list, err := o.Forget(Oblivion{Path: "etc", Dry: true}); err != nil || len(list) != 1 || len(savedOf(o)) != 1 {
		t.Errorf("would forget %v, %v", list, err)
	}
	if list, err := o.Forget(Oblivion{Path: "etc"}); err != nil || len(list) != 1 {
		t.Errorf("forgot %v, %v", list, err)
	}
	for range 2 {
		if left := savedOf(o); len(left) != 0 {
			t.Errorf("still listed: %v", left)
		}
		if o.handle("etc/a") != now || o.read(now) != "a1" {
			t.Error("the id of the version's file was taken back")
		}
		o.restart()
	}
	// When it is of no more use, the rule takes it away.
	o.to(two)
	clock := time.Now().Add(100 * 24 * time.Hour)
	o.s.now = func() time.Time { return clock }
	if _, err := o.s.Expire(); err != nil {
		t.Fatal(err)
	}
	if left, err := o.stamps("saved"); err != nil || len(left) != 0 {
		t.Errorf("left in saved/: %v, %v", left, err)
	}
}

// A file that was set aside under one of its names is the node's under the other.
func TestWhatIsForgottenKeepsItsContentUnderAFurtherName(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.version(t, 1, v1), m)
	o.write("etc/a", "mine")
	if _, err := o.Link(root, o.handle("etc/a"), o.handle("etc"), "other"); err != nil {
		t.Fatal(err)
	}
	open := o.handle("etc/other")
	if list, err := o.Reset([]string{"etc/a"}, false); err != nil || len(list) != 1 {
		t.Fatalf("reset: %+v, %v", list, err)
	}
	o.want("etc/a", "a1") // goes by another id: the node's file has its own
	if list, err := o.Forget(Oblivion{Path: "etc/a"}); err != nil || len(list) != 1 {
		t.Fatalf("forget: %+v, %v", list, err)
	}
	for range 2 {
		o.want("etc/other", "mine")
		o.want("etc/a", "a1")
		if got := o.read(open); got != "mine" || o.handle("etc/a") == open {
			t.Errorf("who has the file open reads %q", got)
		}
		o.restart()
	}
}

func TestTheRuleRemovesWhatWasSetAsideLongAgo(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.version(t, 1, v1), m)
	o.spec.Rules.SavedFor = time.Hour
	o.write("etc/a", "mine")
	o.to(m.version(t, 2, v2))
	if n, err := o.s.Expire(); n != 0 || err != nil {
		t.Errorf("%d gone at once, %v", n, err)
	}
	clock := time.Now().Add(2 * time.Hour)
	o.s.now = func() time.Time { return clock }
	o.rules = o.spec.Rules
	if n, err := o.s.Expire(); n != 1 || err != nil {
		t.Errorf("%d gone after their time, %v", n, err)
	}
	if left := savedOf(o); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	o.want("etc/a", "a2")
}

// tendSaved restores some of what was set aside, or forgets it: the layer stays a plain one, and every id means one thing.
func (h *history) tendSaved(v image.Version, low string) {
	h.t.Helper()
	saved, err := h.o.Saved()
	if err != nil {
		h.t.Fatal(err)
	}
	if len(saved) == 0 {
		return
	}
	one := rapid.SampledFrom(saved).Draw(h.t, "saved")
	switch rapid.IntRange(0, 3).Draw(h.t, "tend") {
	case 0:
		h.lines = append(h.lines, "restore "+one.Path+" "+string(one.Kind))
		_, err = h.o.Restore(Restoration{Path: one.Path, From: one.ID()})
	case 1:
		h.lines = append(h.lines, "restore everything")
		_, err = h.o.Restore(Restoration{})
	case 2:
		h.lines = append(h.lines, "forget "+one.Path)
		_, err = h.o.Forget(Oblivion{Path: one.Path})
	case 3:
		h.lines = append(h.lines, "reset "+one.Path)
		_, err = h.o.Reset([]string{one.Path}, false)
	}
	if err != nil {
		h.lines = append(h.lines, err.Error()) // something stands in the way
	}
	h.checkReopened(v, low)
	h.checkIDs()
}

// A reset leaves the version alone, whatever the node did; what was set aside brings all of it back.
func TestAResetAfterARandomHistoryIsUndoneByARestore(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	m := newMemory(t)
	low, v := modelVersion(t, m, dir, 1, modelSeed)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		h := newHistory(rt, t, m, v, filepath.Join(dir, fmt.Sprint("h", n)))
		defer h.close()
		unmount := h.mount(filepath.Join(h.base, "kernel"), low, filepath.Join(h.base, "upper"), filepath.Join(h.base, "work"), "index=on,redirect_dir=on,metacopy=off")
		defer unmount()
		plain := h.o.tree()
		for range rapid.IntRange(1, 20).Draw(rt, "length") {
			h.step()
		}
		mine := h.o.tree()
		own, err := h.o.Own("")
		if err != nil {
			rt.Fatal(err)
		}
		if same := cmp.Equal(plain, mine); len(own) == 0 && !same {
			rt.Fatalf("nothing is listed as the node's own after\n%s", strings.Join(h.lines, "\n"))
		}
		paths := []string{""}
		if rapid.Bool().Draw(rt, "by path") {
			paths = h.o.names("")
			paths = append(paths, modelNames...)
		}
		h.lines = append(h.lines, fmt.Sprintf("reset %q", paths))
		before := h.o.attr("").Ctime
		list, err := h.o.Reset(paths, false)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(plain, h.o.tree()); diff != "" {
			rt.Fatalf("the version (-) and the replica (+) differ after\n%s\n%s", strings.Join(h.lines, "\n"), diff)
		}
		if len(list) > 0 && !before.Before(h.o.attr("").Ctime) && paths[0] == "" {
			rt.Fatalf("the root has no new ctime after\n%s", strings.Join(h.lines, "\n"))
		}
		h.checkReopened(v, low)
		h.checkIDs()
		if len(list) == 0 {
			return
		}
		if _, err := h.o.Restore(Restoration{}); err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(mine, h.o.tree()); diff != "" {
			rt.Fatalf("before the reset (-) and after the restore (+) differ after\n%s\n%s", strings.Join(h.lines, "\n"), diff)
		}
		h.checkReopened(v, low)
		h.checkIDs()
	})
}

func TestOwnListsWhatTheNodeHasChanged(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.version(t, 1, v1), m)
	o.write("etc/a", "mine")
	o.remove("etc/b")
	o.mkdir("own")
	o.write("own/f", "four")
	for path, mode := range map[string]uint32{"etc/c": 0o600, "opt": 0o700} {
		if _, err := o.SetAttr(root, o.handle(path), &vfs.SetAttr{Valid: vfs.SetMode, Mode: mode}); err != nil {
			t.Fatal(err)
		}
	}
	o.remove("opt/app")
	o.mkdir("opt/app")
	list, err := o.Own("")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range list {
		got = append(got, fmt.Sprintf("%s %s %d/%d %s", w.Path, w.Kind, w.Size, w.Was, w.What))
	}
	want := []string{
		"etc/a content 4/2 ", "etc/b removed 2/0 ", "etc/c attributes 2/2 mode", "opt attributes 0/0 mode", "opt/app content 0/0 hides",
		"own added 0/0 ", "own/f added 4/0 ",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The server dies at each point of a reset in turn: the replica shows what it did, or the version, and nothing is lost.
func TestAResetThatIsBrokenOffLosesNothing(t *testing.T) {
	m := newMemory(t)
	v := m.version(t, 1, v1)
	for _, paths := range [][]string{nil, {"etc", "opt"}} {
		for point := 1; ; point++ {
			o := newSite(t, v, m)
			o.write("etc/a", "mine")
			o.write("opt/own", "own")
			o.remove("etc/b")
			before, left := o.tree(), point
			o.s.crashAt = func(string) error {
				if left--; left <= 0 {
					return errCrash
				}
				return nil
			}
			_, err := o.Reset(paths, false)
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
			if _, err := o.Restore(Restoration{}); err != nil && !errors.Is(err, ErrNotSaved) {
				t.Fatal(err)
			}
			if diff := cmp.Diff(before, o.tree()); diff != "" {
				t.Errorf("crash at point %d of a reset of %q, then a restore (-want +got):\n%s", point, paths, diff)
			}
		}
	}
}

// When a layer is read anew, what a call is just copying up stays in work/, also of a node that had no layer when it was read first.
func TestALayerThatIsReadAnewLeavesCallsTheirWork(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.version(t, 1, v1), m)
	o.want("etc/a", "a1")
	o.write("etc/a", "mine")
	staged := filepath.Join(o.opts.Dir, "n01/compute/work/#staged")
	if err := os.WriteFile(staged, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Reset([]string{"etc/a"}, false); err != nil {
		t.Fatal(err)
	}
	o.want("etc/a", "a1")
	if _, err := os.Lstat(staged); err != nil {
		t.Error(err)
	}
	o.restart()
	o.want("etc/a", "a1")
	if _, err := os.Lstat(staged); !os.IsNotExist(err) {
		t.Errorf("what a crash has left in work/: %v", err)
	}
}

// A node that runs through a reset keeps what it has open, and sees the version at once.
func TestAResetUnderARunningNode(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.version(t, 1, v1), m)
	old := o.handle("etc/a")
	o.write("etc/a", "mine")
	was := o.attr("etc")
	if plan, err := o.Reset(nil, true); err != nil || len(plan) != 1 || o.content("etc/a") != "mine" {
		t.Errorf("plan %+v, %v", plan, err)
	}
	if _, err := o.Reset(nil, false); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		o.want("etc/a", "a1")
		if o.handle("etc/a") == old || o.read(old) != "mine" {
			t.Errorf("the node's file by its handle: %q", o.read(old))
		}
		if now := o.attr("etc"); !was.Ctime.Before(now.Ctime) {
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
