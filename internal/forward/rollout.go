package forward

import (
	"context"
	"slices"
	"sync"

	"dim/internal/cluster"
	"dim/internal/control"
)

// RolloutStatus implements control.Backend. The servers of the nodes know better than their reports what their nodes
// still run of the version before, and what was set aside there. Of those that do not answer the reports count.
func (b *Backend) RolloutStatus(ctx context.Context, id int) (control.Rollout, error) {
	out, err := b.Backend.RolloutStatus(ctx, id)
	if err != nil {
		return out, err
	}
	return b.completed(ctx, out), nil
}

// completed returns r with what other servers tell of their nodes.
func (b *Backend) completed(ctx context.Context, r control.Rollout) control.Rollout {
	look, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	at := map[cluster.ServerName]*control.Rollout{}
	for i := range r.States {
		if s, ok := b.serverOf(r.States[i].Node); ok {
			at[s] = &control.Rollout{}
		}
	}
	var calls sync.WaitGroup
	for s, answer := range at {
		calls.Go(func() { *answer, _ = b.at(s).RolloutStatus(look, r.ID) })
	}
	calls.Wait()
	told := map[string]*control.RolloutNode{}
	for s, answer := range at {
		for i := range answer.States {
			if n := &answer.States[i]; n.Server == string(s) {
				told[n.Node] = n
			}
		}
		r.Own = append(r.Own, answer.Own...)
	}
	r.States = slices.Clone(r.States)
	for i := range r.States {
		if n := told[r.States[i].Node]; n != nil {
			r.States[i] = *n
		}
	}
	return r
}
