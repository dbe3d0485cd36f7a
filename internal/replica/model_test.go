package replica

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"dim/internal/image"
	"dim/internal/replica/replicatest"
	"dim/internal/testkit"
)

// The oracle: the kernel's overlayfs with the same lower tree sees what each random history does to the
// replica. It is mounted with index=on, without which it breaks hard links, and redirect_dir=on, without which
// it cannot rename directories. Then the kernel mounts the replica's own layer, plainly, and must show what the
// replica shows.
func TestRandomHistoriesDoWhatTheKernelsOverlayfsDoes(t *testing.T) {
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
		for range rapid.IntRange(1, 40).Draw(rt, "length") {
			h.Step()
		}
		if diff := cmp.Diff(h.KernelTree(), h.Dump()); diff != "" {
			rt.Fatalf("overlayfs (-) and replica (+) differ after\n%s\n%s", strings.Join(h.Lines, "\n"), diff)
		}
		h.CheckReopened(v, low)
	})
}

func newHistory(rt *rapid.T, t *testing.T, m *replicatest.Memory, v image.Version, base string) *replicatest.History {
	var open func(v image.Version) (replicatest.Server, error)
	open = func(v image.Version) (replicatest.Server, error) {
		s, err := Open(Options{Dir: filepath.Join(base, "replicas"), Source: m, Durability: Relaxed})
		if err != nil {
			return replicatest.Server{}, err
		}
		r, err := s.Attach(Spec{Node: "n01", Image: "compute", Version: v})
		use := func() (any, error) { return r.QuotaUse() }
		return replicatest.Server{FS: r, Use: use, Close: s.Close, Reopen: open}, err
	}
	first, err := open(v)
	if err != nil {
		rt.Fatal(err)
	}
	return replicatest.NewHistory(rt, t, base, first)
}
