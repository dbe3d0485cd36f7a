package coord

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/image"
	"dim/internal/testkit"
)

func chooses(refs ...image.Ref) func(State) ([]image.Ref, error) {
	return func(State) ([]image.Ref, error) { return refs, nil }
}

func TestARemovedVersionIsGoneAndItsNumberIsNotReused(t *testing.T) {
	c := open(t, t.TempDir())
	for n := range 3 {
		testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", n+1)))
	}
	two := image.Ref{Image: "compute", Number: 2}
	got := testkit.Value(c.RemoveVersions(t.Context(), chooses(two)))(t)
	if len(got) != 1 || got[0] != two {
		t.Errorf("removed %v", got)
	}
	s := testkit.Value(c.Snapshot(t.Context()))(t)
	if _, ok := s.Resolve(two); ok || len(s.Images["compute"].Versions) != 2 || s.Images["compute"].Last != 3 {
		t.Errorf("%+v", s.Images["compute"])
	}
	if err := c.PutVersion(t.Context(), someVersion("compute", 2)); !errors.Is(err, ErrConflict) {
		t.Errorf("put again: %v", err)
	}
}

func TestARemovalIsRepeatedWhenTheStateChanges(t *testing.T) {
	c := open(t, t.TempDir())
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 1)))
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 2)))
	asked := 0
	got, err := c.RemoveVersions(t.Context(), func(s State) ([]image.Ref, error) {
		if asked++; asked == 1 {
			testkit.Must(t, c.PutTag(t.Context(), "compute", "stable", 1)) // another admin
			return []image.Ref{{Image: "compute", Number: 1}}, nil
		}
		if s.Images["compute"].Tags["stable"] != 1 {
			t.Error("the second call does not see the tag")
		}
		return nil, nil
	})
	testkit.Must(t, err)
	if asked != 2 || got != nil {
		t.Errorf("asked %d times, removed %v", asked, got)
	}
	no := errors.New("no")
	_, err = c.RemoveVersions(t.Context(), func(State) ([]image.Ref, error) { return nil, no })
	if !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
}

func TestADecisionIsRepeatedWhenAVersionIsRemoved(t *testing.T) {
	c := open(t, t.TempDir())
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 1)))
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 2)))
	one := image.Ref{Image: "compute", Number: 1}
	gone := errors.New("gone")
	asked := 0
	err := c.Decide(t.Context(), func(s State) (Change, error) {
		if asked++; asked == 1 { // another admin
			testkit.Value(c.RemoveVersions(t.Context(), chooses(one)))(t)
		}
		if _, ok := s.Resolve(one); !ok {
			return Change{}, gone
		}
		return Change{Desired: Refs{"n01": one}}, nil
	})
	if !errors.Is(err, gone) || asked != 2 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

func TestANodeThatIsToRunARemovedVersionFollowsItsImage(t *testing.T) {
	c := open(t, t.TempDir())
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 1)))
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 2)))
	one, two := image.Ref{Image: "compute", Number: 1}, image.Ref{Image: "compute", Number: 2}
	testkit.Must(t, c.Decide(t.Context(), func(State) (Change, error) {
		return Change{Desired: Refs{"n01": one, "n02": two}, Next: Refs{"n02": one, "n03": two}}, nil
	}))
	testkit.Value(c.RemoveVersions(t.Context(), chooses(one)))(t)
	s := testkit.Value(c.Snapshot(t.Context()))(t)
	if diff := cmp.Diff([]Refs{{"n02": two}, {"n03": two}}, []Refs{s.Desired, s.Next}); diff != "" {
		t.Error(diff)
	}
}

func TestATagIsRemovedOnlyFromTheVersionItNames(t *testing.T) {
	c := open(t, t.TempDir())
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 1)))
	testkit.Must(t, c.PutTag(t.Context(), "compute", "stable", 1))
	if err := c.RemoveTag(t.Context(), "compute", "stable", 2); !errors.Is(err, ErrNotFound) {
		t.Errorf("of another version: %v", err)
	}
	testkit.Must(t, c.RemoveTag(t.Context(), "compute", "stable", 1))
	if err := c.RemoveTag(t.Context(), "compute", "stable", 1); !errors.Is(err, ErrNotFound) {
		t.Errorf("twice: %v", err)
	}
}
