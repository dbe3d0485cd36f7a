package daemon

import (
	"context"
	"fmt"
	"strings"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/liveness"
	"dim/internal/problems"
	"dim/internal/rollout"
)

// planned tells what a rollout would do.
func (d *daemon) planned(ctx context.Context, now *declared, r rollout.Rollout) (control.Rollout, error) {
	out := d.rolled(now, &r)
	out.State, out.Ring = "planned", 0
	follow := func(*cluster.Node) (image.Ref, bool) { return r.Ref(), r.When == rollout.Boot }
	return out, d.tellMoves(ctx, now, &r, &out, follow)
}

// plannedChange tells what a change of rollout id would do.
func (d *daemon) plannedChange(ctx context.Context, now *declared, id int, c *coord.Change) (control.Rollout, error) {
	after := *now
	after.state = c.Onto(now.state)
	r, ok, err := rollout.Load(after.state, id)
	if err != nil || !ok {
		return control.Rollout{}, err
	}
	out := d.rolled(&after, &r)
	if r.State == rollout.Running {
		out.Reason = ""
	}
	return out, d.tellMoves(ctx, now, &r, &out, func(n *cluster.Node) (image.Ref, bool) {
		ref, next := after.follows(n)
		if !next.IsZero() {
			return next, true
		}
		return ref, false
	})
}

// tellMoves adds to out which nodes of r would go from which version to which, when follow tells what each is to follow, and whether from its next
// boot on.
func (d *daemon) tellMoves(ctx context.Context, now *declared, r *rollout.Rollout, out *control.Rollout, follow func(*cluster.Node) (image.Ref, bool)) error {
	type move struct {
		from, to image.Ref
		boot     bool
	}
	for i, ring := range r.Rings {
		groups := map[move][]*cluster.Node{}
		var order []move
		for _, name := range ring.Nodes {
			n, ok := now.cluster.Node(cluster.NodeName(name))
			if !ok {
				continue
			}
			var m move
			m.from, _ = now.follows(n)
			if m.to, m.boot = follow(n); m.from == m.to && out.State != "planned" {
				continue
			}
			if groups[m] == nil {
				order = append(order, m)
			}
			groups[m] = append(groups[m], n)
		}
		for _, m := range order {
			told := control.RolloutMove{Nodes: cluster.Fold(groups[m]), Count: len(groups[m]), From: m.from.String(), To: m.to.String(), Boot: m.boot}
			if err := d.weigh(ctx, now, &told); err != nil {
				return err
			}
			out.Rings[i].Moves = append(out.Rings[i].Moves, told)
		}
	}
	return nil
}

// weigh tells what a move would change. A version that is not there changes nothing.
func (d *daemon) weigh(ctx context.Context, now *declared, m *control.RolloutMove) error {
	from, err := now.resolve(m.From)
	if err != nil {
		return nil
	}
	to, err := now.resolve(m.To)
	if err != nil {
		return err
	}
	if from.Digest == to.Digest {
		return nil
	}
	changes, err := d.compare.Changes(ctx, &from, &to)
	if m.Paths = len(changes); err != nil || m.Boot {
		return err
	}
	v, err := d.compare.Verdict(ctx, &from, &to)
	if err == nil {
		shown := meant(v)
		m.Verdict = &shown
	}
	return err
}

// rolloutNodes tells where each node of r is.
func (d *daemon) rolloutNodes(ctx context.Context, now *declared, r *rollout.Rollout) []control.RolloutNode {
	list := []control.RolloutNode{}
	for i, ring := range r.Rings {
		for _, name := range ring.Nodes {
			n := d.rolloutNode(now, r, i, name)
			if n.Verdict == current {
				d.judge(ctx, now, r, &n)
			}
			list = append(list, n)
		}
	}
	return list
}

func (d *daemon) rolloutNode(now *declared, r *rollout.Rollout, ring int, name string) control.RolloutNode {
	out := control.RolloutNode{Node: name, Ring: ring + 1}
	n, ok := now.cluster.Node(cluster.NodeName(name))
	if !ok {
		out.Verdict = "no longer in the description"
		return out
	}
	seen := d.node(now, n)
	out.Stage = seen.Stage
	x := d.exports.node(n.Name)
	if x != nil {
		out.Shows = x.fs.Version().Ref().String()
	}
	ref, next := now.follows(n)
	switch {
	case r.UnderWay() && ring > r.Ring:
		out.Verdict = fmt.Sprintf("waits for ring %d", ring+1)
	case next == r.Ref() && !d.showsVersion(name, r):
		out.Verdict = "changes when it boots"
	case !next.IsZero() && next != r.Ref():
		out.Verdict = "changes to " + next.String() + " when it boots"
	case next.IsZero() && ref != r.Ref():
		out.Verdict = "follows " + ref.String()
	case !d.mine(n):
		out.Verdict = fmt.Sprintf("unknown: %s, which serves it, has not reported", n.Servers[0].Name)
	case x != nil && !d.showsVersion(name, r) && d.liveness.State(n.Name).Booting:
		out.Verdict = "changes when its boot with " + out.Shows + " is over"
	case !d.showsVersion(name, r):
		out.Verdict = "not moved"
		if x == nil {
			out.Verdict = "not served here"
		}
		if why := d.wrong.Text(problems.Node(name)); why != "" {
			out.Verdict += ": " + why
		} else if why := d.wrong.Text(problems.Of(problems.KindReplicas)); why != "" {
			out.Verdict += ": " + why
		}
	default:
		out.Verdict = current
	}
	return out
}

// current is the verdict of a node that has nothing of another version.
const current = "current"

// judge tells what a node that shows the version still runs of the one before: nothing, when it was off or has booted since.
func (d *daemon) judge(ctx context.Context, now *declared, r *rollout.Rollout, out *control.RolloutNode) {
	s := d.liveness.State(cluster.NodeName(out.Node))
	if s.Stage == liveness.Off || s.Began.After(r.Rings[out.Ring-1].Declared) || r.When == rollout.Boot {
		return
	}
	from, ok := now.state.Resolve(r.Previous(out.Node))
	if !ok {
		return
	}
	to, ok := now.state.Resolve(r.Ref())
	if !ok {
		return
	}
	v, err := d.compare.Verdict(ctx, &from, &to)
	if err != nil {
		out.Verdict += ", but what it runs is not known: " + err.Error()
		return
	}
	restart, exact := d.restarts(out.Node)
	if out.Restart = restart; !exact {
		for _, s := range v.Restart {
			out.Restart = append(out.Restart, s.Unit)
		}
	}
	out.Exact, out.Reboot = exact, v.Reboot()
	switch {
	case out.Reboot:
		out.Verdict = "stale until reboot"
	case v.Init && len(out.Restart) == 0 && !exact:
		out.Verdict = "stale until restart of init"
	case len(out.Restart) > 0:
		out.Verdict = "stale until restart of " + few(out.Restart)
	}
}

// few names the first of many.
func few(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
