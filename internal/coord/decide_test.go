package coord

import (
	"dim/internal/testkit"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func TestConcurrentDecisionsLoseNothing(t *testing.T) {
	c := open(t, t.TempDir())
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 1)))
	ends := make(chan error)
	const writers = 8
	for i := range writers {
		go func() {
			ends <- c.Decide(t.Context(), func(s State) (Change, error) {
				return Change{
					Desired:  Refs{fmt.Sprintf("n%d", i): {Image: "compute", Number: 1}},
					Rollouts: map[int]json.RawMessage{len(s.Rollouts) + 1: json.RawMessage(`{}`)},
				}, nil
			})
		}()
	}
	for range writers {
		testkit.Must(t, <-ends)
	}
	s := testkit.Value(c.Snapshot(t.Context()))(t)
	if len(s.Desired) != writers || len(s.Rollouts) != writers {
		t.Errorf("desired: %v, rollouts: %v", s.Desired, s.Rollouts)
	}
}

func TestADecisionIsRepeatedWhenTheStateChanges(t *testing.T) {
	c := open(t, t.TempDir())
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 1)))
	taken := errors.New("taken")
	asked := 0
	err := c.Decide(t.Context(), func(s State) (Change, error) {
		if asked++; asked == 1 { // another change is faster
			put(t, c, Change{Rollouts: map[int]json.RawMessage{1: json.RawMessage(`{}`)}})
		}
		if len(s.Rollouts) > 0 {
			return Change{}, taken
		}
		return Change{Rollouts: map[int]json.RawMessage{1: json.RawMessage(`{"mine":true}`)}}, nil
	})
	if err != taken || asked != 2 {
		t.Errorf("decided %d times: %v", asked, err)
	}
	err = c.Decide(t.Context(), func(State) (Change, error) {
		testkit.Must(t, c.PutTag(t.Context(), "compute", "stable", 1)) // each time
		return Change{Current: map[string]int{"compute": 1}}, nil
	})
	if !errors.Is(err, ErrConflict) {
		t.Errorf("against a change that is always faster: %v", err)
	}
}

func TestTheFirstVersionIsCurrentAndLaterOnesAreNot(t *testing.T) {
	c := open(t, t.TempDir())
	for n := 1; n <= 3; n++ {
		testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", n)))
		if v := followed(t, c); v != 1 {
			t.Errorf("after version %d nodes follow %d", n, v)
		}
	}
}

// A state that was made before there were current versions has none. Its nodes followed the newest version.
func TestNodesOfAnEarlierStateKeepTheirVersion(t *testing.T) {
	c := open(t, t.TempDir())
	for n := 1; n <= 3; n++ {
		testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", n)))
	}
	testkit.Value(c.txn(t.Context(), nil, []clientv3.Op{clientv3.OpDelete(c.imageKey("compute", "current"))}))(t)
	if v := followed(t, c); v != 3 {
		t.Errorf("nodes follow %d", v)
	}
	testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", 4)))
	if v := followed(t, c); v != 3 {
		t.Errorf("after a fourth version nodes follow %d", v)
	}
	path := t.TempDir() + "/state.json"
	s := testkit.Value(c.Snapshot(t.Context()))(t)
	s.Images["compute"].Current = 0
	testkit.Must(t, SaveState(path, s))
	kept := testkit.Value(LoadState(path))(t)
	if v, ok := kept.Images["compute"].Followed(); !ok || v.Number != 4 {
		t.Errorf("a kept state without a current version: nodes follow %+v", v)
	}
}

func followed(t *testing.T, c *Coord) int {
	t.Helper()
	s := testkit.Value(c.Snapshot(t.Context()))(t)
	v, ok := s.Images["compute"].Followed()
	if !ok {
		t.Error("there is no version to follow")
	}
	return v.Number
}

func TestHoldersOfLayersAreDecidedAndPutBack(t *testing.T) {
	c := open(t, t.TempDir())
	decide := func(change Change) State {
		t.Helper()
		testkit.Must(t, c.Decide(t.Context(), func(State) (Change, error) { return change, nil }))
		return testkit.Value(c.Snapshot(t.Context()))(t)
	}
	s := decide(Change{Layers: Holders{"n01": "is1", "n02": "is2"}, Leaving: Holders{"n01": "is2"}})
	if d := cmp.Diff(Holders{"n01": "is1", "n02": "is2"}, s.Layers); d != "" || s.Leaving["n01"] != "is2" {
		t.Errorf("%s; leaving %v", d, s.Leaving)
	}
	arrived := Change{Layers: Holders{"n01": "is2"}, Leaving: Holders{"n01": ""}}
	after := decide(arrived)
	if d := cmp.Diff(after.Layers, arrived.Onto(s).Layers); d != "" || len(after.Leaving) > 0 {
		t.Errorf("%s; leaving %v", d, after.Leaving)
	}
	lost := after.Declarations()
	if d := cmp.Diff(after.Layers, lost.Onto(State{}).Layers); d != "" {
		t.Error(d)
	}
}
