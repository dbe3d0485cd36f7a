package replica

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
	"dim/internal/vfs"
)

// dieAt lets the server of o die at the nth point from now on; it returns how many points are left.
func (o *site) dieAt(n int) (left *int) {
	left = &n
	o.s.crashAt = func(string) error {
		if *left--; *left <= 0 {
			return errCrash
		}
		return nil
	}
	return left
}

// rich gives the node one of everything.
func rich(o *site) {
	o.write("etc/a", "mine")
	o.write("etc/own", "own")
	o.remove("etc/b")
	o.remove("opt/app")
	o.mkdir("opt/app")
	o.write("opt/app/own", "own")
	o.mkdir("dir")
	o.write("dir/f", "f")
	if _, err := o.Link(root, o.handle("dir/f"), o.handle(""), "link"); err != nil {
		o.t.Fatal(err)
	}
	if _, err := o.Symlink(root, o.handle("dir"), "symlink", "f", &vfs.SetAttr{}); err != nil {
		o.t.Fatal(err)
	}
	if _, err := o.SetAttr(root, o.handle("etc"), &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o700}); err != nil {
		o.t.Fatal(err)
	}
}

// The server dies at each point of a switch that takes a snapshot: the switch is completed or not begun, and whatever is called a snapshot shows the
// layer as it was.
func TestASwitchThatIsBrokenOffLeavesNoHalfSnapshot(t *testing.T) {
	m := newMemory(t)
	one, two := m.version(t, 1, v1), m.version(t, 2, v2)
	for point := 1; ; point++ {
		o := newSiteIn(t, disktest.Memory(t), one, m)
		o.keepsSnapshots(3)
		rich(o)
		before := o.tree()
		left := o.dieAt(point)
		move := o.move()
		move.Version = two
		_, err := o.s.Switch(context.Background(), []Move{move})
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
		if _, err := o.s.Expire(); err != nil {
			t.Fatal(err)
		}
		checkClean(t, o)
		list, err := o.Snapshots()
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			if diff := cmp.Diff(before, o.tree()); diff != "" {
				t.Errorf("crash at point %d: switched without a snapshot:\n%s", point, diff)
			}
			continue
		}
		o.rewind(list[len(list)-1].ID())
		if diff := cmp.Diff(before, o.tree()); diff != "" {
			t.Errorf("crash at point %d: the snapshot (-want +got):\n%s", point, diff)
		}
		checkClean(t, o)
	}
}

// The server dies at each point of a restore: the layer is the one or the other, the restore can be done again, and undone.
func TestARestoreOfALayerThatIsBrokenOffLosesNothing(t *testing.T) {
	m := newMemory(t)
	one := m.version(t, 1, v1)
	for point := 1; ; point++ {
		o := newSiteIn(t, disktest.Memory(t), one, m)
		rich(o)
		then := o.tree()
		stamp := o.snapshotNow()
		o.write("etc/own", "other")
		o.remove("dir")
		o.remove("etc/a")
		o.write("opt/app/later", "later")
		if _, err := o.SetAttr(root, o.handle("etc"), &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o750}); err != nil {
			t.Fatal(err)
		}
		now := o.tree()
		left := o.dieAt(point)
		_, err := o.Rewind(Rewinding{To: stamp})
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
		got := o.tree()
		if !cmp.Equal(then, got) && !cmp.Equal(now, got) {
			t.Errorf("crash at point %d: neither of the two:\n%s", point, cmp.Diff(now, got))
		}
		if _, err := o.s.Expire(); err != nil {
			t.Fatal(err)
		}
		checkClean(t, o)
		o.rewind(stamp)
		if diff := cmp.Diff(then, o.tree()); diff != "" {
			t.Errorf("crash at point %d, then again (-want +got):\n%s", point, diff)
		}
		list, err := o.Snapshots()
		if err != nil || len(list) < 2 {
			t.Fatalf("point %d: snapshots %+v, %v", point, list, err)
		}
		o.rewind(list[len(list)-2].ID())
		if diff := cmp.Diff(now, o.tree()); diff != "" {
			t.Errorf("crash at point %d, then undone (-want +got):\n%s", point, diff)
		}
		checkClean(t, o)
	}
}

// snapshotNow takes a snapshot and returns its stamp; "" when there is nothing to keep.
func (o *site) snapshotNow() string {
	o.t.Helper()
	if err := o.lock(); err != nil {
		o.t.Fatal(err)
	}
	defer o.mu.Unlock()
	at, err := o.snapshot("test", 0)
	if err != nil {
		o.t.Fatal(err)
	}
	if at == 0 {
		return ""
	}
	return stampOf(at)
}

// Random histories with snapshots and restores: whatever happened in between, a restored layer shows what it showed, the undo what was before, and
// the kernel's overlayfs shows the same of it.
func TestALayerComesBackAfterARandomHistory(t *testing.T) {
	needRoot(t)
	dir := disktest.Memory(t)
	m := newMemory(t)
	low, v := modelVersion(t, m, dir, 1, modelSeed)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		h := newHistory(rt, t, m, v, filepath.Join(dir, fmt.Sprint("h", n)))
		defer h.close()
		taken := make(map[string]map[string]string)
		stamps := []string{}
		for round := range rapid.IntRange(2, 3).Draw(rt, "rounds") {
			h.steps(low, round)
			now := h.o.tree()
			if stamp := h.o.snapshotNow(); stamp != "" {
				h.lines = append(h.lines, "snapshot "+stamp)
				if was, known := taken[stamp]; known && !cmp.Equal(was, now) {
					rt.Fatalf("an older snapshot was taken for the present one after\n%s", strings.Join(h.lines, "\n"))
				}
				taken[stamp] = now
				stamps = append(stamps, stamp)
			}
			if len(stamps) == 0 || !rapid.Bool().Draw(rt, "restore") {
				continue
			}
			to := rapid.SampledFrom(stamps).Draw(rt, "to")
			h.lines = append(h.lines, "restore "+to)
			h.rewindTo(to, taken[to])
			if rapid.Bool().Draw(rt, "undo") {
				h.lines = append(h.lines, "undo")
				if list, err := h.o.Snapshots(); err == nil {
					h.rewindTo(list[0].ID(), now)
				}
			}
		}
		h.checkReopened(v, low)
	})
}

func (h *history) rewindTo(to string, want map[string]string) {
	h.t.Helper()
	if _, err := h.o.Rewind(Rewinding{To: to}); err != nil {
		h.t.Fatalf("%v after\n%s", err, strings.Join(h.lines, "\n"))
	}
	if diff := cmp.Diff(want, h.o.tree()); diff != "" {
		h.t.Fatalf("at the snapshot (-), restored (+):\n%s\nafter\n%s", diff, strings.Join(h.lines, "\n"))
	}
	h.checkIDs()
	c, err := h.o.Check()
	c.Problems = slices.DeleteFunc(c.Problems, func(p Problem) bool { return p.Path == "work/work" }) // of the kernel's mounts
	if err != nil || len(c.Problems) > 0 {
		h.t.Fatalf("check: %+v, %v after\n%s", c.Problems, err, strings.Join(h.lines, "\n"))
	}
}

// steps does some random operations to the replica and to an overlay of the kernel's that starts with a copy of its layer.
func (h *history) steps(low string, round int) {
	h.t.Helper()
	upper := filepath.Join(h.base, fmt.Sprint("upper", round))
	if own := filepath.Join(h.base, "replicas/n01/compute/upper"); exists(own) {
		if out, err := exec.Command("cp", "-a", own, upper).CombinedOutput(); err != nil {
			h.t.Fatalf("%v: %s", err, out)
		}
	}
	unmount := h.mount(filepath.Join(h.base, fmt.Sprint("kernel", round)), low, upper, filepath.Join(h.base, fmt.Sprint("work", round)), "index=on,redirect_dir=on,metacopy=off")
	defer unmount()
	for range rapid.IntRange(1, 12).Draw(h.t, "length") {
		h.step()
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Nodes write while they are switched together: each snapshot shows a moment of its node, with all that was written before.
func TestSnapshotsOfWritingNodesShowOneMoment(t *testing.T) {
	m := newMemory(t)
	versions := []image.Version{m.version(t, 1, v1), m.version(t, 2, v2)}
	first := newSiteIn(t, disktest.Memory(t), versions[0], m)
	nodes := []*site{first}
	for i := 2; i <= 4; i++ {
		r, err := first.s.Attach(Spec{Node: fmt.Sprintf("n%02d", i), Image: "compute", Version: versions[0]})
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, &site{Replica: r, t: t, s: first.s, m: m, opts: first.opts})
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
		var moves []Move
		for _, o := range nodes {
			moves = append(moves, Move{Replica: o.Replica, Version: versions[(i+1)%2], Rules: Rules{Snapshots: SnapshotRule{Keep: 10}}})
		}
		if rep, err := first.s.Switch(context.Background(), moves); err != nil || len(rep.Missed) > 0 || rep.Replicas != len(nodes) {
			t.Fatalf("switch: %+v, %v", rep, err)
		}
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, o := range nodes {
		checkClean(t, o)
		list, err := o.Snapshots()
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range list {
			for i := range int(one.Files) {
				path := filepath.Join(o.opts.Dir, o.dir, snapshotArea, one.ID(), fmt.Sprintf("own%02d", i))
				b, err := os.ReadFile(path)
				if err != nil || string(b) != "whole" && (i < int(one.Files)-1 || len(b) > 0) {
					t.Errorf("file %d of %d in %s: %q, %v", i, one.Files, one.ID(), b, err)
				}
			}
		}
	}
}
