package replica

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/testkit"
)

func anyNode(string) bool { return true }

// pins returns the numbers of the versions that must stay when the description has the nodes for which declared is
// true, each with the reason.
func (o *several) pins(declared func(string) bool) map[int]string {
	all := make(map[int]string)
	list, why := o.s.Pinned(declared)
	for _, v := range list {
		all[v.Number] = why[v.Digest]
	}
	return all
}

// reopen restarts the server, which then attaches the replicas of specs.
func (o *several) reopen(specs ...Spec) {
	o.t.Helper()
	testkit.Must(o.t, o.s.Close())
	o.s = testkit.Value(Open(o.opts))(o.t)
	o.all, o.errs = o.s.AttachAll(o.t.Context(), specs)
}

func TestARemovedNodePinsAVersionOnlyWithFilesOverIt(t *testing.T) {
	m := newMemory(t)
	o := newSeveral(t, m, m.Version(t, 1, v1)) // n01 and n02 have layers, n03 has none
	second := m.Version(t, 2, v2)
	testkit.Must(t, o.s.journal.flush())
	none := func(string) bool { return false }

	if got := o.pins(anyNode)[1]; got != shown {
		t.Errorf("of declared nodes: %q", got)
	}
	if got := o.pins(func(node string) bool { return node != "n03" })[1]; got != shown {
		t.Errorf("also of a removed one: %q", got)
	}
	o.reopen(Spec{Node: "n04", Image: "compute", Version: second})
	if got := o.pins(anyNode); got[1] != shown || got[2] != shown {
		t.Errorf("of declared nodes, some not attached: %v", got)
	}
	if got := o.pins(none)[1]; !strings.HasSuffix(got, "dim node rm n02 gives them up") {
		t.Errorf("of removed nodes with layers: %q", got)
	}
	o.s.Detach(none)
	if got, pinned := o.pins(none)[2]; pinned {
		t.Errorf("of a removed node without a layer: %q", got)
	}
	dirs := []string{filepath.Join(o.opts.Dir, "n01/compute"), filepath.Join(o.opts.Dir, "n02/compute")}
	for _, dir := range dirs {
		testkit.Must(t, os.Rename(dir, dir+".away"))
	}
	if got, pinned := o.pins(none)[1]; pinned {
		t.Errorf("without layers: %q", got)
	}
}

func TestANodeComesBackAfterTheVersionThatItShowedIsGone(t *testing.T) {
	m := newMemory(t)
	o := newSeveral(t, m, m.Version(t, 1, v1))
	testkit.Must(t, o.s.journal.flush())
	only2 := newMemory(t) // as a store from which version 1 was removed
	second := only2.Version(t, 2, v2)
	o.opts.Source = only2
	spec := func(node string) Spec { return Spec{Node: node, Image: "compute", Version: second} }
	for _, restart := range []string{"the first", "the second"} {
		o.reopen(spec("n01"), spec("n03"))
		if o.errs[0] == nil {
			t.Errorf("%s time: n01, whose files are over another version, is served", restart)
		}
		if o.errs[1] != nil || o.all[1].Version().Digest != second.Digest {
			t.Fatalf("%s time: n03, which has no files, is not served: %v", restart, o.errs[1])
		}
	}
	o.shell(1).WriteFile("etc/mine", "mine") // over version 2
	want := o.shell(1).Dump()
	o.reopen(spec("n03"))
	if diff := cmp.Diff(want, o.shell(0).Dump()); diff != "" {
		t.Error("after a restart: " + diff)
	}
	if v, ok := o.s.Followed("n01", "compute"); !ok || v.Number != 1 {
		t.Errorf("the layer of n01 counts as over version %d", v.Number)
	}
}
