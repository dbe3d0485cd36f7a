package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"pgregory.net/rapid"

	"dim/internal/disktest"
	"dim/internal/image"
	"dim/internal/replica"
	"dim/internal/replica/replicatest"
	"dim/internal/testkit"
	"dim/internal/vfs"
)

// dieAt makes the server of o die at the nth point from now on. It returns how many points are left.
func (o *site) dieAt(n int) (left *int) {
	left = &n
	o.fault = func(string) error {
		if *left--; *left <= 0 {
			return errCrash
		}
		return nil
	}
	return left
}

// writeOneOfEverything makes an entry of each kind.
func writeOneOfEverything(o *site) {
	o.WriteFile("etc/a", "mine")
	o.WriteFile("etc/own", "own")
	o.RemoveAll("etc/b")
	o.RemoveAll("opt/app")
	o.MakeDir("opt/app")
	o.WriteFile("opt/app/own", "own")
	o.MakeDir("dir")
	o.WriteFile("dir/f", "f")
	if _, err := o.Link(root, o.Handle("dir/f"), o.Handle(""), "link"); err != nil {
		o.t.Fatal(err)
	}
	if _, err := o.Symlink(root, o.Handle("dir"), "symlink", "f", &vfs.SetAttr{}); err != nil {
		o.t.Fatal(err)
	}
	if _, err := o.SetAttr(root, o.Handle("etc"), &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o700}); err != nil {
		o.t.Fatal(err)
	}
}

// The server dies at each point of a switch that takes a snapshot. The switch is completed or not begun, and
// each snapshot shows the layer as it was.
func TestAnInterruptedSwitchLeavesNoPartialSnapshot(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	for point := 1; ; point++ {
		o := newSiteIn(t, disktest.Memory(t), one, m)
		o.keepsSnapshots(3)
		writeOneOfEverything(o)
		before := o.Dump()
		left := o.dieAt(point)
		move := o.move()
		move.Version = two
		_, err := o.s.Switch(context.Background(), []replica.Move{move})
		if *left > 0 {
			if err != nil || point < 12 {
				t.Errorf("%d points, %v", point-1, err)
			}
			return
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("point %d: %v", point, err)
		}
		o.restart() // and back, when it was switched
		if _, err := o.expire(); err != nil {
			t.Fatal(err)
		}
		checkClean(t, o)
		list, err := o.snapshots()
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			if diff := cmp.Diff(before, o.Dump()); diff != "" {
				t.Errorf("crash at point %d: switched without a snapshot:\n%s", point, diff)
			}
			continue
		}
		o.restoreSnapshot(list[len(list)-1].ID())
		if diff := cmp.Diff(before, o.Dump()); diff != "" {
			t.Errorf("crash at point %d: the snapshot (-want +got):\n%s", point, diff)
		}
		checkClean(t, o)
	}
}

// The server dies at each point of a restore. The layer is the old or the new one, and the restore can be done
// again, and undone.
func TestAnInterruptedRestoreOfASnapshotLosesNothing(t *testing.T) {
	m := newMemory(t)
	one := m.Version(t, 1, v1)
	for point := 1; ; point++ {
		o := newSiteIn(t, disktest.Memory(t), one, m)
		writeOneOfEverything(o)
		then := o.Dump()
		stamp := o.snapshotNow()
		o.WriteFile("etc/own", "other")
		o.RemoveAll("dir")
		o.RemoveAll("etc/a")
		o.WriteFile("opt/app/later", "later")
		if _, err := o.SetAttr(root, o.Handle("etc"), &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o750}); err != nil {
			t.Fatal(err)
		}
		now := o.Dump()
		left := o.dieAt(point)
		_, err := o.RestoreSnapshot(RestoreSnapshotOptions{To: stamp})
		if *left > 0 {
			if err != nil || point < 12 {
				t.Errorf("%d points, %v", point-1, err)
			}
			return
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("point %d: %v", point, err)
		}
		o.restart()
		got := o.Dump()
		if !cmp.Equal(then, got) && !cmp.Equal(now, got) {
			t.Errorf("crash at point %d: neither of the two:\n%s", point, cmp.Diff(now, got))
		}
		if _, err := o.expire(); err != nil {
			t.Fatal(err)
		}
		checkClean(t, o)
		o.restoreSnapshot(stamp)
		if diff := cmp.Diff(then, o.Dump()); diff != "" {
			t.Errorf("crash at point %d, then again (-want +got):\n%s", point, diff)
		}
		list, err := o.snapshots()
		if err != nil || len(list) < 2 {
			t.Fatalf("point %d: snapshots %+v, %v", point, list, err)
		}
		o.restoreSnapshot(list[len(list)-2].ID())
		if diff := cmp.Diff(now, o.Dump()); diff != "" {
			t.Errorf("crash at point %d, then undone (-want +got):\n%s", point, diff)
		}
		checkClean(t, o)
	}
}

// Random histories with snapshots and restores. A restored layer shows what it showed at the snapshot, the undo
// what was before, and the kernel's overlayfs shows the same of it.
func TestASnapshotIsRestoredAfterARandomHistory(t *testing.T) {
	testkit.NeedRoot(t, needsRoot)
	dir := disktest.Memory(t)
	m := newMemory(t)
	low, v := m.ModelVersion(t, dir, 1, replicatest.ModelSeed())
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		h := newHistory(rt, t, m, v, filepath.Join(dir, fmt.Sprint("h", n)))
		defer h.Close()
		taken := make(map[string]map[string]string)
		stamps := []string{}
		for round := range rapid.IntRange(2, 3).Draw(rt, "rounds") {
			h.steps(low, round)
			now := h.o.Dump()
			if stamp := h.o.snapshotNow(); stamp != "" {
				h.Lines = append(h.Lines, "snapshot "+stamp)
				if was, known := taken[stamp]; known && !cmp.Equal(was, now) {
					rt.Fatalf("an older snapshot was taken for the present one after\n%s", strings.Join(h.Lines, "\n"))
				}
				taken[stamp] = now
				stamps = append(stamps, stamp)
			}
			if len(stamps) == 0 || !rapid.Bool().Draw(rt, "restore") {
				continue
			}
			to := rapid.SampledFrom(stamps).Draw(rt, "to")
			h.Lines = append(h.Lines, "restore "+to)
			h.restoreTo(to, taken[to])
			if rapid.Bool().Draw(rt, "undo") {
				h.Lines = append(h.Lines, "undo")
				if list, err := h.o.snapshots(); err == nil {
					h.restoreTo(list[0].ID(), now)
				}
			}
		}
		h.CheckReopened(v, low)
	})
}

func (h *history) restoreTo(to string, want map[string]string) {
	h.T.Helper()
	if _, err := h.o.RestoreSnapshot(RestoreSnapshotOptions{To: to}); err != nil {
		h.T.Fatalf("%v after\n%s", err, strings.Join(h.Lines, "\n"))
	}
	if diff := cmp.Diff(want, h.o.Dump()); diff != "" {
		h.T.Fatalf("at the snapshot (-), restored (+):\n%s\nafter\n%s", diff, strings.Join(h.Lines, "\n"))
	}
	h.CheckIDs()
	c, err := h.o.Check()
	ofKernel := func(p Problem) bool { return p.Path == "work/work" } // from its mounts
	c.Problems = slices.DeleteFunc(c.Problems, ofKernel)
	if err != nil || len(c.Problems) > 0 {
		h.T.Fatalf("check: %+v, %v after\n%s", c.Problems, err, strings.Join(h.Lines, "\n"))
	}
}

// steps does some random operations to the replica and to an overlay of the kernel that starts with a copy of
// its layer.
func (h *history) steps(low string, round int) {
	h.T.Helper()
	upper := filepath.Join(h.Base, fmt.Sprint("upper", round))
	if own := filepath.Join(h.Base, "replicas/n01/compute/upper"); exists(own) {
		if out, err := exec.Command("cp", "-a", own, upper).CombinedOutput(); err != nil {
			h.T.Fatalf("%v: %s", err, out)
		}
	}
	unmount := h.Mount(fmt.Sprint(round), low)
	defer unmount()
	for range rapid.IntRange(1, 12).Draw(h.T, "length") {
		h.Step()
	}
}

// Nodes write while they are switched together. Each snapshot shows one moment of its node, with all that was
// written before.
func TestSnapshotsOfWritingNodesShowOneMoment(t *testing.T) {
	m := newMemory(t)
	versions := []image.Version{m.Version(t, 1, v1), m.Version(t, 2, v2)}
	first := newSiteIn(t, disktest.Memory(t), versions[0], m)
	nodes := []*site{first}
	for i := 2; i <= 4; i++ {
		r, err := first.s.Attach(replica.Spec{Node: fmt.Sprintf("n%02d", i), Image: "compute", Version: versions[0]})
		if err != nil {
			t.Fatal(err)
		}
		shell := replicatest.NewShell(t, r)
		nodes = append(nodes, &site{Replica: r, Shell: shell, Layer: Of(r), t: t, s: first.s, opts: first.opts})
	}
	const files = 40
	var g errgroup.Group
	for _, o := range nodes {
		g.Go(func() error {
			for i := range files {
				dir := o.Root()
				made, err := o.Create(root, dir, fmt.Sprintf("own%02d", i), &vfs.Create{})
				if err == nil {
					_, err = o.Write(root, made.Handle, []byte("whole"), 0, vfs.FileSync)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	for i := range 6 {
		var moves []replica.Move
		for _, o := range nodes {
			rules := replica.Rules{Snapshots: 10}
			moves = append(moves, replica.Move{Replica: o.Replica, Version: versions[(i+1)%2], Rules: rules})
		}
		rep, err := first.s.Switch(context.Background(), moves)
		if err != nil || len(rep.Missed) > 0 || rep.Replicas != len(nodes) {
			t.Fatalf("switch: %+v, %v", rep, err)
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, o := range nodes {
		checkClean(t, o)
		list, err := o.snapshots()
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range list {
			for i := range int(one.Files) {
				path := filepath.Join(o.opts.Dir, string(o.home), "snapshots", one.ID(), fmt.Sprintf("own%02d", i))
				b, err := os.ReadFile(path)
				if err != nil || string(b) != "whole" && (i < int(one.Files)-1 || len(b) > 0) {
					t.Errorf("file %d of %d in %s: %q, %v", i, one.Files, one.ID(), b, err)
				}
			}
		}
	}
}
