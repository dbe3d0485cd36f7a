package api

import (
	"context"
	"fmt"
	"strings"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/follow"
	"dim/internal/layers"
	"dim/internal/liveness"
	"dim/internal/problems"
	"dim/internal/rollout"
	"dim/internal/verdict"
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
	case next == r.Ref() && !shows && api.Serving.Left(n.Name) != "":
		out.Verdict = "not moved because of its packages"
	case next == r.Ref() && !shows:
		out.Verdict = "changes when it boots"
	case !next.IsZero() && next != r.Ref():
		out.Verdict = "changes to " + next.String() + " when it boots"
	case next.IsZero() && ref != r.Ref():
		out.Verdict = "follows " + ref.String()
	case !api.Serving.Serves(n):
		out.Verdict = fmt.Sprintf("unknown: %s, which serves it, has not reported", n.Server().Name)
	case served && !shows && state.Booting:
		out.Verdict = "changes when its boot with " + out.Shows + " is over"
	case !shows && api.Serving.Left(n.Name) != "":
		out.Verdict = "not moved because of its packages"
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
	declared := r.Rings[out.Ring-1].Declared
	s := api.Liveness.State(cluster.NodeName(out.Node))
	if s.Stage != liveness.Off && !s.Began.After(declared) && r.When != rollout.Boot {
		api.judgeRunning(out, &v, declared)
		if s.Stage == liveness.Silent && out.Verdict != current {
			out.Verdict = "if it still runs, " + out.Verdict
		}
	}
	if out.Old = api.outdated(out.Node, &v, declared); len(out.Old) > 0 {
		out.Verdict += "; " + strings.Join(out.Old, "; ")
	}
}

// judgeRunning is judge for a node that has run since before the switch.
func (api *API) judgeRunning(out *control.RolloutNode, v *verdict.Verdict, declared time.Time) {
	restart, exact := api.restarts(out.Node)
	if out.Restart = restart; !exact {
		for _, s := range v.Restart {
			out.Restart = append(out.Restart, s.Unit)
		}
	}
	for _, r := range v.Reload {
		out.Reload = append(out.Reload, r.Command)
	}
	out.Exact, out.Reboot = exact, v.Reboot()
	restarts := len(out.Restart) > 0 || v.Init && !exact
	switch {
	case out.Reboot:
		out.Verdict = "stale until reboot"
		return
	case v.Init && len(out.Restart) == 0 && !exact:
		out.Verdict = "stale until restart of init"
	case restarts:
		out.Verdict = "stale until restart of " + few(out.Restart)
	}
	if len(out.Reload) > 0 {
		out.Verdict += ", effective after " + few(out.Reload)
	}
	if restarts && !exact || len(out.Reload) > 0 {
		out.AsOf = declared // whether it was done since is not known
	}
}

// outdated lists the files of a node's own that are older than what they describe. They outlive a reboot.
func (api *API) outdated(node string, v *verdict.Verdict, declared time.Time) []string {
	served, ok := api.Serving.Node(cluster.NodeName(node))
	if !ok || served.Replica == nil {
		return nil
	}
	own := layers.Of(served.Replica)
	var list []string
	if v.Library && own.HasOlderFile("etc/ld.so.cache", declared) {
		list = append(list, "its own /etc/ld.so.cache is older than the libraries: run ldconfig")
	}
	for _, p := range []string{"etc/.updated", "var/.updated"} {
		if !v.Usr.IsZero() && own.HasOlderFile(p, v.Usr) {
			list = append(list,
				"its own /"+p+" is older than /usr: units with ConditionNeedsUpdate= run at the next boot")
		}
	}
	return list
}

// few returns the first names of a list.
func few(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
