package follow

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/coord"
	"dim/internal/testkit"
)

// A server that is killed while it puts a lost state back goes on with that when it starts again.
func TestAStateThatIsPutBackInPartIsNotAdopted(t *testing.T) {
	t.Parallel()
	kept := coord.State{
		Store: "lost", Revision: 7, Images: images(2),
		Watches: map[string]coord.Watch{"compute": {Server: "head"}},
	}
	kept.Images["compute"].Tags = map[string]int{"stable": 2}
	f, c := loaded(t, kept), openCoord(t)
	killed := errors.New("killed")
	put := func(context.Context, *coord.Coord, coord.State, coord.State) error { return killed }
	f.OnRestore(func(ctx context.Context, c *coord.Coord, s, had coord.State) error { return put(ctx, c, s, had) })
	if err := f.Restore(t.Context(), c); !errors.Is(err, killed) {
		t.Fatal(err)
	}
	testkit.Must(t, f.Refresh(t.Context(), c))
	if now := f.Now().State; now.Store != "lost" || len(now.Watches) != 1 {
		t.Errorf("a part of a state was adopted: %+v", now)
	}
	put = func(ctx context.Context, c *coord.Coord, _, _ coord.State) error {
		return errors.Join(c.PutVersion(ctx, version(1)), c.PutVersion(ctx, version(2)))
	}
	testkit.Must(t, f.Restore(t.Context(), c), f.Refresh(t.Context(), c))
	now := f.Now().State
	if now.Restoring || now.Store == "lost" || len(now.Watches) != 1 || now.Images["compute"].Tags["stable"] != 2 {
		t.Errorf("what came back is %+v", now)
	}
}

func TestAStateThatWasLostIsPutBack(t *testing.T) {
	t.Parallel()
	kept := coord.State{
		Store: "lost", Revision: 7, Images: images(2),
		Desired: coord.Refs{"n01": ref(2)}, Next: coord.Refs{"n02": ref(2)},
		Watches: map[string]coord.Watch{"compute": {Server: "head", Rollout: "now", Debounce: time.Second}},
	}
	kept.Images["compute"].Tags = map[string]int{"stable": 2, "gone": 9}
	kept.Servers = map[string]coord.Server{"head": {ID: "a", Roles: []string{"head"}, Joined: time.Unix(1, 0).UTC()}}
	kept.Revoked = map[string]coord.Revocation{"b": {Server: "old", Time: time.Unix(2, 0).UTC()}}
	f, c := loaded(t, kept), openCoord(t)
	calls := 0
	f.OnRestore(func(ctx context.Context, c *coord.Coord, s, had coord.State) error {
		if calls++; calls > 1 {
			return nil
		}
		if s.Description != nil || had.Revision != 7 {
			t.Errorf("called with the state %+v and the kept one %+v", s, had)
		}
		if got := snapshot(t, c).Desired["n01"]; got != ref(2) {
			t.Errorf("versions come back before what nodes follow is declared: n01 follows %v", got)
		}
		return errors.Join(c.PutVersion(ctx, version(1)), c.PutVersion(ctx, version(2)))
	})
	testkit.Must(t, f.adopt(t.Context(), snapshot(t, c)), f.Restore(t.Context(), c), f.Refresh(t.Context(), c))
	got := f.Now()
	if got.State.Store == "lost" || got.Problem != "" || got.Digest != describe(t, small).Digest {
		t.Errorf("state of the store %q, problem %q", got.State.Store, got.Problem)
	}
	for _, diff := range []string{
		cmp.Diff(kept.Desired, got.State.Desired), cmp.Diff(kept.Next, got.State.Next),
		cmp.Diff(kept.Watches, got.State.Watches), cmp.Diff(kept.Servers, got.State.Servers),
		cmp.Diff(kept.Revoked, got.State.Revoked),
		cmp.Diff(map[string]int{"stable": 2}, got.State.Images["compute"].Tags),
		cmp.Diff(1, got.State.Images["compute"].Current), cmp.Diff(2, len(got.State.Images["compute"].Versions)),
	} {
		if diff != "" {
			t.Error(diff)
		}
	}

	t.Run("what is there is not put again", func(t *testing.T) {
		testkit.Must(t, c.PutWatch(t.Context(), "compute", nil), f.Restore(t.Context(), c))
		if s := snapshot(t, c); len(s.Watches) > 0 || calls != 2 {
			t.Errorf("watches %v after %d calls", s.Watches, calls)
		}
	})
}

func TestTheDescriptionOfTheCommandLineIsAppliedOnce(t *testing.T) {
	t.Parallel()
	f, c := newFollower(t, larger()), openCoord(t)
	testkit.Must(t, f.Load())
	earlier := describe(t, small)
	earlier.Applied = earlier.Applied.Add(-time.Hour)
	testkit.Value(c.PutDescription(t.Context(), *earlier, 0))(t)
	testkit.Must(t, f.Restore(t.Context(), c))
	if got := snapshot(t, c).Description.Digest; got != describe(t, larger()).Digest {
		t.Error("it was not applied")
	}
	testkit.Value(c.PutDescription(t.Context(), *describe(t, small), -1))(t)
	testkit.Must(t, f.Restore(t.Context(), c))
	if got := snapshot(t, c).Description.Digest; got != describe(t, small).Digest {
		t.Error("it was applied again over one that came later")
	}
}

func TestADescriptionThatWasAppliedAfterTheFileWasChangedStays(t *testing.T) {
	t.Parallel()
	f, c := newFollower(t, larger()), openCoord(t)
	testkit.Must(t, f.Load())
	later := describe(t, small)
	later.Applied = later.Applied.Add(time.Hour)
	testkit.Value(c.PutDescription(t.Context(), *later, 0))(t)
	testkit.Must(t, f.Restore(t.Context(), c), f.Refresh(t.Context(), c))
	if got := snapshot(t, c).Description.Digest; got != later.Digest {
		t.Error("the file was applied over it")
	}
	if list := f.givenProblems(t.Context()); len(list) != 1 || !strings.Contains(list[0].Text, "was applied later") {
		t.Errorf("problems: %v", list)
	}
}

// The shared state has had another description since this server kept one, and the file would rename its nodes.
func TestAFileThatRenamesNodesIsNotApplied(t *testing.T) {
	t.Parallel()
	f, c := newFollower(t, larger()), openCoord(t)
	testkit.Must(t, f.Load())
	other := describe(t, strings.Replace(small, `name="n{`, `name="r{`, 1))
	other.Applied = other.Applied.Add(-time.Hour)
	testkit.Value(c.PutDescription(t.Context(), *other, 0))(t)
	testkit.Must(t, f.Restore(t.Context(), c), f.Refresh(t.Context(), c))
	if got := snapshot(t, c).Description.Digest; got != other.Digest || f.Now().Digest != got {
		t.Error("the file was applied")
	}
	const text = "it renames r01 to n01 and 3 other nodes"
	if list := f.givenProblems(t.Context()); len(list) != 1 || !strings.Contains(list[0].Text, text) {
		t.Errorf("problems: %v", list)
	}
}

func TestWhatCouldNotBeRestoredIsTriedAgain(t *testing.T) {
	t.Parallel()
	f := loaded(t, coord.State{})
	f.RestoreLater()
	f.restoreAgain(t.Context())
	if !f.incomplete.Load() {
		t.Error("nothing is to be restored any more, and there is no shared state yet")
	}
	f.coord = openCoord(t)
	f.setHealth(nil)
	fail := errors.New("no")
	f.OnRestore(func(context.Context, *coord.Coord, coord.State, coord.State) error { return fail })
	if f.restoreAgain(t.Context()); !f.incomplete.Load() {
		t.Error("nothing is to be restored any more after a failure")
	}
	fail = nil
	if f.restoreAgain(t.Context()); f.incomplete.Load() {
		t.Error("something is still to be restored")
	}
}
