package replica

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/testkit"
	"dim/internal/vfs"
)

// A node leaves the description, comes back, and leaves for good.
func TestTheReplicaOfARemovedNodeIsDetached(t *testing.T) {
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, v2)
	o := newSeveral(t, m, one) // n01 and n02 have layers, n03 has none
	o.shell(0).WriteFile("etc/a", "mine")
	h := o.shell(0).Handle("etc/a")
	old := o.all[0]
	only := func(nodes ...string) func(string) bool {
		return func(node string) bool {
			for _, n := range nodes {
				if n == node {
					return true
				}
			}
			return false
		}
	}
	o.s.Detach(only("n02"))
	var a vfs.Attr
	if err := old.Attr(h, &a); !errors.Is(err, vfs.ESTALE) {
		t.Errorf("a call by an older handle: %v", err)
	}
	if _, err := old.Edit("test"); !errors.Is(err, vfs.ESTALE) {
		t.Errorf("a change of the layer: %v", err)
	}
	if got := o.pins(only("n02"))[1]; got != shown {
		t.Errorf("n02 does not pin its version: %q", got)
	}
	o.switchTo(1, two)
	if got, pinned := o.pins(only("n04"))[1]; !pinned || got == shown {
		t.Errorf("n01, which has a layer, pins its version with %q", got)
	}
	r := testkit.Value(o.s.Attach(Spec{Node: "n01", Image: "compute", Version: one}))(t)
	o.all[0] = r
	o.shell(0).Want("etc/a", "mine")
	if err := o.s.RemoveLayer("n01", "compute"); err == nil {
		t.Error("the layer of a replica that is served was removed")
	}
	o.s.Detach(only("n02"))
	testkit.Must(t, o.s.RemoveLayer("n01", "compute"))
	if _, err := os.Stat(filepath.Join(o.opts.Dir, "n01")); !os.IsNotExist(err) {
		t.Errorf("the directory of n01: %v", err)
	}
	// It comes back without files, and writes again.
	o.all[0] = testkit.Value(o.s.Attach(Spec{Node: "n01", Image: "compute", Version: one}))(t)
	o.shell(0).Want("etc/a", "a1")
	o.shell(0).WriteFile("etc/a", "again")
	o.shell(0).Want("etc/a", "again")
}

func TestWhatAnInterruptedRemovalHasLeftIsSwept(t *testing.T) {
	m := newMemory(t)
	o := newSeveral(t, m, m.Version(t, 1, v1))
	o.s.Detach(func(string) bool { return false })
	if _, err := o.s.takeAway("n01/compute"); err != nil {
		t.Fatal(err)
	}
	if err := o.s.RemoveLayer("n09", "compute"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a layer that does not exist: %v", err)
	}
	testkit.Must(t, o.s.SweepRemoved())
	left, _ := filepath.Glob(filepath.Join(o.opts.Dir, "#*"))
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := os.Stat(filepath.Join(o.opts.Dir, "n02/compute/upper")); err != nil {
		t.Error(err)
	}
}
