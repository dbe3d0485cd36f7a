package replica

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/layer"
	"dim/internal/vfs"
)

func TestAPreviewIsWhatTheSwitchSetsAside(t *testing.T) {
	newer := slices.Clone(v2)
	newer[0].Mode = 0o711
	m := newMemory(t)
	one, two := m.Version(t, 1, v1), m.Version(t, 2, newer)
	o := newSite(t, one, m)
	preview := func() []layer.SetAside {
		t.Helper()
		move := o.move()
		move.Version = two
		list, err := o.s.Preview(t.Context(), []Move{move})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if list := preview(); len(list) > 0 {
		t.Errorf("of a node without a layer: %v", list)
	}
	o.WriteFile("etc/a", "mine")
	o.WriteFile("etc/mine", "mine")
	o.RemoveAll("etc/b")
	o.RemoveAll("opt/app")
	o.MakeDir("opt/app")
	o.WriteFile("opt/app/own", "own")
	o.WriteFile("gone/sub/s", "mine")
	o.WriteFile("turn/own", "own")
	if _, err := o.SetAttr(root, o.Handle("etc"), &vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o700}); err != nil {
		t.Fatal(err)
	}
	before := o.Dump()
	o.restart() // the layer is read by the preview
	list := preview()
	if diff := cmp.Diff(before, o.Dump()); diff != "" {
		t.Errorf("the replica has changed:\n%s", diff)
	}
	if saved := o.readSaved(); len(saved) > 0 {
		t.Errorf("set aside: %v", saved)
	}
	if diff := cmp.Diff(list, preview()); diff != "" {
		t.Errorf("another preview:\n%s", diff)
	}
	done := o.to(two).Aside
	for i := range done {
		done[i].Stamp = time.Unix(0, 0)
	}
	if diff := cmp.Diff(done, list); diff != "" || len(list) < 5 {
		t.Errorf("set aside (-) and previewed (+):\n%s", diff)
	}
}
