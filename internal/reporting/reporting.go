// Package reporting gathers what this server has to report of itself and of the nodes that it serves.
//
// # What it must not know
//
// What heads do with a report.
package reporting

import (
	"context"
	"log/slog"
	"time"

	"dim/internal/cluster"
	"dim/internal/fleet"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/liveness"
	"dim/internal/periodic"
	"dim/internal/problems"
	"dim/internal/store"
)

// interval is the interval between reports.
const interval = fleet.SilentAfter / 3

// Roots knows what the nodes of this server show. serving.Server implements it.
type Roots interface {
	// Shows returns the version that a node's root shows; ok is false when the node has none here.
	Shows(cluster.NodeName) (v image.Version, ok bool)
	// Left returns why a node stays with what it shows because of its packages; "" if it does not.
	Left(cluster.NodeName) string
}

// Options of a Reporter. All are needed.
type Options struct {
	Server   cluster.ServerName // this server
	Program  string             // its version
	Started  time.Time
	Follow   *follow.Follower
	Store    *store.Store
	Liveness *liveness.Tracker
	Roots    Roots
	Problems *problems.List
	Fleet    *fleet.Fleet // where this server's own reports are kept
	Log      *slog.Logger
}

// Reporter reports.
type Reporter struct{ Options }

// New returns a Reporter.
func New(o Options) *Reporter { return &Reporter{o} }

// Adopted drops what servers reported that are no longer declared. follow.Follower calls it.
func (r *Reporter) Adopted(_ context.Context, now *follow.Declared) {
	r.Fleet.Keep(func(s cluster.ServerName) bool {
		_, ok := now.Cluster.Server(s)
		return ok
	})
}

// Run reports at intervals until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	report := func(context.Context) { r.Fleet.Put(r.Server, r.report()) }
	report(ctx)
	return periodic.Run(ctx, interval, report)
}

// report returns what there is to report now.
func (r *Reporter) report() *fleet.Report {
	now := r.Follow.Now()
	out := &fleet.Report{
		Program: r.Program, Started: r.Started, Sent: time.Now(), Store: now.State.Store, Revision: now.State.Revision,
		Versions: r.versions(),
	}
	for _, n := range now.Cluster.Nodes {
		if n.Servers[0].Name == r.Server {
			out.Nodes = append(out.Nodes, r.node(n))
		}
	}
	return out
}

func (r *Reporter) node(n *cluster.Node) fleet.Node {
	s := r.Liveness.State(n.Name)
	out := fleet.Node{
		Name: n.Name, Stage: string(s.Stage), Since: s.Since, Began: s.Began, Text: s.Detail, Booting: s.Booting,
		Running: s.Running, LastCall: s.LastCall, LastSeen: s.LastSeen, Left: r.Roots.Left(n.Name), Problem: s.Error,
	}
	if out.Problem == "" {
		out.Problem, out.Hint = s.Trouble.Text, s.Trouble.Hint
	}
	if v, ok := r.Roots.Shows(n.Name); ok {
		out.Shows = v.Ref()
	}
	for _, about := range []problems.Subject{problems.Node(n.Name), problems.Of(problems.KindReplicas)} {
		if out.Problem == "" {
			out.Problem = r.Problems.Text(about)
		}
	}
	return out
}

// versions returns the versions of the store.
func (r *Reporter) versions() []fleet.Version {
	var list []fleet.Version
	images, err := r.Store.Images()
	for _, name := range images {
		var held []image.Version
		if held, err = r.Store.Versions(name); err != nil {
			break
		}
		for _, v := range held {
			list = append(list, fleet.Version{Version: v.Ref(), Digest: v.Digest})
		}
	}
	if err != nil {
		r.Log.Warn("the store's versions cannot be listed", "error", err)
	}
	return list
}
