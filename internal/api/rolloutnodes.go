package api

import (
	"context"
	"fmt"
	"strings"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/follow"
	"dim/internal/liveness"
	"dim/internal/problems"
	"dim/internal/rollout"
)

// rolloutNodes returns how far each node of r is.
func (api *API) rolloutNodes(ctx context.Context, now *follow.Declared, r *rollout.Rollout) []control.RolloutNode {
	list := []control.RolloutNode{}
	for i, ring := range r.Rings {
		for _, name := range ring.Nodes {
			n := api.rolloutNode(now, r, i, name)
			if n.Verdict == current {
				api.judge(ctx, now, r, &n)
			}
			list = append(list, n)
		}
	}
	return list
}

func (api *API) rolloutNode(now *follow.Declared, r *rollout.Rollout, ring int, name string) control.RolloutNode {
	out := control.RolloutNode{Node: name, Ring: ring + 1}
	n, ok := now.Cluster.Node(cluster.NodeName(name))
	if !ok {
		out.Verdict = "no longer in the description"
		return out
	}
	state := api.Liveness.State(n.Name)
	out.Stage = string(state.Stage)
	v, served := api.Serving.Shows(n.Name)
	if served {
		out.Shows = v.Ref().String()
	}
	shows := served && v.Ref() == r.Ref()
	ref, next := now.Follows(n)
	switch {
	case r.UnderWay() && ring > r.Ring:
		out.Verdict = fmt.Sprintf("waits for ring %d", ring+1)
	case next == r.Ref() && !shows:
		out.Verdict = "changes when it boots"
	case !next.IsZero() && next != r.Ref():
		out.Verdict = "changes to " + next.String() + " when it boots"
	case next.IsZero() && ref != r.Ref():
		out.Verdict = "follows " + ref.String()
	case !api.Serving.Serves(n):
		out.Verdict = fmt.Sprintf("unknown: %s, which serves it, has not reported", n.Servers[0].Name)
	case served && !shows && state.Booting:
		out.Verdict = "changes when its boot with " + out.Shows + " is over"
	case !shows:
		out.Verdict = "not moved"
		if !served {
			out.Verdict = "not served here"
		}
		if why := api.Problems.Text(problems.Node(name)); why != "" {
			out.Verdict += ": " + why
		} else if why := api.Problems.Text(problems.Of(problems.KindReplicas)); why != "" {
			out.Verdict += ": " + why
		}
	default:
		out.Verdict = current
	}
	return out
}

// current is the verdict of a node that uses nothing of another version.
const current = "current"

// judge adds what a node that shows the version still runs of the previous one: nothing when it was off or has booted
// since.
func (api *API) judge(ctx context.Context, now *follow.Declared, r *rollout.Rollout, out *control.RolloutNode) {
	s := api.Liveness.State(cluster.NodeName(out.Node))
	if s.Stage == liveness.Off || s.Began.After(r.Rings[out.Ring-1].Declared) || r.When == rollout.Boot {
		return
	}
	from, ok := now.State.Resolve(r.Previous(out.Node))
	if !ok {
		return
	}
	to, ok := now.State.Resolve(r.Ref())
	if !ok {
		return
	}
	v, err := api.Compare.Verdict(ctx, &from, &to)
	if err != nil {
		out.Verdict += ", but what it runs is not known: " + err.Error()
		return
	}
	restart, exact := api.restarts(out.Node)
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

// few returns the first names of a list.
func few(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
