package forward

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"dim/internal/cluster"
	"dim/internal/cluster/nodeset"
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
	r.Own = merged(r.Own)
	r.States = slices.Clone(r.States)
	for i := range r.States {
		if n := told[r.States[i].Node]; n != nil {
			r.States[i] = *n
		}
	}
	return r
}

// Rollout implements control.Backend. What a dry run says of the nodes of other servers is from these servers.
func (b *Backend) Rollout(ctx context.Context, r control.RolloutRequest) (control.Rollout, error) {
	out, err := b.Backend.Rollout(ctx, r)
	if err == nil && r.DryRun {
		b.addPreview(ctx, &out)
	}
	return out, err
}

// ChangeRollout implements control.Backend, as Rollout does.
func (b *Backend) ChangeRollout(ctx context.Context, id int, c control.RolloutChange) (control.Rollout, error) {
	out, err := b.Backend.ChangeRollout(ctx, id, c)
	if err == nil && c.DryRun {
		b.addPreview(ctx, &out)
	}
	return out, err
}

// addPreview adds to a planned rollout what it would set aside on nodes of other servers. Of servers that cannot tell
// it says so.
func (b *Backend) addPreview(ctx context.Context, r *control.Rollout) {
	at := map[cluster.ServerName]*preview{}
	for _, ring := range r.Rings {
		for _, m := range ring.Moves {
			if m.From != m.To {
				b.addMove(at, m)
			}
		}
	}
	look, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(askedAtOnce)
	for s, p := range at {
		g.Go(func() error {
			p.ask.OnConflict = r.OnConflict
			var err error
			if p.own, err = b.at(s).PreviewOwn(look, p.ask); err != nil {
				p.own = []control.OwnChanges{{
					Nodes: cluster.Fold(p.nodes), Count: len(p.nodes), Unknown: err.Error(),
				}}
			}
			return nil
		})
	}
	_ = g.Wait()
	for _, s := range slices.Sorted(maps.Keys(at)) {
		r.Own = append(r.Own, at[s].own...)
	}
	r.Own = merged(r.Own)
}

// preview is what one other server is asked, and what it answers.
type preview struct {
	ask   control.PreviewRequest
	nodes []*cluster.Node
	own   []control.OwnChanges
}

// addMove divides the nodes of a move that other servers serve by their servers.
func (b *Backend) addMove(at map[cluster.ServerName]*preview, m control.RolloutMove) {
	list, _, err := b.others(m.Nodes)
	if err != nil {
		return // the nodes are of this description
	}
	for _, s := range list {
		if at[s.server] == nil {
			at[s.server] = &preview{}
		}
		p := at[s.server]
		p.ask.Moves = append(p.ask.Moves, control.PreviewMove{Nodes: cluster.Fold(s.nodes), To: m.To})
		p.nodes = append(p.nodes, s.nodes...)
	}
}

// merged joins what nodes of several servers have in common, in the order of the first ones.
func merged(list []control.OwnChanges) (out []control.OwnChanges) {
	at := map[string]int{}
	for _, o := range list {
		key := fmt.Sprintf("%q", [][]string{o.Packages, o.Accounts, o.Notes, {o.Left, o.Kept, o.Unknown}})
		i, known := at[key]
		if !known {
			at[key], out = len(out), append(out, o)
			continue
		}
		same := &out[i]
		nodes, err := nodeset.Expand(same.Nodes+","+o.Nodes, nodeset.Options{})
		if err != nil {
			out = append(out, o)
			continue
		}
		same.Nodes, same.Count, same.Paths = nodeset.Fold(nodes), same.Count+o.Count, same.Paths+o.Paths
	}
	return out
}
