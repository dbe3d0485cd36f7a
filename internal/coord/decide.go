package coord

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"

	clientv3 "go.etcd.io/etcd/client/v3"

	"dim/internal/image"
)

// Change is a set of changes that Decide makes in one transaction. What is not in it stays unchanged.
type Change struct {
	Desired  Refs                    // the zero Ref: the node follows the current version of its image from now on
	Next     Refs                    // the zero Ref: none
	Current  map[string]int          // image → number
	Last     map[string]int          // image → number that was given; one below the known number changes nothing
	Rollouts map[int]json.RawMessage // by number; nil: the record is removed

	Layers, Leaving Holders             // "": the node is removed
	Renaming        map[string]Renaming // by the new name; the zero Renaming: it is complete
}

// Onto returns s with the change. It does not modify s.
func (c *Change) Onto(s State) State {
	s.Desired, s.Next = merged(s.Desired, c.Desired), merged(s.Next, c.Next)
	s.Layers, s.Leaving = s.Layers.with(c.Layers), s.Leaving.with(c.Leaving)
	s.Renaming = withRenaming(s.Renaming, c.Renaming)
	s.Images, s.Rollouts = maps.Clone(s.Images), maps.Clone(s.Rollouts)
	for name, number := range c.Current {
		if im, ok := s.Images[name]; ok {
			changed := *im
			changed.Current = number
			s.Images[name] = &changed
		}
	}
	for name, number := range c.Last {
		if im, ok := s.Images[name]; ok && number > im.Last {
			changed := *im
			changed.Last = number
			s.Images[name] = &changed
		}
	}
	for id, value := range c.Rollouts {
		if s.Rollouts[id] = value; value == nil {
			delete(s.Rollouts, id)
		}
	}
	return s
}

// Declarations returns a change that declares again what s declares for nodes and images, after the state was lost.
func (s State) Declarations() Change {
	c := Change{
		Desired: maps.Clone(s.Desired), Next: maps.Clone(s.Next), Current: map[string]int{},
		Rollouts: map[int]json.RawMessage{}, Layers: maps.Clone(s.Layers), Leaving: maps.Clone(s.Leaving),
		Renaming: maps.Clone(s.Renaming),
	}
	maps.Copy(c.Rollouts, s.Rollouts)
	for name, im := range s.Images {
		if v, ok := im.Followed(); ok {
			c.Current[name] = v.Number
		}
	}
	return c
}

// Decide calls decide with the present state and makes the change that it returns. If rollouts, references or images
// change in the meantime, Decide calls decide again with the new state. So decide must be a pure function, and of two
// concurrent decisions one sees the result of the other. Errors of decide are returned unwrapped, and change nothing.
func (c *Coord) Decide(ctx context.Context, decide func(State) (Change, error)) error {
	for range attempts {
		s, _, err := c.present(ctx)
		if err != nil {
			return fmt.Errorf("decide: %w", err)
		}
		change, err := decide(s)
		if err != nil {
			return err
		}
		ops, err := c.ops(&s, &change)
		if err != nil || len(ops) == 0 {
			return err
		}
		r, err := c.txn(ctx, c.unchangedSince(s.Revision), ops)
		if err != nil {
			return fmt.Errorf("decide: %w", err)
		}
		if r.Succeeded {
			return nil
		}
	}
	return fmt.Errorf("decide: %w", ErrConflict)
}

// unchangedSince is the condition that nothing that decisions depend on was put since revision.
func (c *Coord) unchangedSince(revision int64) []clientv3.Cmp {
	var when []clientv3.Cmp
	for _, key := range []string{"desired", "next", "rollouts/", "images/", "layers", "leaving", "renaming"} {
		when = append(when, clientv3.Compare(clientv3.ModRevision(c.prefix+key), "<", revision+1).WithPrefix())
	}
	return when
}

// ops returns the operations of a change. The references of all nodes are one value, because a transaction of etcd is
// limited to 128 operations and a rollout may have thousands of nodes.
func (c *Coord) ops(s *State, change *Change) ([]clientv3.Op, error) {
	var ops []clientv3.Op
	var errs []error
	put := func(key string, v any) {
		b, err := json.Marshal(v)
		errs = append(errs, err)
		ops = append(ops, clientv3.OpPut(c.prefix+key, string(b)))
	}
	if len(change.Desired) > 0 {
		put("desired", merged(s.Desired, change.Desired))
	}
	if len(change.Next) > 0 {
		put("next", merged(s.Next, change.Next))
	}
	if len(change.Layers) > 0 {
		put("layers", s.Layers.with(change.Layers))
	}
	if len(change.Leaving) > 0 {
		put("leaving", s.Leaving.with(change.Leaving))
	}
	if len(change.Renaming) > 0 {
		put("renaming", withRenaming(s.Renaming, change.Renaming))
	}
	for name, number := range change.Current {
		ops = append(ops, clientv3.OpPut(c.imageKey(name, "current"), strconv.Itoa(number)))
	}
	for name, number := range change.Last {
		if im := s.Images[name]; im == nil || number > im.Last {
			ops = append(ops, clientv3.OpPut(c.imageKey(name, "last"), strconv.Itoa(number)))
		}
	}
	for id, value := range change.Rollouts {
		key := fmt.Sprintf("rollouts/%08d", id)
		if value == nil {
			ops = append(ops, clientv3.OpDelete(c.prefix+key))
			continue
		}
		put(key, value)
	}
	return ops, errors.Join(errs...)
}

// merged returns refs with a change, without the zero Refs.
func merged(refs, change Refs) Refs {
	m := maps.Clone(refs)
	if m == nil {
		m = Refs{}
	}
	maps.Copy(m, change)
	maps.DeleteFunc(m, func(_ string, ref image.Ref) bool { return ref.IsZero() })
	return m
}
