package rollout

import (
	"encoding/json"
	"testing"

	"dim/internal/coord"
)

func TestARecordIsParsedOnceForAllStatesThatHaveIt(t *testing.T) {
	record := func(text string) json.RawMessage { return json.RawMessage(text) }
	state := func(second string) coord.State {
		return coord.State{Rollouts: map[int]json.RawMessage{
			1: record(`{"id":1,"image":"compute","version":2,"rings":[{"nodes":"n[1-3]"}],"state":"done"}`),
			2: record(second),
		}}
	}
	const running = `{"id":2,"image":"compute","version":3,"rings":[{"nodes":"n[1-3]"}],"state":"running"}`
	load := func(r *Records, id int) *Ring {
		t.Helper()
		got, ok, err := r.Load(id)
		if !ok || err != nil {
			t.Fatalf("rollout %d: found %v, error %v", id, ok, err)
		}
		return &got.Rings[0]
	}
	first := new(Records).Of(state(running))
	if list, err := first.Active(); err != nil || len(list) != 1 || list[0].ID != 2 {
		t.Errorf("under way are %+v, error %v", list, err)
	}
	one, two := load(first, 1), load(first, 2)

	next := first.Of(state(`{"id":2,"image":"compute","version":3,"rings":[{"nodes":"n[1-3]"}],"state":"done"}`))
	if load(next, 1) != one {
		t.Error("a record that has not changed was parsed again")
	}
	if load(next, 2) == two {
		t.Error("a record that has changed is still the one before")
	}
	if list, err := next.Active(); err != nil || len(list) != 0 {
		t.Errorf("under way are %+v, error %v", list, err)
	}
	if _, ok, _ := next.Load(3); ok {
		t.Error("there is a rollout 3")
	}
}

func TestOutlinesDoNotReadTheNodes(t *testing.T) {
	r := new(Records).Of(coord.State{Rollouts: map[int]json.RawMessage{
		1: json.RawMessage(`{"id":1,"image":"compute","version":2,"rings":[{"nodes":"n["}],"state":"done"}`),
		2: json.RawMessage(`{`),
		3: json.RawMessage(`{"id":3,"image":"compute","version":4,"state":"paused","reason":"by hand"}`),
	}})
	list, err := r.Outlines()
	if err == nil || len(list) != 2 || list[0].ID != 3 || !list[0].UnderWay() ||
		list[1].Ref().String() != "compute@2" || list[1].UnderWay() {
		t.Errorf("the outlines are %+v, error %v", list, err)
	}
	if whole, err := r.List(); err == nil || len(whole) != 0 {
		t.Errorf("records with nodes that cannot be read, or without rings: %+v, error %v", whole, err)
	}
}
