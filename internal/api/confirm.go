package api

import (
	"context"
	"slices"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/rollout"
)

// ConfirmNodes implements control.Backend. A node that does not show what it follows is not confirmed: it has yet to be
// moved.
func (api *API) ConfirmNodes(ctx context.Context, r control.ConfirmRequest) ([]control.ConfirmedNode, error) {
	before := api.Follow.Now()
	nodes, err := before.Select(r.Nodes)
	if err != nil {
		return nil, err
	}
	var moved rollout.Nodes
	for _, n := range nodes {
		ref, _ := before.Follows(n)
		if v, ok := before.State.Resolve(ref); ok && api.observed(before, string(n.Name)).shows == v.Ref() {
			moved = append(moved, string(n.Name))
		}
	}
	at := time.Now().UTC()
	decide := func(s coord.State) (coord.Change, error) { return moved.Confirm(s, at) }
	if !r.DryRun {
		if err := api.Driver.Confirm(ctx, moved, decide); err != nil {
			return nil, err
		}
	}
	change, err := decide(before.State)
	if err != nil {
		return nil, err
	}
	return api.confirmed(ctx, before, before.With(change.Onto(before.State)), nodes, at)
}

// confirmed compares what was known of nodes before a confirmation with what is known after it.
func (api *API) confirmed(
	ctx context.Context, before, after *follow.Declared, nodes []*cluster.Node, at time.Time,
) ([]control.ConfirmedNode, error) {
	list := make([]control.ConfirmedNode, len(nodes))
	now, err := after.Rollouts().List()
	if err != nil {
		return nil, err
	}
	was := make([]rollout.Rollout, len(now))
	for i := range now {
		if was[i], _, err = rollout.Load(before.State, now[i].ID); err != nil {
			return nil, err
		}
	}
	for i, n := range nodes {
		out := control.ConfirmedNode{
			Node: string(n.Name), Restart: []string{}, Reload: []string{},
			Verdict: "not confirmed: no rollout has moved it",
		}
		k := slices.IndexFunc(now, func(r rollout.Rollout) bool { return r.ConfirmedAt(out.Node).Equal(at) })
		if k >= 0 {
			old, is := api.judged(ctx, before, &was[k], out.Node), api.judged(ctx, after, &now[k], out.Node)
			out.Rollout, out.Verdict = now[k].ID, is.Verdict
			out.Restart = append(out.Restart, without(old.Restart, is.Restart)...)
			out.Reload = append(out.Reload, without(old.Reload, is.Reload)...)
		}
		list[i] = out
	}
	return list, nil
}

// without returns the elements of a that are not in b.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// judged returns how far one node of r is.
func (api *API) judged(
	ctx context.Context, now *follow.Declared, r *rollout.Rollout, node string,
) control.RolloutNode {
	ring := slices.IndexFunc(r.Rings, func(x rollout.Ring) bool { return slices.Contains(x.Nodes, node) })
	n := api.rolloutNode(now, r, ring, node)
	if n.Verdict == current {
		api.judge(ctx, now, r, &n)
	}
	return n
}
