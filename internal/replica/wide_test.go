package replica

import (
	"fmt"
	"testing"

	"dim/internal/vfs/vfstest"
)

// A layer with few entries, under a change of many paths: an entry at a path that differs is found wherever it
// is among the others.
func TestASmallLayerUnderAWideChange(t *testing.T) {
	wide := func(edition string) []vfstest.Entry {
		var seed []vfstest.Entry
		for i := range 30 {
			seed = append(seed, d(fmt.Sprintf("dir-%d", i)))
			for k := range 30 {
				seed = append(seed, f(fmt.Sprintf("dir-%d/file-%d", i, k), edition))
			}
		}
		return append(seed, f("same", "same"))
	}
	m := newMemory(t)
	one, two := m.Version(t, 1, wide("one")), m.Version(t, 2, wide("two"))
	for path, aside := range map[string]int{
		"dir-0/file-0": 1, "dir-7/file-29": 1, "dir-29/file-9": 1, "dir-9/file-10": 1,
		"same": 0, "dir-3/own": 0, "own": 0, "dir-3/file-3.own": 0,
	} {
		o := newSite(t, one, m)
		o.WriteFile(path, "mine")
		for _, scanned := range []bool{true, false} {
			if !scanned { // the layer is asked on the disk
				o.to(one)
				o.WriteFile(path, "mine")
				o.restart()
			}
			rep := o.to(two)
			if len(rep.Aside) != aside || aside > 0 && rep.Aside[0].Path != path {
				t.Errorf("%s, scanned %v: set aside %+v", path, scanned, rep.Aside)
			}
			if o.Want("dir-5/file-5", "two"); aside == 0 {
				o.Want(path, "mine")
			} else {
				o.Want(path, "two")
			}
		}
	}
}
