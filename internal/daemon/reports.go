package daemon

import (
	"dim/internal/cluster"
	"dim/internal/problems"
	"dim/internal/rollout"
)

// reports tells what servers know of the nodes that they serve.
type reports interface {
	// report returns what a server of n told last, or nil when none of its servers has reported.
	report(n *cluster.Node) *rollout.Report
}

// localReports are the reports of this server alone. Of the nodes of other servers it knows nothing.
type localReports struct{ *daemon }

func (d localReports) report(n *cluster.Node) *rollout.Report {
	if !d.mine(n) {
		return nil
	}
	state := d.liveness.State(n.Name)
	r := &rollout.Report{Booting: state.Booting, Stage: string(state.Stage)}
	if x := d.exports.node(n.Name); x != nil {
		r.Shows = x.fs.Version().Ref()
	}
	if r.Problem = d.wrong.Text(problems.Node(n.Name)); r.Problem == "" {
		r.Problem = d.wrong.Text(problems.Of(problems.KindReplicas))
	}
	return r
}
