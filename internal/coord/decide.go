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

// Change is what Decide puts, all at once. What is not in it stays as it is.
type Change struct {
	Desired  Refs                    // the zero Ref: the node follows the current version of its image from now on
	Next     Refs                    // the zero Ref: none
	Current  map[string]int          // image → number
	Last     map[string]int          // image → number that was given once; a lower one than is known changes nothing
	Rollouts map[int]json.RawMessage // by number; nil: it is forgotten
}

// Onto returns s as it would be after the change; s itself stays as it is.
func (c *Change) Onto(s State) State {
	s.Desired, s.Next = merged(s.Desired, c.Desired), merged(s.Next, c.Next)
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

// Decide puts what decide makes of the state as it is now. When anything that concerns rollouts was changed by another between the two,
// decide is asked again about the state as it is then: so it has to be a pure function, and two who decide at once do it one after the other. Its
// errors are returned as they are, and nothing is put; nor is it when the change is the zero Change.
func (c *Coord) Decide(ctx context.Context, decide func(State) (Change, error)) error {
	for range attempts {
		v, err := c.view(ctx)
		if err != nil {
			return fmt.Errorf("decide: %w", err)
		}
		s, err := v.state()
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
		r, err := c.txn(ctx, c.untouched(v.revision), ops)
		if err != nil {
			return fmt.Errorf("decide: %w", err)
		}
		if r.Succeeded {
			return nil
		}
	}
	return fmt.Errorf("decide: %w", ErrConflict)
}

// untouched is the condition that nobody has put anything that a decision may rest on since revision.
func (c *Coord) untouched(revision int64) []clientv3.Cmp {
	var when []clientv3.Cmp
	for _, key := range []string{"desired", "next", "rollouts/", "images/"} {
		when = append(when, clientv3.Compare(clientv3.ModRevision(c.prefix+key), "<", revision+1).WithPrefix())
	}
	return when
}

// ops writes the references of all nodes as one value: an etcd transaction takes 128 operations, and a rollout may have thousands of nodes.
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

func merged(all, change Refs) Refs {
	m := maps.Clone(all)
	if m == nil {
		m = Refs{}
	}
	maps.Copy(m, change)
	maps.DeleteFunc(m, func(_ string, ref image.Ref) bool { return ref.IsZero() })
	return m
}
