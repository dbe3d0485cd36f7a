package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/image"
	"dim/internal/image/pathmatch"
	"dim/internal/image/treediff"
	"dim/internal/layer"
	"dim/internal/testkit"
	"dim/internal/vfs"
	"dim/internal/vfs/vfstest"
)

func TestASwitchShowsTheNewVersionAndKeepsWhatTheNodeHasElsewhere(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	o.WriteFile("etc/mine", "mine")
	o.WriteFile("same/f", "changed")
	o.RemoveAll("opt/other/z")
	rep := o.to(m.Version(t, 2, v2))
	if len(rep.Aside) != 0 || rep.Replicas != 1 {
		t.Errorf("report: %+v", rep)
	}
	check := func() {
		t.Helper()
		want := map[string]string{
			"etc/a": "a2", "etc/b": "b2", "etc/c": gone(vfs.ENOENT), "etc/new": "n2", "etc/mine": "mine",
			"same/f":      "changed",
			"opt/other/z": gone(vfs.ENOENT), "opt/app/x": "x2", "gone": gone(vfs.ENOENT), "turn": "a file now",
		}
		for path, content := range want {
			o.Want(path, content)
		}
	}
	check()
	before := o.Dump()
	o.restart()
	check()
	if diff := cmp.Diff(before, o.Dump()); diff != "" {
		t.Errorf("after a restart:\n%s", diff)
	}
}

func TestASwitchUsesTheComparisonOfItsCaller(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSite(t, one, m)
	testkit.Must(t, o.s.Close())
	compared := 0
	o.opts.Compare = func(ctx context.Context, from, to *image.Version) ([]treediff.Change, error) {
		compared++
		return compareTrees(m)(ctx, from, to)
	}
	o.open()
	o.to(two)
	o.Want("etc/a", "a2")
	o.to(one)
	o.Want("etc/a", "a1")
	o.to(two)
	if compared != 2 { // there and back
		t.Errorf("versions were compared %d times", compared)
	}
}

func TestASwitchSetsAsideWhatTheNodeHasAtPathsThatDiffer(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	keep, _ := pathmatch.Parse("/etc/keep")
	o.spec.Keep = pathmatch.List{keep}
	o.WriteFile("etc/a", "mine")
	o.WriteFile("etc/c", "mine, though the master deletes it")
	o.WriteFile("etc/keep", "kept")
	o.RemoveAll("etc/b")
	o.RemoveAll("opt/app")
	o.WriteFile("gone/mine", "stays")
	o.WriteFile("gone/sub/s", "set aside")
	o.WriteFile("turn/own", "goes with its directory")
	open := o.Handle("etc/a")
	mine := o.Handle("gone/mine")
	dir := o.Handle("gone")
	rep := o.to(m.Version(t, 2, v2))

	var got []string
	for _, a := range rep.Aside {
		got = append(got, a.Path+" "+string(a.Kind))
	}
	slices.Sort(got)
	want := []string{"etc/a entry", "etc/b removal", "etc/c entry", "gone/sub/s entry", "opt/app removal", "turn entry"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("set aside (-want +got):\n%s", diff)
	}
	check := func() {
		t.Helper()
		for path, content := range map[string]string{
			"etc/a": "a2", "etc/b": "b2", "etc/c": gone(vfs.ENOENT), "etc/keep": "kept",
			"opt/app/x": "x2", "opt/app/y": "y1",
			"gone/mine": "stays", "gone/sub": gone(vfs.ENOENT), "gone/file": gone(vfs.ENOENT), "turn": "a file now",
		} {
			o.Want(path, content)
		}
		if got := o.ReadAll(mine); got != "stays" || o.Handle("gone") != dir {
			t.Errorf("the node's file in a deleted directory: %q, directory the same: %v", got, o.Handle("gone") == dir)
		}
		saved := o.readSaved()
		var list []string
		for _, a := range saved {
			list = append(list, a.Path+" "+string(a.Kind))
			if !a.Stamp.Equal(rep.Stamp) {
				t.Errorf("%s: stamp %v, want %v", a.Path, a.Stamp, rep.Stamp)
			}
		}
		slices.Sort(list)
		if diff := cmp.Diff(want, list); diff != "" {
			t.Errorf("saved (-want +got):\n%s", diff)
		}
	}
	check()
	if got := o.ReadAll(open); got != "mine" {
		t.Errorf("set-aside file by its handle: %q", got)
	}
	if _, err := o.Write(root, open, []byte("MINE"), 0, vfs.FileSync); err != nil {
		t.Errorf("write to a set-aside file: %v", err)
	}
	o.restart()
	check()
	if got := o.ReadAll(open); got != "MINE" {
		t.Errorf("set-aside file by its handle after a restart: %q", got)
	}
	aside, err := os.ReadFile(filepath.Join(o.opts.Dir, "n01/compute/saved", layer.StampName(rep.Stamp), "etc/a"))
	if err != nil || string(aside) != "MINE" {
		t.Errorf("set-aside file on the disk: %q, %v", aside, err)
	}
}

func TestReplacedFilesKeepTheirBytesAndALink(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	old, unchanged, dir, chmod := o.Handle("etc/a"), o.Handle("same/f"), o.Handle("gone/sub"), o.Handle("etc/mode")
	o.to(m.Version(t, 2, v2))
	check := func() {
		t.Helper()
		var a vfs.Attr
		if got := o.ReadAll(old); got != "a1" {
			t.Errorf("replaced file: %q", got)
		}
		if err := o.Attr(old, &a); err != nil || a.Nlink != 1 || a.Size != 2 {
			t.Errorf("replaced file: nlink %d, size %d, %v", a.Nlink, a.Size, err)
		}
		if fs, err := o.StatFS(old); err != nil || fs.Bytes != 0 {
			t.Errorf("the file system of a replaced file has %d bytes, %v", fs.Bytes, err)
		}
		if fs, err := o.StatFS(unchanged); err != nil || fs.Bytes == 0 {
			t.Errorf("the file system of a file that was not replaced has %d bytes, %v", fs.Bytes, err)
		}
		if err := o.Attr(dir, &a); err != nil || a.Nlink != 2 {
			t.Errorf("vanished directory: nlink %d, %v", a.Nlink, err)
		}
		if _, err := o.Write(root, old, []byte("x"), 0, vfs.FileSync); err != vfs.EROFS {
			t.Errorf("write to a replaced file: %v", err)
		}
		if _, err := o.SetAttr(root, old, &vfs.SetAttr{Valid: vfs.SetSize}); err != vfs.ESTALE {
			t.Errorf("truncate a replaced file: %v", err)
		}
		if o.Handle("same/f") != unchanged || o.Handle("etc/mode") != chmod {
			t.Error("handles of files with the same content have changed")
		}
		if o.Handle("etc/a") == old {
			t.Error("a file with other content has the same handle")
		}
		n := 0
		end, err := o.ReadDir(root, dir, 0, vfs.WithAttr, func(*vfs.DirEntry) bool { n++; return true })
		if err != nil || !end || n != 2 {
			t.Errorf("a vanished directory lists %d entries, %v", n, err)
		}
		if _, err := o.Lookup(root, dir, "s", &a); err != vfs.ENOENT {
			t.Errorf("look up in a vanished directory: %v", err)
		}
		if _, err := o.Create(root, dir, "new", &vfs.Create{}); err != vfs.ENOENT {
			t.Errorf("create in a vanished directory: %v", err)
		}
	}
	check()
	o.restart()
	check()
	for n := 3; n < 12; n++ { // across any number of switches
		o.to(m.Version(t, n, append(slices.Clone(v2), f(fmt.Sprint("n", n), "x"))))
		check()
	}
	o.restart()
	check()
}

func TestASwitchStampsWhatItChangesLaterThanAllBefore(t *testing.T) {
	m := newMemory(t)
	o := newSite(t, m.Version(t, 1, v1), m)
	ctime := func(path string) vfs.Time { return o.Stat(path).Ctime }
	etc, same, file, rootDir := ctime("etc"), ctime("same"), ctime("etc/mode"), ctime("")
	mtime := o.Stat("etc").Mtime
	rep := o.to(m.Version(t, 2, v2))
	stamp := timeOf(rep.Stamp.UnixNano())
	if ctime("etc") != stamp || ctime("etc/mode") != stamp || ctime("") != stamp || ctime("etc/new") != stamp {
		t.Errorf("changed: etc %v, etc/mode %v, root %v; want %v", ctime("etc"), ctime("etc/mode"), ctime(""), stamp)
	}
	grown := etc.Before(stamp) && file.Before(stamp) && rootDir.Before(stamp)
	if !grown || ctime("same") != same || o.Stat("etc").Mtime != mtime {
		t.Error("an unchanged time has changed, or one has not grown")
	}
	o.restart()
	if ctime("etc") != stamp || ctime("same") != same {
		t.Errorf("after a restart: etc %v, want %v; same %v, want %v", ctime("etc"), stamp, ctime("same"), same)
	}
	clock := time.Unix(1000, 0) // a clock that runs backwards
	o.s.Close()
	o.opts.Now = func() time.Time { return clock }
	o.open()
	o.to(m.Version(t, 1, v1))
	if !stamp.Before(ctime("etc")) {
		t.Errorf("with the clock set back: etc %v, was %v", ctime("etc"), stamp)
	}
}

// An update that is undone brings back an id which a set-aside file of the node still has.
func TestAnIDThatComesBackIsNotThatOfTheSetAsideFile(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSite(t, one, m)
	o.WriteFile("etc/a", "mine")
	old := o.Handle("etc/a")
	o.to(two)
	o.to(one)
	check := func() {
		t.Helper()
		o.Want("etc/a", "a1")
		if got := o.ReadAll(old); got != "mine" {
			t.Errorf("the set-aside file: %q", got)
		}
		if o.Handle("etc/a") == old {
			t.Error("both have one handle")
		}
	}
	check()
	now := o.Handle("etc/a")
	o.restart()
	check()
	if o.Handle("etc/a") != now {
		t.Error("the new handle has changed by a restart")
	}
	o.WriteFile("etc/a", "mine again")
	if o.Handle("etc/a") != now || o.ReadAll(now) != "mine again" {
		t.Error("copying up has changed the handle")
	}
	check2 := o.ReadAll(old)
	if check2 != "mine" {
		t.Errorf("the set-aside file: %q", check2)
	}
}

func TestHandlesStayTheSameThroughCopyUpRenameAndRestart(t *testing.T) {
	m := newMemory(t)
	seed := append(slices.Clone(v1), vfstest.Entry{Path: "same/g", LinkTo: "same/f"})
	o := newSite(t, m.Version(t, 1, seed), m)
	handles := map[string]vfs.Handle{}
	for path := range o.Dump() {
		handles[path] = o.Handle(path)
	}
	if handles["same/f"] != handles["same/g"] {
		t.Error("names of one file have several handles")
	}
	o.WriteFile("etc/a", "changed")
	if _, err := o.SetAttr(root, o.Handle("same/g"), &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Rename(root, o.Handle("etc"), "b", o.Handle("opt"), "moved"); err != nil {
		t.Fatal(err)
	}
	if _, err := o.Rename(root, o.Handle("opt"), "app", o.Handle("same"), "app"); err != nil {
		t.Fatal(err)
	}
	o.MakeDir("own")
	o.WriteFile("own/file", "o")
	handles["own"], handles["own/file"] = o.Handle("own"), o.Handle("own/file")
	check := func() {
		t.Helper()
		for old, now := range map[string]string{
			"etc/b": "opt/moved", "opt/app": "same/app", "opt/app/x": "same/app/x", "opt/app/y": "same/app/y",
		} {
			if o.Handle(now) != handles[old] {
				t.Errorf("%s has another handle as %s", old, now)
			}
			handles[now] = handles[old]
		}
		for path := range o.Dump() {
			if o.Handle(path) != handles[path] {
				t.Errorf("%s has another handle", path)
			}
			var a vfs.Attr
			if err := o.Attr(handles[path], &a); err != nil {
				t.Errorf("%s by its handle: %v", path, err)
			}
		}
		if a := o.Stat("same/f"); a.Mode != 0o600 || a.Nlink != 2 {
			t.Errorf("the other name of a changed file: mode %o, %d links", a.Mode, a.Nlink)
		}
	}
	check()
	before := o.Dump()
	o.restart()
	check()
	if diff := cmp.Diff(before, o.Dump()); diff != "" {
		t.Errorf("after a restart:\n%s", diff)
	}
}

var errCrash = errors.New("crash")

// The server dies at each point of a switch in turn. After a restart the switch is complete, once, and what was
// written after it is unchanged.
func TestAnInterruptedSwitchIsCompletedOnce(t *testing.T) {
	prepare := func(o *site) {
		o.WriteFile("etc/a", "mine")
		o.WriteFile("etc/mine", "mine")
		o.RemoveAll("etc/b")
		o.RemoveAll("opt/app")
		o.MakeDir("opt/app")
		o.WriteFile("opt/app/own", "own")
		o.WriteFile("gone/sub/s", "mine")
		o.WriteFile("turn/own", "own")
		if _, err := o.SetAttr(root, o.Handle("etc"), &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o700}); err != nil {
			o.t.Fatal(err)
		}
	}
	newer := slices.Clone(v2)
	newer[0].Mode = 0o711
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, newer)
	plain := newSite(t, one, m)
	prepare(plain)
	plain.to(two)
	want, wantSaved := plain.Dump(), savedOf(plain)
	for point := 1; ; point++ {
		o := newSite(t, one, m)
		prepare(o)
		left := point
		o.s.fault = func(string) error {
			if left--; left <= 0 {
				return errCrash
			}
			return nil
		}
		o.spec.Version = two
		_, err := o.s.Switch(context.Background(), []Move{o.move()})
		if left > 0 {
			if err != nil {
				t.Fatal(err)
			}
			if point < 5 {
				t.Errorf("only %d points to crash at", point)
			}
			return
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("point %d: %v", point, err)
		}
		o.restart()
		if diff := cmp.Diff(want, o.Dump()); diff != "" {
			t.Errorf("crash at point %d (-want +got):\n%s", point, diff)
		}
		if diff := cmp.Diff(wantSaved, savedOf(o)); diff != "" {
			t.Errorf("crash at point %d: saved (-want +got):\n%s", point, diff)
		}
		o.WriteFile("etc/a", "after")
		o.restart()
		o.Want("etc/a", "after")
	}
}

// A node that writes when a switch takes its stamp must see the switch's change of the directory too. It can
// tell that only by the ctime.
func TestAWriteAtTheMomentOfTheStampDoesNotHideASwitch(t *testing.T) {
	for _, own := range []string{"etc/mine", "etc/a"} { // beside what changes; at what changes, so that it is set aside
		m := newMemory(t)
		two := m.Version(t, 2, v2)
		o := newSite(t, m.Version(t, 1, v1), m)
		o.WriteFile("etc/mine", "mine")
		o.WriteFile(own, "mine")
		before, n := o.Stat("etc").Ctime, 0
		o.s.now = func() time.Time {
			now := time.Now()
			if o.mu.TryLock() {
				o.mu.Unlock()
				if o.Version().Digest != two.Digest {
					time.Sleep(12 * time.Millisecond) // more than the tick of a kernel's clock
					n++
					o.WriteFile(fmt.Sprint("etc/", n), "mine")
					before = o.Stat("etc").Ctime
				}
			}
			return now
		}
		o.to(two)
		if after := o.Stat("etc").Ctime; !before.Before(after) {
			t.Errorf("beside %s: etc has the ctime %v after %d writes, and %v after the switch", own, before, n, after)
		}
	}
}
