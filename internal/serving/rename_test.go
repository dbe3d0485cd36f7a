package serving

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"dim/internal/coord"
	"dim/internal/testkit"
)

// n02 was removed, and n01 is n02 now. This server serves both, and hears of the two changes at once.
func TestANodeTakesTheNameOfOneThatIsServed(t *testing.T) {
	s := newSite(t, described(""))
	s.declare(1, nil)
	s.reconcile()
	layers := filepath.Join(s.dir, "replicas")
	for _, node := range []string{"n01", "n02"} {
		upper := filepath.Join(layers, node, "compute/upper")
		testkit.Must(t, os.MkdirAll(upper, 0o755),
			os.WriteFile(filepath.Join(upper, "own"), []byte("of "+node), 0o644))
	}
	earlier := s.node("n02").fs
	s.describe(strings.Replace(described(""), `name="n{node:02}"`, `name="n{node+1:02}"`, 1))
	s.declare(1, func(now *coord.State) {
		now.Layers = coord.Holders{"n02": "head"}
		now.Renaming = map[string]coord.Renaming{"n02": {From: "n01", ID: "change"}}
	})
	for range 2 { // also as long as the heads have not heard that it is done
		s.reconcile()
		if p := s.problem("n02"); p != "" || s.Renaming() {
			t.Errorf("it waits: %q", p)
		}
		if x := s.node("n02"); x == nil || x.fs == earlier {
			t.Error("n02 is not served, or as the earlier node")
		}
	}
	for node, want := range map[string]string{"n02": "of n01", "n02.before-change": "of n02"} {
		got, err := os.ReadFile(filepath.Join(layers, node, "compute/upper/own"))
		if string(got) != want || err != nil {
			t.Errorf("%s has %q, %v", node, got, err)
		}
	}
}
