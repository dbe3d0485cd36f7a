package follow

import (
	"encoding/json"
	"reflect"
	"testing"

	"dim/internal/coord"
	"dim/internal/image"
)

func TestEveryFieldOfAStateIsComparedBeforeItIsKept(t *testing.T) {
	other := coord.State{
		Store: "b", Restoring: true, Description: &coord.Description{Revision: 1},
		Images:   map[string]*coord.Image{"compute": {Current: 1}},
		Desired:  coord.Refs{"n01": {Image: "compute", Number: 1}},
		Next:     coord.Refs{"n01": {Image: "compute", Number: 1}},
		Rollouts: map[int]json.RawMessage{1: json.RawMessage(`{}`)}, Watches: map[string]coord.Watch{"compute": {}},
		Layers: coord.Holders{"n01": "is1"}, Leaving: coord.Holders{"n01": "is1"},
		Renaming: map[string]coord.Renaming{"n01": {From: "n02"}},
		Servers:  map[string]coord.Server{"is1": {ID: "a"}}, Revoked: map[string]coord.Revocation{"a": {}},
		Superseded: coord.Revocation{Server: "head2"},
	}
	of := reflect.TypeFor[coord.State]()
	for i := range of.NumField() {
		name := of.Field(i).Name
		want := otherContent
		switch name {
		case "Revision":
			continue
		case "Rollouts":
			want = moreRecords
		}
		old, now := &Declared{State: coord.State{Store: "a", Revision: 1}}, &Declared{State: coord.State{Store: "a"}}
		value := reflect.ValueOf(other).Field(i)
		if value.IsZero() {
			t.Errorf("the test does not know the field %s", name)
		}
		reflect.ValueOf(&now.State).Elem().Field(i).Set(value)
		if got := now.extent(old); got != want {
			t.Errorf("another value of %s: %d, want %d", name, got, want)
		}
	}
	old := &Declared{State: coord.State{Store: "a", Revision: 1, Images: map[string]*coord.Image{"compute": {}}}}
	version := image.Version{Image: "compute", Number: 1}
	now := &Declared{State: old.State}
	now.State.Images = map[string]*coord.Image{"compute": {Versions: []image.Version{version}}}
	if got := now.extent(old); got != otherContent {
		t.Errorf("a version that nodes follow because none is declared: %d", got)
	}
}
