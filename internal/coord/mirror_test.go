package coord

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"dim/internal/image"
	"dim/internal/testkit"
)

func TestAStateThatWasBroughtForwardIsTheSameAsOneReadAnew(t *testing.T) {
	c := open(t, t.TempDir())
	states := make(chan State, 1000) // more than there are changes
	watching, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Watch(watching, State{}, func(s State) error { states <- s; return nil }) }()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range 60 {
		changeAnything(t, c, random, i)
		if i%3 > 0 {
			continue // several changes are read together
		}
		got := testkit.Value(c.Snapshot(t.Context()))(t)
		if diff := cmp.Diff(anew(t, c), got); diff != "" {
			t.Fatalf("after change %d:\n%s", i, diff)
		}
	}
	want := anew(t, c)
	for s := range states {
		if s.Revision >= want.Revision {
			if diff := cmp.Diff(want, s); diff != "" {
				t.Errorf("by the watch:\n%s", diff)
			}
			break
		}
	}
	end()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// anew reads all keys, and decodes all.
func anew(t *testing.T, c *Coord) State {
	t.Helper()
	r := testkit.Value(c.txn(t.Context(), nil, c.changesSince(0)))(t)
	var m mirror
	s, _, err := m.take(r, 0, c.prefix)
	testkit.Must(t, err)
	return s
}

// changeAnything makes one change of any kind.
func changeAnything(t *testing.T, c *Coord, random *rand.Rand, i int) {
	t.Helper()
	ctx, name := t.Context(), fmt.Sprint("image", random.IntN(3))
	number := func() int { return 1 + random.IntN(4) }
	switch random.IntN(11) {
	case 0:
		testkit.Value(c.ReserveVersion(ctx, name, fmt.Sprint("is", random.IntN(2))))(t)
	case 1, 2:
		v := someVersion(name, testkit.Value(c.ReserveVersion(ctx, name, "head"))(t))
		testkit.Must(t, c.PutVersion(ctx, v))
	case 3:
		_ = c.PutTag(ctx, name, "stable", number()) // there may be no such version
	case 4:
		testkit.Value(c.RemoveVersions(ctx, func(s State) (list []image.Ref, err error) {
			if all := s.Images[name].All(); len(all) > 0 {
				list = append(list, all[random.IntN(len(all))].Ref())
			}
			return list, nil
		}))(t)
	case 5:
		testkit.Value(c.PutDescription(ctx, someDescription(fmt.Sprint(i)), -1))(t)
		testkit.Must(t, c.Supersede(ctx, Revocation{Server: fmt.Sprint(i)}))
	case 6:
		var w *Watch
		if random.IntN(2) == 0 {
			w = &Watch{Server: "head", Debounce: time.Duration(i)}
		}
		testkit.Must(t, c.PutWatch(ctx, name, w))
	case 7:
		testkit.Must(t, c.PutServer(ctx, fmt.Sprint("is", random.IntN(3)), Server{ID: fmt.Sprint(i)}))
	case 8:
		_ = c.RemoveServer(ctx, fmt.Sprint("is", random.IntN(3))) // there may be no such server
	case 9:
		keys := testkit.Value(c.read(ctx, c.prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly()))(t).Kvs
		key := string(keys[random.IntN(len(keys))].Key)
		testkit.Value(c.txn(ctx, nil, []clientv3.Op{clientv3.OpDelete(key)}))(t)
	default:
		node := fmt.Sprint("n", random.IntN(3))
		testkit.Must(t, c.Decide(ctx, func(State) (Change, error) {
			return Change{
				Desired: Refs{node: {Image: name, Number: random.IntN(3)}}, Layers: Holders{node: fmt.Sprint("is", i)},
				Rollouts: map[int]json.RawMessage{number(): json.RawMessage(fmt.Sprint(i))},
				Current:  map[string]int{name: number()},
			}, nil
		}))
	}
}

func TestAChangeDecodesWhatHasChanged(t *testing.T) {
	c := open(t, t.TempDir())
	testkit.Value(c.PutDescription(t.Context(), someDescription("large"), 0))(t)
	refs := Refs{}
	for i := range 10000 {
		refs[fmt.Sprint("n", i)] = image.Ref{Image: "compute", Number: 1}
	}
	put(t, c, Change{Desired: refs})
	for n := range 50 {
		testkit.Must(t, c.PutVersion(t.Context(), someVersion("compute", n+1)))
	}
	before := testkit.Value(c.Snapshot(t.Context()))(t)
	decoded := c.mirror.decoded
	testkit.Value(c.ReserveVersion(t.Context(), "compute", "head"))(t)
	after := testkit.Value(c.Snapshot(t.Context()))(t)
	if n := c.mirror.decoded - decoded; n != 2 {
		t.Errorf("%d keys were decoded for a reservation, which puts 2", n)
	}
	if after.Description != before.Description || len(after.Images["compute"].Reserved) != 1 {
		t.Error("what the change was not about is another value, or the reservation is not there")
	}
	if len(before.Images["compute"].Reserved) != 0 {
		t.Error("the state before has changed")
	}
}
