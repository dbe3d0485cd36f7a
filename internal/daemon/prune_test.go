package daemon

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/store"
	"dim/internal/testkit"
)

// TestWhatACrashLeavesOfARemovalGoesWithTheNextPrune ends the server between the two halves of a removal.
func TestWhatACrashLeavesOfARemovalGoesWithTheNextPrune(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.7")
	s.start()
	for _, text := range []string{"one", "two", "three"} {
		s.put("etc/only", text)
		_, err := s.client().Capture(t.Context(), control.CaptureRequest{Image: "compute"}, func(control.Progress) {})
		testkit.Must(t, err)
	}
	for _, r := range []string{"compute@2", "compute@3"} {
		_, err := s.client().RemoveVersion(t.Context(), r, control.RemoveRequest{DryRun: true})
		testkit.Must(t, err)
	}
	testkit.Must(t, s.stop())

	c, err := coord.Open(t.Context(), coord.Options{Dir: filepath.Join(s.data, "coord")})
	testkit.Must(t, err)
	two := image.Ref{Image: "compute", Number: 2}
	_, err = c.RemoveVersions(t.Context(), func(coord.State) ([]image.Ref, error) { return []image.Ref{two}, nil })
	testkit.Must(t, err)
	testkit.Must(t, c.Close())

	s.start()
	testkit.Eventually(t, "the state without it is followed", func() bool {
		versions, err := s.client().Versions(t.Context(), "compute")
		return err == nil && len(versions) == 2
	})
	_, err = s.client().Prune(t.Context(), control.PruneRequest{Keep: 10})
	testkit.Must(t, err)
	testkit.Must(t, s.stop())
	st, err := store.Open(filepath.Join(s.data, "store"), store.Options{})
	testkit.Must(t, err)
	defer st.Close()
	if _, err := st.Resolve(two); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the store has %s still: %v", two, err)
	}
	for text, want := range map[string]bool{"two": false, "three": true} {
		f, err := st.OpenBlob(image.Sum([]byte(text)))
		if err == nil {
			testkit.Must(t, f.Close())
		}
		if (err == nil) != want {
			t.Errorf("the blob %q: %v", text, err)
		}
	}
	testkit.Must(t, st.Check(t.Context(), store.CheckObserver{Problem: func(p store.Problem) { t.Error(p) }}))
}

func TestPruneReportsWhyEachVersionStays(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.8")
	s.start()
	for _, text := range []string{"one", "two", "three", "four", "five"} {
		s.put("etc/only", text)
		_, err := s.client().Capture(t.Context(), control.CaptureRequest{Image: "compute"}, func(control.Progress) {})
		testkit.Must(t, err)
	}
	_, err := s.client().Tag(t.Context(), "compute@2", "good")
	testkit.Must(t, err)
	_, err = s.client().Rollout(t.Context(), control.RolloutRequest{Nodes: "n01", Version: "compute@4", When: "now"})
	testkit.Must(t, err)
	got, err := s.client().Prune(t.Context(), control.PruneRequest{Image: "compute", Keep: 1})
	testkit.Must(t, err)
	want := []control.KeptVersion{
		{Version: "compute@1", Why: "it is the current one of compute"},
		{Version: "compute@2", Why: "it has the tag good"},
		{Version: "compute@4", Why: "node n01 is to run it"},
		{Version: "compute@5", Why: "it is the newest of compute"},
	}
	if diff := cmp.Diff(want, got.Kept); diff != "" || len(got.Versions) != 1 || got.Versions[0] != "compute@3" ||
		got.Objects == 0 {
		t.Errorf("%s\n%+v", diff, got)
	}
	if _, err := s.client().Prune(t.Context(), control.PruneRequest{Image: "none", Keep: 1}); err == nil ||
		!strings.Contains(err.Error(), "no image") {
		t.Errorf("of no image: %v", err)
	}
	if text := read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/only"); text != "four" {
		t.Errorf("n01 reads %q", text)
	}
}
