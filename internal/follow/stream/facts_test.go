package stream

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/testkit"
)

func TestAServerIsToldWhatChangesForIt(t *testing.T) {
	c, s := nodes(8), state(1)
	s.Layers = coord.Holders{}
	ref := image.Ref{Image: "compute", Number: 1}
	tests := []struct {
		name   string
		change func(*coord.State)
		told   bool
	}{
		{"nothing but the revision", func(*coord.State) {}, false},
		{"a number is reserved", func(s *coord.State) {
			im := *s.Images["compute"]
			im.Last, im.Reserved = 9, map[int]coord.Reservation{9: {Server: "head"}}
			s.Images = map[string]*coord.Image{"compute": &im}
		}, false},
		{"a master is watched", func(s *coord.State) { s.Watches = map[string]coord.Watch{"compute": {}} }, false},
		{"a node of another server", func(s *coord.State) { s.Desired = coord.Refs{"n0001": ref} }, false},
		{"the layer of a node of another server", func(s *coord.State) {
			s.Layers = coord.Holders{"n0001": "is3"}
		}, false},
		{"a layer that it has of a node of another server", func(s *coord.State) {
			s.Layers = coord.Holders{"n0001": "is1"}
		}, true},
		{"one of its nodes", func(s *coord.State) { s.Desired = coord.Refs{"n0002": ref} }, true},
		{"the layer of one of its nodes", func(s *coord.State) { s.Layers = coord.Holders{"n0002": "is2"} }, true},
		{"a rollout", func(s *coord.State) {
			s.Rollouts = map[int]json.RawMessage{1: json.RawMessage(`{"id":1}`)}
		}, true},
		{"a version", func(s *coord.State) { s.Images = state(2).Images }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, next := newHead(t), s
			next.Revision++
			tt.change(&next)
			h.stream.Adopt(s, c)
			before, _ := h.stream.now()
			h.stream.Adopt(next, c)
			after, _ := h.stream.now()
			at, then := before.position("is1"), after.position("is1")
			if at.says(&then) == tt.told {
				t.Errorf("it is told: %v, want %v", !tt.told, tt.told)
			}
		})
	}
}

func TestEveryFieldOfAStateCanChange(t *testing.T) {
	before, after := state(2), state(3)
	ref := image.Ref{Image: "compute", Number: 1}
	after.Description.Revision = 3
	after.Desired, after.Next = coord.Refs{"n0000": ref}, coord.Refs{"n0000": ref}
	after.Rollouts = map[int]json.RawMessage{1: json.RawMessage(`{"id":1}`)}
	after.Layers, after.Leaving = coord.Holders{"n0000": "is1"}, coord.Holders{"n0000": "is1"}
	after.Renaming = map[string]coord.Renaming{"n0000": {From: "n0001", ID: "1"}}
	after.Servers = map[string]coord.Server{"is1": {ID: "a"}}
	after.Revoked = map[string]coord.Revocation{"a": {Server: "is2"}}
	for i, of := 0, reflect.ValueOf(after); i < of.NumField(); i++ {
		switch name := of.Type().Field(i).Name; {
		case name == "Watches", name == "Superseded", name == "Store", name == "Restoring":
		case cmp.Equal(of.Field(i).Interface(), reflect.ValueOf(before).Field(i).Interface()):
			t.Errorf("the test does not change the field %s", name)
		}
	}
	change := func(from, to coord.State) (got coord.State) {
		t.Helper()
		p, next := testkit.Value(positionOf(from))(t), testkit.Value(positionOf(to))(t)
		set, removed := p.common.facts.with(p.nodes, nil).difference(next.common.facts.with(next.nodes, nil))
		_, got, err := p.apply(&message{
			Store: "s", From: from.Revision, Revision: to.Revision, Set: set, Removed: removed, Digest: next.digest(),
		})
		testkit.Must(t, err)
		return got
	}
	if diff := cmp.Diff(after, change(before, after)); diff != "" {
		t.Errorf("there (-want +got):\n%s", diff)
	}
	before.Revision = 4
	back := change(after, before)
	if len(back.Layers)+len(back.Leaving)+len(back.Renaming) > 0 {
		t.Errorf("layers that are gone are still there: %+v", back)
	}
	back.Layers, back.Leaving, back.Renaming = nil, nil, nil
	if diff := cmp.Diff(before, back); diff != "" {
		t.Errorf("and back (-want +got):\n%s", diff)
	}
}

func TestWhatAChangeIsNotAboutIsNotReadAgain(t *testing.T) {
	before := state(2)
	before.Desired = coord.Refs{"n0000": {Image: "compute", Number: 1}}
	p := testkit.Value(positionOf(before))(t)
	after := before
	after.Revision, after.Rollouts = 3, map[int]json.RawMessage{1: json.RawMessage(`{"id":1}`)}
	next := testkit.Value(positionOf(after))(t)
	set, removed := p.common.facts.difference(next.common.facts)
	_, got, err := p.apply(&message{
		Store: "s", From: 2, Revision: 3, Set: set, Removed: removed, Digest: next.digest(),
	})
	testkit.Must(t, err)
	if diff := cmp.Diff(after, got); diff != "" {
		t.Error(diff)
	}
	same := func(a, b any) bool { return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() }
	if got.Description != before.Description || got.Images["compute"] != before.Images["compute"] ||
		!same(got.Desired, before.Desired) || !same(got.Servers, before.Servers) {
		t.Error("what has not changed was read again")
	}
}

func TestFactsAreMadeAgainOfWhatHasChanged(t *testing.T) {
	var m maker
	s := state(1)
	s.Description, s.Servers = &coord.Description{Revision: 3}, map[string]coord.Server{"is1": {ID: "a"}}
	s.Images["gpu"] = &coord.Image{Current: 1}
	ref := image.Ref{Image: "compute", Number: 1}
	testkit.Value(m.position(s))(t)
	for _, step := range []struct {
		name   string
		change func(*coord.State)
		made   int
	}{
		{"nothing", func(*coord.State) {}, 0},
		{"one of two images", func(s *coord.State) {
			im := *s.Images["compute"]
			im.Versions = append(slices.Clip(im.Versions), image.Version{Image: "compute", Number: 9})
			s.Images = map[string]*coord.Image{"compute": &im, "gpu": s.Images["gpu"]}
		}, 1},
		{"what nodes follow", func(s *coord.State) { s.Desired = coord.Refs{"n0001": ref} }, 1},
		{"that no node has one of its own any more", func(s *coord.State) { s.Desired = coord.Refs{} }, 1},
		{"a server and a rollout", func(s *coord.State) {
			s.Servers = map[string]coord.Server{"is1": {ID: "b"}}
			s.Rollouts = map[int]json.RawMessage{1: json.RawMessage(`{"id":1,"hook":"x"}`)}
		}, 2},
		{"the description and an image are gone", func(s *coord.State) {
			s.Description, s.Images = nil, map[string]*coord.Image{"gpu": s.Images["gpu"]}
		}, 1},
	} {
		before := m.made
		s.Revision++
		step.change(&s)
		got, want := testkit.Value(m.position(s))(t), testkit.Value(positionOf(s))(t)
		if m.made-before != step.made {
			t.Errorf("%s: %d fields and images were read, want %d", step.name, m.made-before, step.made)
		}
		if got.digest() != want.digest() || !got.common.facts.equal(want.common.facts) || got.revision != s.Revision {
			t.Errorf("%s: %v, want %v", step.name, got, want)
		}
	}
}
