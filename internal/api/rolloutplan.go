package api

import (
	"context"
	"slices"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/rollout"
)

// planned returns what a rollout would do.
func (api *API) planned(ctx context.Context, now *follow.Declared, r rollout.Rollout) (control.Rollout, error) {
	out := api.rollout(now, &r)
	out.State, out.Ring = "planned", 0
	to := func(*cluster.Node) (image.Ref, bool) { return r.Ref(), r.When == rollout.Boot }
	moves := movesOf(now, &r, to)
	if err := api.addMoves(ctx, now, &out, moves); err != nil {
		return out, err
	}
	return out, api.addPreview(ctx, now, &out, moves)
}

// plannedChange returns what a change of rollout id would do.
func (api *API) plannedChange(
	ctx context.Context, now *follow.Declared, id int, c *coord.Change,
) (control.Rollout, error) {
	after := now.With(c.Onto(now.State))
	r, ok, err := after.Rollouts().Load(id)
	if err != nil || !ok {
		return control.Rollout{}, err
	}
	out := api.rollout(after, &r)
	if r.State == rollout.Running {
		out.Reason = ""
	}
	moves := movesOf(now, &r, func(n *cluster.Node) (image.Ref, bool) {
		ref, next := after.Follows(n)
		if !next.IsZero() {
			return next, true
		}
		return ref, false
	})
	for i := range moves {
		moves[i] = slices.DeleteFunc(moves[i], func(m move) bool { return m.from == m.to })
	}
	if err := api.addMoves(ctx, now, &out, moves); err != nil {
		return out, err
	}
	return out, api.addPreview(ctx, now, &out, moves)
}

// move is what some nodes of a ring do.
type move struct {
	from, to image.Ref
	boot     bool // from their next boot on
	nodes    []*cluster.Node
}

// movesOf returns the moves of each ring of r, given what each node is to follow, and whether from its next boot on.
func movesOf(now *follow.Declared, r *rollout.Rollout, to func(*cluster.Node) (image.Ref, bool)) [][]move {
	rings := make([][]move, len(r.Rings))
	for i, ring := range r.Rings {
		for _, name := range ring.Nodes {
			n, ok := now.Cluster.Node(cluster.NodeName(name))
			if !ok {
				continue
			}
			m := move{nodes: []*cluster.Node{n}}
			m.from, _ = now.Follows(n)
			m.to, m.boot = to(n)
			same := slices.IndexFunc(rings[i], func(x move) bool {
				return x.from == m.from && x.to == m.to && x.boot == m.boot
			})
			if same < 0 {
				rings[i] = append(rings[i], m)
				continue
			}
			rings[i][same].nodes = append(rings[i][same].nodes, n)
		}
	}
	return rings
}

// addMoves adds the moves of each ring to out, with what they change.
func (api *API) addMoves(ctx context.Context, now *follow.Declared, out *control.Rollout, rings [][]move) error {
	for i, moves := range rings {
		for _, m := range moves {
			shown := control.RolloutMove{
				Nodes: cluster.Fold(m.nodes), Count: len(m.nodes), From: m.from.String(), To: m.to.String(),
				Boot: m.boot,
			}
			if err := api.weigh(ctx, now, &shown); err != nil {
				return err
			}
			out.Rings[i].Moves = append(out.Rings[i].Moves, shown)
		}
	}
	return nil
}

// weigh adds what a move would change. A version that does not exist changes nothing.
func (api *API) weigh(ctx context.Context, now *follow.Declared, m *control.RolloutMove) error {
	from, err := now.Resolve(m.From)
	if err != nil {
		return nil
	}
	to, err := now.Resolve(m.To)
	if err != nil {
		return err
	}
	if from.Digest == to.Digest {
		return nil
	}
	changes, err := api.Compare.Changes(ctx, &from, &to)
	if m.Paths = len(changes); err != nil || m.Boot {
		return err
	}
	v, err := api.Compare.Verdict(ctx, &from, &to)
	if err == nil {
		shown := meant(v)
		m.Verdict = &shown
	}
	return err
}
