package api

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"dim/internal/cluster"
	"dim/internal/cluster/nodeset"
	"dim/internal/control"
	"dim/internal/fleet"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/layers"
	"dim/internal/liveness"
	"dim/internal/problems"
	"dim/internal/quantity"
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
	out.Server = string(n.Server().Name)
	seen := api.observed(now, name)
	out.Stage = seen.stage
	served := !seen.shows.IsZero()
	if served {
		out.Shows = seen.shows.String()
	}
	shows := seen.shows == r.Ref()
	ref, next := now.Follows(n)
	switch {
	case r.UnderWay() && r.Prefetching():
		out.Verdict = "waits until the servers have the version"
	case r.UnderWay() && ring > r.Ring:
		out.Verdict = fmt.Sprintf("waits for ring %d", ring+1)
	case next == r.Ref() && !shows && seen.left:
		out.Verdict = "not moved because of its packages"
	case next == r.Ref() && !shows:
		out.Verdict = "changes when it boots"
	case !next.IsZero() && next != r.Ref():
		out.Verdict = "changes to " + next.String() + " when it boots"
	case next.IsZero() && ref != r.Ref():
		out.Verdict = "follows " + ref.String()
	case !seen.known:
		out.Verdict = fmt.Sprintf("unknown: %s, which serves it, has not reported", out.Server)
	case !shows && seen.silent:
		out.Verdict = fmt.Sprintf("unknown: %s, which serves it, is silent", out.Server)
	case served && !shows && seen.booting:
		out.Verdict = "changes when its boot with " + out.Shows + " is over"
	case !shows && seen.left:
		out.Verdict = "not moved because of its packages"
	case !shows:
		out.Verdict = "not moved"
		if !served {
			out.Verdict = "not served"
		}
		if seen.problem != "" {
			out.Verdict += ": " + seen.problem
		}
	default:
		out.Verdict = current
	}
	return out
}

// observation is what is known of a node, by this server or by the last report of the one that serves it.
type observation struct {
	known   bool
	silent  bool // the other server has not reported lately
	shows   image.Ref
	stage   string
	began   time.Time // when its last boot began; zero: not known
	booting bool
	left    bool // it stays because of its packages
	problem string
}

func (api *API) observed(now *follow.Declared, name string) observation {
	n, ok := now.Cluster.Node(cluster.NodeName(name))
	if !ok {
		return observation{}
	}
	if why, _ := now.Stranded(n); why != "" {
		return observation{known: true, problem: why, stage: api.stage(n)}
	}
	if n.Server().Name != api.Server {
		said, at, ok := api.Fleet.Node(n)
		if !ok {
			return observation{stage: stageUnknown}
		}
		return observation{
			known: true, silent: !fleet.Fresh(at), shows: said.Shows, stage: said.Stage, began: said.Began,
			booting: said.Booting, left: said.Left != "", problem: said.Problem,
		}
	}
	state := api.Liveness.State(n.Name)
	out := observation{
		known: true, stage: string(state.Stage), began: state.Began, booting: state.Booting,
		left:    api.Serving.Left(n.Name) != "",
		problem: api.Problems.Text(problems.Node(n.Name)),
	}
	out.problem = cmp.Or(out.problem, api.Problems.Text(problems.Of(problems.KindReplicas)))
	if v, ok := api.Serving.Shows(n.Name); ok {
		out.shows = v.Ref()
	}
	return out
}

// stragglers groups the nodes of a rollout that do not show its version by their server and the reason.
func stragglers(r *rollout.Rollout, list []control.RolloutNode) []control.Stragglers {
	type group struct{ server, why string }
	nodes := map[group][]string{}
	var order []group
	for i := range list {
		n := &list[i]
		if n.Shows == r.Ref().String() || r.Prefetching() || n.Ring > r.Ring+1 || n.Server == "" {
			continue
		}
		g := group{n.Server, n.Verdict}
		if nodes[g] == nil {
			order = append(order, g)
		}
		nodes[g] = append(nodes[g], n.Node)
	}
	slices.SortStableFunc(order, func(a, b group) int { return strings.Compare(a.server, b.server) })
	out := make([]control.Stragglers, len(order))
	for i, g := range order {
		out[i] = control.Stragglers{
			Server: g.server, Nodes: nodeset.Fold(nodes[g]), Count: len(nodes[g]), Why: g.why,
		}
	}
	return out
}

// current is the verdict of a node that uses nothing of another version.
const current = "current"

// notKnown is what a verdict says before the reason for which it is incomplete.
const notKnown = ", but what it runs is not known: "

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
		out.Verdict += notKnown + err.Error()
		return
	}
	declared := r.Rings[out.Ring-1].Declared
	s := api.observed(now, out.Node)
	if s.stage != string(liveness.Off) && !s.began.After(declared) && r.When != rollout.Boot {
		confirmed := r.ConfirmedAt(out.Node)
		if !confirmed.After(declared) {
			confirmed = time.Time{}
		}
		judgeRunning(out, &v, evidence{api.report(out.Node), declared, confirmed})
		if s.stage == string(liveness.Silent) && out.Verdict != current {
			out.Verdict = "if it still runs, " + out.Verdict
		}
	}
	if out.Old = api.outdated(out.Node, &v, declared); len(out.Old) > 0 {
		out.Verdict += "; " + strings.Join(out.Old, "; ")
	}
}

// source is where a part of the verdict of a node that has run since before the switch comes from.
//
//	source       the part names                  the verdict has the time
//	byDeduction  all that the versions differ in of the switch, unless the node has to reboot anyway
//	byPerson     nothing                         of the confirmation
//	byReport     what the node says              none: it is of now
type source int

const (
	byDeduction source = iota
	byPerson
	byReport
)

// sourceOf returns the source of a part that the node's resident process reports or does not report.
func sourceOf(reported bool, confirmed time.Time) source {
	switch {
	case reported:
		return byReport
	case !confirmed.IsZero():
		return byPerson
	}
	return byDeduction
}

// evidence is what is known of a node that has run since before a switch.
type evidence struct {
	report    *control.Push // of its resident process; nil: there is none
	declared  time.Time     // when the switch was
	confirmed time.Time     // when a person confirmed that what it does not report was done; zero: nobody has since
}

// judgeRunning is judge for a node that has run since before the switch.
func judgeRunning(out *control.RolloutNode, v *verdict.Verdict, e evidence) {
	var used [byReport + 1]bool
	p := e.report
	programs := sourceOf(p != nil && p.Omitted == 0, e.confirmed)
	used[programs] = v.Init || len(v.Restart) > 0 || v.Unknown != ""
	out.Exact, out.Reboot = programs == byReport, v.Reboot()
	init, unknown := false, ""
	switch programs {
	case byReport:
		out.Restart = p.Restart
	case byDeduction:
		init, unknown = v.Init, v.Unknown
		for _, s := range v.Restart {
			out.Restart = append(out.Restart, s.Unit)
		}
	}
	for _, r := range v.Reload {
		from := sourceOf(r.Command == verdict.DaemonReload && p != nil && p.UnitsRead != "", e.confirmed)
		used[from] = true
		if from == byDeduction || from == byReport && p.UnitsRead == "no" {
			out.Reload = append(out.Reload, r.Command)
		}
	}
	if used[byDeduction] && !out.Reboot {
		out.AsOf = e.declared
	}
	if used[byPerson] {
		out.Confirmed = e.confirmed
	}
	runningVerdict(out, init)
	if unknown != "" && !out.Reboot {
		out.Verdict += notKnown + unknown
	}
}

// runningVerdict sets the verdict of a node from what has to be done on it. init: its init process is to be restarted.
func runningVerdict(out *control.RolloutNode, init bool) {
	switch {
	case out.Reboot:
		out.Verdict = "stale until reboot"
		return
	case len(out.Restart) > 0:
		out.Verdict = "stale until restart of " + few(out.Restart)
	case init:
		out.Verdict = "stale until restart of init"
	}
	if len(out.Reload) > 0 {
		out.Verdict += ", effective after " + few(out.Reload)
	}
}

// report returns the last report of a node's resident process, nil if it does not show the node as it is now.
func (api *API) report(node string) *control.Push {
	n, ok := api.Follow.Cluster().Node(cluster.NodeName(node))
	if !ok {
		return nil
	}
	if p := api.pushed(n); p != nil && p.State == control.PushCurrent {
		return p
	}
	return nil
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
	return strings.Join(names[:most], ", ") + " and " + quantity.Count(len(names)-most) + " more"
}
