package versions

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow/followtest"
	"dim/internal/image"
	"dim/internal/rollout"
	"dim/internal/testkit"
)

// tenVersions is a state in which compute has the versions 1 to 10, of which 1 is the current one.
func tenVersions() coord.State {
	im := &coord.Image{Last: 10, Current: 1, Tags: map[string]int{}}
	for i := range 10 {
		im.Versions = append(im.Versions, followtest.Version("compute", i+1))
	}
	return coord.State{Images: map[string]*coord.Image{"compute": im}, Rollouts: map[int]json.RawMessage{}}
}

// situation is a state, with what a Registry knows besides.
type situation struct {
	coord.State
	Options
	t *testing.T
}

// rollOut declares a rollout of n01; with a check it stays under way.
func (x *situation) rollOut(version int, check string) {
	x.t.Helper()
	r := rollout.Rollout{
		Image: "compute", Version: version, When: rollout.Now,
		Rings: []rollout.Ring{{Nodes: rollout.Nodes{"n01"}}},
	}
	r.Check = check
	_, c, err := r.Declare(x.State, nil, time.Now())
	testkit.Must(x.t, err)
	x.State = c.Onto(x.State)
}

func TestWhyAVersionMustStay(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*situation)
		want map[int]string // besides the current one
	}{
		{"nothing but the current one", func(*situation) {}, nil},
		{"a tag", func(x *situation) { x.Images["compute"].Versions[1].Tags = []string{"stable", "x"} },
			map[int]string{2: "it has the tag stable"}},
		{"a node follows it", func(x *situation) { x.Desired = coord.Refs{"n02": ref(3)} },
			map[int]string{3: "node n02 is to run it"}},
		{"not a node that the description does not have", func(x *situation) {
			x.Desired, x.Next = coord.Refs{"gone": ref(3)}, coord.Refs{"gone": ref(4)}
		}, nil},
		{"a node follows it from its next boot on, by a tag", func(x *situation) {
			x.Images["compute"].Tags["next"] = 4
			x.Next = coord.Refs{"n02": {Image: "compute", Tag: "next"}}
		}, map[int]string{4: "node n02 is to run it"}},
		{"a replica shows it", func(x *situation) { x.Replicas = &shown{followtest.Version("compute", 5)} },
			map[int]string{5: shownWhy}},
		{"it is mounted", func(x *situation) {
			x.Used = func() map[image.Ref]string { return map[image.Ref]string{ref(6): "it is mounted at /mnt"} }
		}, map[int]string{6: "it is mounted at /mnt"}},
		{"a rollout that is under way", func(x *situation) {
			x.Desired = coord.Refs{"n01": ref(7)}
			x.rollOut(8, "true")
		}, map[int]string{7: "an undo of rollout 1 leads back to it", 8: "node n01 is to run it"}},
		{"the last rollout, which has ended", func(x *situation) {
			x.Desired = coord.Refs{"n01": ref(7)}
			x.rollOut(8, "")
			delete(x.Desired, "n01")
		}, map[int]string{7: "an undo of rollout 1 leads back to it", 8: "rollout 1 leads to it"}},
		{"not an earlier one, which has ended", func(x *situation) {
			x.Desired = coord.Refs{"n01": ref(7)}
			x.rollOut(8, "")
			x.rollOut(9, "")
		}, map[int]string{8: "an undo of rollout 2 leads back to it", 9: "node n01 is to run it"}},
		{"the current one from before a rollout", func(x *situation) {
			x.rollOut(9, "")
			x.Images["compute"].Current = 10
		}, map[int]string{
			1: "an undo of rollout 1 leads back to it", 9: "node n01 is to run it",
			10: "it is the current one of compute",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			none := func() map[image.Ref]string { return nil }
			x := &situation{tenVersions(), Options{Replicas: &shown{}, Used: none}, t}
			tt.edit(x)
			used, err := New(x.Options).inUse(x.State, func(node string) bool { return node != "gone" })
			testkit.Must(t, err)
			want := inUse{ref(1): "it is the current one of compute"}
			for number, why := range tt.want {
				want[ref(number)] = why
			}
			if diff := cmp.Diff(want, used); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAVersionIsRemoved(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.publish("one", "two", "three")
	for _, tt := range []struct {
		name, ref string
		code      control.Code
		message   string
	}{
		{"one that is in use", "compute@1", control.Conflict, "it is the current one of compute"},
		{"one without a number", "compute", control.Invalid, "give its number, as in compute@3"},
		{"one that does not exist", "compute@9", control.NotFound, "compute@9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.Remove(t.Context(), tt.ref, control.RemoveRequest{})
			if code(t, err) != tt.code || !strings.Contains(err.Error(), tt.message) {
				t.Errorf("got %v, want %s: %s", err, tt.code, tt.message)
			}
		})
	}
	dry := testkit.Value(s.Remove(t.Context(), "compute@3", control.RemoveRequest{DryRun: true}))(t)
	s.check(t, []int{1, 2, 3}, []int{1, 2, 3})
	done := testkit.Value(s.Remove(t.Context(), "compute@3", control.RemoveRequest{}))(t)
	s.check(t, []int{1, 2}, []int{1, 2})
	if !dry.DryRun || dry.Objects == 0 || dry.Bytes == 0 {
		t.Errorf("a dry run: %+v", dry)
	}
	dry.DryRun = false
	if diff := cmp.Diff(dry, done); diff != "" || !slices.Equal(done.Versions, []string{"compute@3"}) {
		t.Errorf("a dry run finds something else (-): %s", diff)
	}
	if s.hasBlob("three") || !s.hasBlob("two") || !slices.Equal(s.gone, []image.Ref{ref(3)}) {
		t.Errorf("content of 3: %v, of 2: %v; Removed was called with %v", s.hasBlob("three"), s.hasBlob("two"), s.gone)
	}
}

func TestOldVersionsArePruned(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.publish("one", "two", "three", "four", "five")
	testkit.Must(t, s.coord.PutTag(t.Context(), "compute", "stable", 2), s.Follow.Refresh(t.Context(), s.coord))
	for _, tt := range []struct {
		request control.PruneRequest
		code    control.Code
	}{
		{control.PruneRequest{}, control.Invalid},
		{control.PruneRequest{Keep: 1, Image: "other"}, control.NotFound},
	} {
		if _, err := s.Prune(t.Context(), tt.request); code(t, err) != tt.code {
			t.Errorf("%+v: %v, want %s", tt.request, err, tt.code)
		}
	}
	kept := []control.KeptVersion{
		{Version: "compute@1", Why: "it is the current one of compute"},
		{Version: "compute@2", Why: "it has the tag stable"},
		{Version: "compute@4", Why: "it is one of the last 2"},
		{Version: "compute@5", Why: "it is the newest of compute"},
	}
	for _, dry := range []bool{true, false} {
		got, err := s.Prune(t.Context(), control.PruneRequest{Keep: 2, DryRun: dry})
		testkit.Must(t, err)
		if diff := cmp.Diff(kept, got.Kept); diff != "" || !slices.Equal(got.Versions, []string{"compute@3"}) {
			t.Errorf("dry %v: %v\n%s", dry, got.Versions, diff)
		}
		if s.hasBlob("three") != dry {
			t.Errorf("dry %v: the content of 3 is there: %v", dry, s.hasBlob("three"))
		}
	}
	s.check(t, []int{1, 2, 4, 5}, []int{1, 2, 4, 5})

	t.Run("while objects come in they stay, and the versions go", func(t *testing.T) {
		hold := testkit.Value(s.Store.Hold())(t)
		defer hold.Unlock()
		got, err := s.Prune(t.Context(), control.PruneRequest{Keep: 1})
		if code(t, err) != control.Busy || !slices.Equal(got.Versions, []string{"compute@4"}) || !s.hasBlob("four") {
			t.Errorf("got %v, %v; the content is there: %v", got.Versions, err, s.hasBlob("four"))
		}
		s.check(t, []int{1, 2, 5}, []int{1, 2, 5})
	})
}
