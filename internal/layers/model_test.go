package layers

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"dim/internal/image"
	"dim/internal/replica"
	"dim/internal/replica/replicatest"
	"dim/internal/testkit"
)

// After a random history and a switch to another version, and perhaps back, the replica shows its layer over
// that version, before and after a restart. Every path at which the versions differ and the layer has nothing
// shows the master's.
func TestSwitchesAfterRandomHistoriesLeaveAPlainLayer(t *testing.T) {
	testkit.NeedRoot(t, needsRoot)
	dir := t.TempDir()
	m := newMemory(t)
	low1, one := m.ModelVersion(t, dir, 1, replicatest.ModelSeed())
	low2, two := m.ModelVersion(t, dir, 2, replicatest.ModelNext())
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		h := newHistory(rt, t, m, one, filepath.Join(dir, fmt.Sprint("h", n)))
		defer h.Close()
		unmount := h.Mount("", low1)
		defer unmount()
		for range rapid.IntRange(1, 20).Draw(rt, "length") {
			h.Step()
		}
		h.Lines = append(h.Lines, "switch")
		h.switchTo(two)
		h.CheckReopened(two, low2)
		h.CheckIDs()
		h.changeSaved(two, low2)
		if rapid.Bool().Draw(rt, "back") {
			h.Lines = append(h.Lines, "switch back")
			h.switchTo(one)
			h.CheckReopened(one, low1)
			h.CheckIDs()
			h.changeSaved(one, low1)
		}
	})
}

func (h *history) switchTo(v image.Version) {
	h.T.Helper()
	if _, err := h.o.s.Switch(context.Background(), []replica.Move{{Replica: h.o.Replica, Version: v}}); err != nil {
		h.T.Fatal(err)
	}
}

// changeSaved restores some set-aside entries, or forgets them, or resets a path. overlayfs can still mount the
// layer, and no two objects have one id.
func (h *history) changeSaved(v image.Version, low string) {
	h.T.Helper()
	saved, err := h.o.Saved()
	if err != nil {
		h.T.Fatal(err)
	}
	if len(saved) == 0 {
		return
	}
	one := rapid.SampledFrom(saved).Draw(h.T, "saved")
	switch rapid.IntRange(0, 3).Draw(h.T, "tend") {
	case 0:
		h.Lines = append(h.Lines, "restore "+one.Path+" "+string(one.Kind))
		_, err = h.o.Restore(RestoreOptions{Path: one.Path, From: one.ID()})
	case 1:
		h.Lines = append(h.Lines, "restore everything")
		_, err = h.o.Restore(RestoreOptions{})
	case 2:
		h.Lines = append(h.Lines, "forget "+one.Path)
		_, err = h.o.Forget(ForgetOptions{Path: one.Path})
	case 3:
		h.Lines = append(h.Lines, "reset "+one.Path)
		_, err = h.o.Reset(ResetOptions{Paths: []string{one.Path}})
	}
	if err != nil {
		h.Lines = append(h.Lines, err.Error()) // something stands in the way
	}
	h.CheckReopened(v, low)
	h.CheckIDs()
}

// A reset leaves the version alone, whatever the node did. Restoring what was set aside undoes the reset.
func TestAResetAfterARandomHistoryIsUndoneByARestore(t *testing.T) {
	testkit.NeedRoot(t, needsRoot)
	dir := t.TempDir()
	m := newMemory(t)
	low, v := m.ModelVersion(t, dir, 1, replicatest.ModelSeed())
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		h := newHistory(rt, t, m, v, filepath.Join(dir, fmt.Sprint("h", n)))
		defer h.Close()
		unmount := h.Mount("", low)
		defer unmount()
		plain := h.o.Dump()
		for range rapid.IntRange(1, 20).Draw(rt, "length") {
			h.Step()
		}
		mine := h.o.Dump()
		own, err := h.o.Diff("")
		if err != nil {
			rt.Fatal(err)
		}
		if same := cmp.Equal(plain, mine); len(own) == 0 && !same {
			rt.Fatalf("nothing is listed as the node's own after\n%s", strings.Join(h.Lines, "\n"))
		}
		paths := []string{""}
		if rapid.Bool().Draw(rt, "by path") {
			paths = h.o.Names("")
			paths = append(paths, replicatest.ModelNames()...)
		}
		h.Lines = append(h.Lines, fmt.Sprintf("reset %q", paths))
		before := h.o.Stat("").Ctime
		list, err := h.o.Reset(ResetOptions{Paths: paths})
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(plain, h.o.Dump()); diff != "" {
			rt.Fatalf("the version (-) and the replica (+) differ after\n%s\n%s", strings.Join(h.Lines, "\n"), diff)
		}
		if len(list) > 0 && !before.Before(h.o.Stat("").Ctime) && paths[0] == "" {
			rt.Fatalf("the root has no new ctime after\n%s", strings.Join(h.Lines, "\n"))
		}
		h.CheckReopened(v, low)
		h.CheckIDs()
		if len(list) == 0 {
			return
		}
		if _, err := h.o.Restore(RestoreOptions{}); err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(mine, h.o.Dump()); diff != "" {
			lines := strings.Join(h.Lines, "\n")
			rt.Fatalf("before the reset (-) and after the restore (+) differ after\n%s\n%s", lines, diff)
		}
		h.CheckReopened(v, low)
		h.CheckIDs()
	})
}
