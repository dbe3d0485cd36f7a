package follow

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"dim/internal/coord"
	"dim/internal/testkit"
)

func TestStatesAreAdoptedInOrder(t *testing.T) {
	kept := coord.State{Store: "a", Revision: 5, Images: images(1)}
	tests := []struct {
		name       string
		state      coord.State
		adopted    bool
		incomplete bool // something is to be put back
	}{
		{name: "a later revision", state: coord.State{Store: "a", Revision: 6, Images: images(2)}, adopted: true},
		{name: "the same revision", state: coord.State{Store: "a", Revision: 5, Images: images(2)}},
		{name: "an earlier revision", state: coord.State{Store: "a", Revision: 4, Images: images(2)}},
		{
			name:  "an earlier revision of another store",
			state: coord.State{Store: "b", Revision: 1, Images: images(2)}, adopted: true,
		},
		{name: "a state that is empty", state: coord.State{Store: "a", Revision: 9}, incomplete: true},
		{name: "another store that is empty", state: coord.State{Store: "b", Revision: 1}, incomplete: true},
		{
			name:  "a state with a description and no images",
			state: coord.State{Store: "b", Revision: 1, Description: describe(t, small)}, adopted: true,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := loaded(t, kept)
			before := f.Now()
			var told []*Declared
			f.Subscribe(func(_ context.Context, now *Declared) { told = append(told, now) })
			testkit.Must(t, f.adopt(t.Context(), tt.state))
			if got := f.Now() != before; got != tt.adopted || f.incomplete.Load() != tt.incomplete {
				t.Errorf("adopted %v, incomplete %v; want %v, %v", got, f.incomplete.Load(), tt.adopted, tt.incomplete)
			}
			if tt.adopted && (len(told) != 1 || told[0] != f.Now()) || !tt.adopted && len(told) > 0 {
				t.Errorf("subscribers were called with %v", told)
			}
			again := New(f.Options)
			testkit.Must(t, again.Load())
			if tt.adopted && tt.state.Description != nil && again.Now().State.Revision != tt.state.Revision {
				t.Errorf("after a restart the revision is %d", again.Now().State.Revision)
			}
		})
	}
}

func TestAServerThatKnowsNothingAdoptsAnEmptyState(t *testing.T) {
	f := newFollower(t, small)
	testkit.Must(t, f.Load(), f.adopt(t.Context(), coord.State{Store: "a", Revision: 1}))
	if now := f.Now(); now.State.Revision != 1 || f.incomplete.Load() {
		t.Errorf("revision %d, incomplete %v", now.State.Revision, f.incomplete.Load())
	}
}

func TestAnOlderCopyIsAdoptedOnlyRightAfterItWasFound(t *testing.T) {
	older := coord.State{Store: "a", Revision: 3, Images: images(1)}
	f := loaded(t, coord.State{Store: "a", Revision: 5, Images: images(2)})
	testkit.Must(t, f.adopt(t.Context(), older))
	if got := f.Now().State.Revision; got != 5 {
		t.Errorf("while the state is followed: revision %d", got)
	}
	f.acceptOlder(older)
	if now := f.Now(); len(now.State.Images["compute"].Versions) != 2 {
		t.Error("the older copy holds before it was adopted")
	}
	testkit.Must(t, f.adopt(t.Context(), older))
	if got := f.Now().State.Revision; got != 3 {
		t.Errorf("right after it was found: revision %d", got)
	}
	f.acceptOlder(coord.State{Store: "b", Revision: 1})
	f.acceptOlder(coord.State{Store: "a", Revision: 4})
	if got := f.Now().State.Revision; got != 3 {
		t.Errorf("another store or a later revision was taken for an older copy: revision %d", got)
	}
}

func TestADescriptionThatCannotBeFollowedLeavesTheOneBeforeInForce(t *testing.T) {
	for _, tt := range []struct{ name, text, problem string }{
		{"it has no such server", foreign(), "has no server of that name"},
		{"it cannot be parsed", "", "it has no files"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := loaded(t, coord.State{Store: "a", Revision: 5, Images: images(1)})
			bad := &coord.Description{}
			if tt.text != "" {
				bad = describe(t, tt.text)
			}
			bad.Digest[0]++ // of whatever it may be, it is another one
			s := coord.State{Store: "a", Revision: 6, Images: images(2), Description: bad}
			testkit.Must(t, f.adopt(t.Context(), s))
			check := func(f *Follower) {
				t.Helper()
				now := f.Now()
				if !strings.Contains(now.Problem, tt.problem) || now.Digest != describe(t, small).Digest {
					t.Errorf("problem %q, digest %v", now.Problem, now.Digest.Short())
				}
				if now.State.Revision != 6 || len(now.State.Images["compute"].Versions) != 2 {
					t.Errorf("the rest of the state is not adopted: %+v", now.State)
				}
			}
			check(f)

			again := New(f.Options)
			testkit.Must(t, again.Load())
			if now := again.Now(); now.State.Revision != 5 || now.Digest != describe(t, small).Digest {
				t.Errorf("after a restart: revision %d, digest %v", now.State.Revision, now.Digest.Short())
			}
			testkit.Must(t, again.adopt(t.Context(), s)) // it is looked at again
			check(again)

			s.Revision, s.Description = 7, describe(t, larger())
			testkit.Must(t, again.adopt(t.Context(), s))
			if now := again.Now(); now.Problem != "" || len(now.Cluster.Nodes) != 5 {
				t.Errorf("one that can be followed: problem %q, %d nodes", now.Problem, len(now.Cluster.Nodes))
			}
		})
	}
}

func TestAStateThatCannotBeKeptIsAdoptedAllTheSame(t *testing.T) {
	f := loaded(t, coord.State{Store: "a", Revision: 5, Images: images(1)})
	f.StateFile = filepath.Join(f.StateFile, "below a file")
	testkit.Must(t, f.adopt(t.Context(), coord.State{Store: "a", Revision: 6, Images: images(2)}))
	if got := f.Now().State.Revision; got != 6 {
		t.Errorf("revision %d", got)
	}
}

func TestStableAndExclusiveRunWhileNoStateIsAdopted(t *testing.T) {
	t.Parallel()
	f, c := loaded(t, coord.State{Store: "a", Revision: 5, Images: images(1)}), openCoord(t)
	testkit.Value(c.PutDescription(t.Context(), *describe(t, small), -1))(t)
	inside := 0 // the race detector sees two that run at once
	enter := func() {
		if inside++; inside != 1 {
			t.Errorf("%d run at once", inside)
		}
		inside--
	}
	f.Subscribe(func(context.Context, *Declared) { enter() })
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			s := coord.State{Store: "a", Revision: int64(6 + i), Images: images(1)}
			testkit.Must(t, f.adopt(t.Context(), s))
		})
		all.Go(func() { f.Stable(func(*Declared) { enter() }) })
		all.Go(func() {
			_ = f.Exclusive(t.Context(), c, func() (bool, error) { enter(); return false, nil })
		})
	}
	all.Wait()

	t.Run("a change that fails or changes nothing is not followed by an adoption", func(t *testing.T) {
		for _, want := range []error{nil, errors.New("no")} {
			before := f.Now()
			err := f.Exclusive(t.Context(), c, func() (bool, error) { return want != nil, want })
			if !errors.Is(err, want) || f.Now() != before {
				t.Errorf("error %v, adopted %v", err, f.Now() != before)
			}
		}
	})
	t.Run("a change is in force when Exclusive returns", func(t *testing.T) {
		testkit.Must(t, f.Exclusive(t.Context(), c, func() (bool, error) {
			return true, c.PutVersion(t.Context(), version(1))
		}))
		if got := f.Now().State; got.Store == "a" || len(got.Images["compute"].Versions) != 1 {
			t.Errorf("adopted %+v", got)
		}
	})
	t.Run("a change is in force when Refresh returns", func(t *testing.T) {
		testkit.Must(t, c.PutVersion(t.Context(), version(2)), f.Refresh(t.Context(), c))
		if got := len(f.Now().State.Images["compute"].Versions); got != 2 {
			t.Errorf("%d versions", got)
		}
	})
}
