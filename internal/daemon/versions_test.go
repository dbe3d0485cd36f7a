package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/store"
	"dim/internal/testkit"
)

func (s *site) captureAgain(text string) (control.CaptureResult, error) {
	s.put("etc/only", text)
	return s.client().Capture(s.t.Context(), control.CaptureRequest{Image: "compute"}, func(control.Progress) {})
}

func (s *site) mustCapture(text string) int {
	s.t.Helper()
	done, err := s.captureAgain(text)
	testkit.Must(s.t, err)
	return done.Version.Number
}

// versions returns the numbers of the versions of compute.
func (s *site) versions() (list []int) {
	s.t.Helper()
	versions, err := s.client().Versions(s.t.Context(), "compute")
	testkit.Must(s.t, err)
	for _, v := range versions {
		list = append(list, v.Number)
	}
	return list
}

// offline opens the shared state and the store of a server that does not run.
func (s *site) offline(do func(c *coord.Coord, st *store.Store)) {
	s.t.Helper()
	c, err := coord.Open(s.t.Context(), coord.Options{Dir: filepath.Join(s.data, "coord")})
	testkit.Must(s.t, err)
	st, err := store.Open(filepath.Join(s.data, "store"), store.Options{})
	testkit.Must(s.t, err)
	do(c, st)
	testkit.Must(s.t, errors.Join(c.Close(), st.Close()))
}

// TestACaptureThatACrashEndsIsWholeOrNotThere ends the server at each step that a capture takes with a version.
func TestACaptureThatACrashEndsIsWholeOrNotThere(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		crash func(t *testing.T, c *coord.Coord, st *store.Store, v image.Version)
		want  []int // versions after the restart
	}{
		{"the number is reserved", func(*testing.T, *coord.Coord, *store.Store, image.Version) {}, []int{1}},
		{"the version is in the store", func(t *testing.T, _ *coord.Coord, st *store.Store, v image.Version) {
			_, err := st.AddVersion(v)
			testkit.Must(t, err)
		}, []int{1, 2}},
		{"the version is put", func(t *testing.T, c *coord.Coord, st *store.Store, v image.Version) {
			v, err := st.AddVersion(v)
			testkit.Must(t, errors.Join(err, c.PutVersion(t.Context(), v)))
		}, []int{1, 2}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, "127.0.0.8")
			s.start()
			s.mustCapture("one")
			testkit.Must(t, s.stop())
			s.offline(func(c *coord.Coord, st *store.Store) {
				v, err := st.Resolve(image.Ref{Image: "compute"})
				testkit.Must(t, err)
				v.Number, err = c.ReserveVersion(t.Context(), "compute", "head")
				testkit.Must(t, err)
				test.crash(t, c, st, v)
			})
			s.start()
			testkit.Eventually(t, "the version is known", func() bool { return cmp.Equal(s.versions(), test.want) })
			if n := s.mustCapture("two"); n != 3 {
				t.Errorf("the next version is %d", n)
			}
			testkit.Must(t, s.stop())
			s.offline(func(c *coord.Coord, st *store.Store) {
				state, err := c.Snapshot(t.Context())
				testkit.Must(t, err)
				stored, err := st.Versions("compute")
				testkit.Must(t, err)
				if im := state.Images["compute"]; im.Reserved != nil ||
					!cmp.Equal(numbers(im.Versions), numbers(stored)) {
					t.Errorf("reserved: %v, versions %v, in the store %v", im.Reserved, numbers(im.Versions),
						numbers(stored))
				}
			})
		})
	}
}

func TestTheNewestVersionCanBeRemoved(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.8")
	s.start()
	for i, text := range []string{"one", "two"} {
		if n := s.mustCapture(text); n != i+1 {
			t.Fatalf("version %d, want %d", n, i+1)
		}
	}
	_, err := s.client().RemoveVersion(t.Context(), "compute@1", control.RemoveRequest{})
	if e, ok := errors.AsType[*control.Error](err); !ok || e.Code != control.Conflict ||
		!strings.Contains(e.Error(), "current one") {
		t.Errorf("the current version: %v", err)
	}
	_, err = s.client().RemoveVersion(t.Context(), "compute@2", control.RemoveRequest{})
	testkit.Must(t, err)
	// The master is as the removed version was.
	if n := s.mustCapture("two"); n != 3 {
		t.Errorf("the version after the removed one is %d", n)
	}
	_, err = s.client().RemoveVersion(t.Context(), "compute@3", control.RemoveRequest{})
	testkit.Must(t, err)
	if diff := cmp.Diff([]int{1}, s.versions()); diff != "" {
		t.Error(diff)
	}
}

// TestAVersionWhoseRemovalWasCutShortIsNotWhatACaptureComparesWith ends the server after the newest version left the
// shared state.
func TestAVersionWhoseRemovalWasCutShortIsNotWhatACaptureComparesWith(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.8")
	s.start()
	s.mustCapture("one")
	s.mustCapture("two")
	testkit.Must(t, s.stop())
	two := image.Ref{Image: "compute", Number: 2}
	s.offline(func(c *coord.Coord, _ *store.Store) {
		_, err := c.RemoveVersions(t.Context(), func(coord.State) ([]image.Ref, error) { return []image.Ref{two}, nil })
		testkit.Must(t, err)
	})
	s.start()
	testkit.Eventually(t, "the removal is followed", func() bool { return len(s.versions()) == 1 })
	if n := s.mustCapture("two"); n != 3 {
		t.Errorf("the next version is %d", n)
	}
	if diff := cmp.Diff([]int{1, 3}, s.versions()); diff != "" {
		t.Error(diff)
	}
}

func TestANumberStaysGivenWhenTheSharedStateIsLost(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.8")
	s.start()
	for _, text := range []string{"one", "two", "three"} {
		s.mustCapture(text)
	}
	for _, ref := range []string{"compute@2", "compute@3"} {
		_, err := s.client().RemoveVersion(t.Context(), ref, control.RemoveRequest{})
		testkit.Must(t, err)
	}
	testkit.Must(t, s.stop())
	testkit.Must(t, os.RemoveAll(filepath.Join(s.data, "coord")))
	s.given = false
	s.start()
	if n := s.mustCapture("four"); n != 4 {
		t.Errorf("the next version is %d", n)
	}
	if diff := cmp.Diff([]int{1, 4}, s.versions()); diff != "" {
		t.Error(diff)
	}
}

func TestConcurrentCapturesGetDifferentNumbers(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.8")
	s.start()
	var mu sync.Mutex
	made := map[string][]int{}
	var all sync.WaitGroup
	for _, name := range []string{"compute", "other", "compute", "other"} {
		all.Go(func() {
			r := control.CaptureRequest{Image: name}
			done, err := s.client().Capture(context.Background(), r, func(control.Progress) {})
			if e, ok := errors.AsType[*control.Error](err); ok && e.Code == control.Busy {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if !done.Unchanged {
				made[name] = append(made[name], done.Version.Number)
			}
		})
	}
	all.Wait()
	if diff := cmp.Diff(map[string][]int{"compute": {1}, "other": {1}}, made); diff != "" {
		t.Error(diff)
	}
}

func TestACaptureWithARolloutComparesTheVersionsOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.8")
	s.start()
	s.put("usr/lib/modules/x/y.ko", "one")
	s.capture("compute")
	s.put("usr/lib/modules/x/y.ko", "two")
	compared := func() int { return strings.Count(s.log.String(), "versions compared") }
	before := compared()
	done := s.capture("compute")
	if done.Verdict == nil || done.Verdict.Boot != 1 || done.Rollout == nil || done.Counts[control.Content] == 0 {
		t.Errorf("captured: %+v", done)
	}
	r := control.RolloutRequest{Version: "compute@1", When: "now", DryRun: true}
	if plan, err := s.client().Rollout(t.Context(), r); err != nil || plan.Rings[0].Moves[0].Verdict == nil {
		t.Errorf("the way back: %+v, %v", plan, err)
	}
	_, err := s.client().Diff(t.Context(), "compute@1", "compute@2", func(control.Change) {})
	testkit.Must(t, err)
	if n := compared() - before; n != 2 { // there and, for the plan, back
		t.Errorf("versions were compared %d times:\n%s", n, s.log.String())
	}
}

func numbers(list []image.Version) (out []int) {
	for _, v := range list {
		out = append(out, v.Number)
	}
	return out
}
