// Package driver begins rollouts, changes them, and carries them out.
//
// Package rollout decides what follows from what; a Driver gathers the facts (what nodes show, which are up, what a
// person asks for), runs hooks and checks, and puts the decisions into the shared state. Of several heads, the one
// that has a lock in the shared state drives the rollouts.
//
// # Concurrency
//
// All methods may be called from any number of goroutines. Run drives each rollout in a goroutine of its own.
//
// # What it must not know
//
// How a replica is switched, how nodes are probed, and how rollouts are shown.
package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/fleet"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/liveness"
	"dim/internal/problems"
	"dim/internal/rollout"
)

const (
	// interval is the interval between checks whether a rollout can go on. Reports of other servers let it be checked
	// sooner, checkGap after the check before: the servers of a rollout report one after the other. If a check of
	// thousands of nodes takes longer than usual, the gap is checkShare times as long as that, up to interval.
	interval   = 250 * time.Millisecond
	checkGap   = 50 * time.Millisecond
	checkShare = 4
	// retryInterval is the pause after a failure.
	retryInterval = 2 * time.Second
)

// Roots knows what the nodes of this server show. serving.Server implements it.
type Roots interface {
	// Shows returns the version that a node's root shows; ok is false when the node has none here.
	Shows(cluster.NodeName) (v image.Version, ok bool)
	// Left returns why a node stays with what it shows because of its packages; "" if it does not.
	Left(cluster.NodeName) string
	// Booted returns the nodes that have booted into the version they were to change to at their next boot, with that
	// version.
	Booted() coord.Refs
	// Renaming reports whether layers of this server still have former names of nodes.
	Renaming() bool
}

// Options of a Driver. All are needed.
type Options struct {
	Server   cluster.ServerName // this server
	Follow   *follow.Follower
	Liveness *liveness.Tracker
	Roots    Roots
	Fleet    *fleet.Fleet // what other servers reported
	Problems *problems.List
	Log      *slog.Logger
}

// Driver drives rollouts.
type Driver struct {
	Options
	started time.Time
	wake    chan struct{} // capacity 1: a state was adopted

	mu    sync.Mutex
	waits map[int]string // what rollouts wait for, by number
}

// New returns a Driver.
func New(o Options) *Driver {
	return &Driver{Options: o, started: time.Now(), wake: make(chan struct{}, 1), waits: map[int]string{}}
}

// Adopted lets Run see what a new state needs. follow.Follower calls it.
func (d *Driver) Adopted(context.Context, *follow.Declared) {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Run drives rollouts until ctx ends. It also tells the shared state which nodes have booted what they were to follow
// from then on.
func (d *Driver) Run(ctx context.Context) error {
	select {
	case <-d.Follow.Searched():
	case <-ctx.Done():
		return nil
	}
	for ctx.Err() == nil {
		term := d.term(ctx)
		d.serve(term)
		term.release()
	}
	return nil
}

// serve drives rollouts until the term ends, or until there are other heads than at its beginning.
func (d *Driver) serve(t term) {
	ctx, cancel := context.WithCancel(t.Context)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var runners sync.WaitGroup
	defer runners.Wait()
	defer cancel()
	var running sync.Map // numbers of rollouts
	var last *follow.Declared
	var driven []int
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-d.wake:
		}
		d.promote(ctx)
		d.release(ctx)
		d.renamed(ctx)
		if now := d.Follow.Now(); now != last {
			last, driven = now, d.driven(now)
			if alone := len(d.heads()) == 1; alone != t.alone {
				return
			}
		}
		for _, id := range driven {
			if _, runs := running.LoadOrStore(id, true); runs {
				continue
			}
			runners.Go(func() {
				d.drive(ctx, id)
				running.Delete(id)
			})
		}
	}
}

// driven returns the rollouts that are running.
func (d *Driver) driven(now *follow.Declared) []int {
	if len(now.State.Rollouts) == 0 {
		return nil
	}
	var ids []int
	list, err := now.Rollouts().Active()
	if err != nil {
		d.Log.Error("rollout cannot be read", "error", err)
	}
	for i := range list {
		if list[i].State == rollout.Running {
			ids = append(ids, list[i].ID)
		}
	}
	return ids
}

// drive takes one rollout as far as it goes: until it is no longer running, or ctx ends.
func (d *Driver) drive(ctx context.Context, id int) {
	defer d.setWait(id, "")
	for ctx.Err() == nil {
		began, reported := time.Now(), d.Fleet.Changed()
		r, ok, err := d.Follow.Now().Rollouts().Load(id)
		if err != nil || !ok || r.State != rollout.Running {
			return
		}
		step := d.next(&r)
		d.setWait(id, step.Wait)
		pause := interval
		switch {
		case step.Wait != "":
		case step.Run != "":
			if step, ok = d.command(ctx, &r, step); ok {
				err = d.advance(ctx, &r, step)
			}
		default:
			err = d.advance(ctx, &r, step)
		}
		changed := errors.Is(err, rollout.ErrConflict) // the next round sees the change
		if err != nil && !changed && ctx.Err() == nil {
			d.Log.Warn("rollout does not go on", "rollout", id, "error", err)
			pause = retryInterval
		}
		if step.Wait == "" && err == nil {
			continue
		}
		if r.When == rollout.Boot || time.Since(r.Since) > time.Minute {
			pause = retryInterval // it may wait for days
		}
		if pause > interval {
			reported = nil
		}
		await(ctx, pause, gapAfter(time.Since(began)), reported)
	}
}

// gapAfter returns the least time until the next check, after one that took some time.
func gapAfter(took time.Duration) time.Duration { return min(max(checkGap, checkShare*took), interval) }

// await returns after a pause, or when something was reported and a gap has passed, or when ctx ends.
func await(ctx context.Context, pause, gap time.Duration, reported <-chan struct{}) {
	end := time.After(pause)
	select {
	case <-ctx.Done():
		return
	case <-time.After(gap):
	}
	select {
	case <-ctx.Done():
	case <-end:
	case <-reported:
	}
}

// next returns what a rollout needs next.
func (d *Driver) next(r *rollout.Rollout) rollout.Step {
	if !r.Prefetching() {
		return r.Next(d.seen(r), time.Now())
	}
	now := d.Follow.Now()
	v, _ := now.State.Resolve(r.Ref())
	known := func(server string) (has bool, silent time.Time) {
		h, ok := d.Fleet.Server(cluster.ServerName(server))
		if !ok {
			return false, d.started.Add(fleet.SilentAfter)
		}
		return h.Has(v.Ref(), v.Digest), h.At.Add(fleet.SilentAfter)
	}
	return r.Prefetched(d.others(now, r.Nodes()), known, time.Now())
}

// setWait notes what a rollout waits for; "" is nothing.
func (d *Driver) setWait(id int, what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if what == "" {
		delete(d.waits, id)
		return
	}
	d.waits[id] = what
}

// Waits returns what a running rollout waits for, "" when it does not wait.
func (d *Driver) Waits(id int) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waits[id]
}

// advance declares a step. The error is rollout.ErrConflict when somebody has changed the rollout meanwhile.
func (d *Driver) advance(ctx context.Context, r *rollout.Rollout, step rollout.Step) error {
	shared, err := d.Follow.Reachable(ctx)
	if err != nil {
		return err
	}
	step.Shown = d.Shown(r)
	err = shared.Decide(ctx, func(s coord.State) (coord.Change, error) {
		return r.Advance(s, step, d.running(r.Nodes()), time.Now().UTC())
	})
	switch {
	case err == nil && step.Pause != "":
		d.Log.Warn("rollout is paused", "rollout", r.ID, "reason", step.Pause)
	case err == nil && r.Prefetching():
		d.Log.Info("rollout goes on", "rollout", r.ID, "ring", 1, "stage", "switching")
		if step.Skip != "" {
			d.Log.Warn("rollout does not wait for servers to have its version", "rollout", r.ID, "server", step.Skip)
		}
	case err == nil && step.Enter == "" && r.Ring == len(r.Rings)-1:
		d.Log.Info("rollout has ended", "rollout", r.ID, "version", r.Ref(), "count", step.Shown)
	case err == nil:
		d.Log.Info("rollout goes on", "rollout", r.ID, "ring", r.Ring+1, "stage", string(r.Phase))
	}
	return errors.Join(err, d.Follow.Refresh(ctx, shared))
}

// running returns those of the nodes that work from their root now.
func (d *Driver) running(nodes []string) []string {
	var list []string
	now := d.Follow.Now()
	for _, name := range nodes {
		n, ok := now.Cluster.Node(cluster.NodeName(name))
		if ok && d.Runs(n) {
			list = append(list, name)
		}
	}
	return list
}

// Runs reports whether a node works from its root now, by the last report of its server.
func (d *Driver) Runs(n *cluster.Node) bool {
	if n.Server().Name == d.Server {
		return d.Liveness.State(n.Name).Running
	}
	said, at, ok := d.Fleet.Node(n)
	return ok && said.Running && fleet.Fresh(at)
}

// seen returns what is known of the nodes of r's present ring.
func (d *Driver) seen(r *rollout.Rollout) map[string]rollout.Seen {
	now := d.Follow.Now()
	seen := map[string]rollout.Seen{}
	for _, name := range r.Rings[r.Ring].Nodes {
		n, ok := now.Cluster.Node(cluster.NodeName(name))
		if !ok || !follows(now, n, r.Ref()) {
			seen[name] = rollout.Seen{Gone: true}
			continue
		}
		seen[name] = rollout.Seen{Server: string(n.Server().Name), Report: d.report(n)}
	}
	if r.Soaked(time.Now()) {
		d.probe(now, r, seen)
	}
	return seen
}

// follows reports whether a node follows a version, or will from its next boot on. It does not when another rollout has
// moved it since.
func follows(now *follow.Declared, n *cluster.Node, ref image.Ref) bool {
	if string(n.Image.Name) != ref.Image {
		return false
	}
	is, next := now.Follows(n)
	return is == ref || next == ref
}

// Shown returns how many nodes of a rollout show its version.
func (d *Driver) Shown(r *rollout.Rollout) int {
	shown := 0
	for _, ring := range r.Rings {
		shown += d.ShownOf(ring.Nodes, r.Ref())
	}
	return shown
}

// ShownOf returns how many of some nodes show a version.
func (d *Driver) ShownOf(nodes []string, ref image.Ref) int {
	shown := 0
	now := d.Follow.Now()
	for _, name := range nodes {
		n, ok := now.Cluster.Node(cluster.NodeName(name))
		if !ok {
			continue
		}
		if r := d.report(n); r != nil && r.Shows == ref {
			shown++
		}
	}
	return shown
}

// report returns what the server that serves n reported of it last, nil when nothing is known. What another server
// reported of a node that did not show the version yet is not known any more when the server is silent.
func (d *Driver) report(n *cluster.Node) *rollout.Report {
	if why, _ := d.Follow.Now().Stranded(n); why != "" {
		return &rollout.Report{Problem: why}
	}
	if n.Server().Name != d.Server {
		said, at, ok := d.Fleet.Node(n)
		if !ok {
			return nil
		}
		return &rollout.Report{
			At: at, Shows: said.Shows, Problem: said.Problem, Left: said.Left != "", Booting: said.Booting,
			Stage: said.Stage, Silent: !fleet.Fresh(at),
		}
	}
	state := d.Liveness.State(n.Name)
	r := &rollout.Report{Booting: state.Booting, Stage: string(state.Stage)}
	if v, ok := d.Roots.Shows(n.Name); ok {
		r.Shows = v.Ref()
	}
	r.Left = d.Roots.Left(n.Name) != ""
	if r.Problem = d.Problems.Text(problems.Node(n.Name)); r.Problem == "" {
		r.Problem = d.Problems.Text(problems.Of(problems.KindReplicas))
	}
	return r
}

// probe finds out which of the nodes that ran before are up.
func (d *Driver) probe(now *follow.Declared, r *rollout.Rollout, seen map[string]rollout.Seen) {
	var ran []*cluster.Node
	for _, name := range r.Rings[r.Ring].Ran {
		n, ok := now.Cluster.Node(cluster.NodeName(name))
		s := seen[name]
		if !ok || s.Gone {
			continue
		}
		if n.Server().Name != d.Server {
			s.Answers = d.Runs(n)
			seen[name] = s
			continue
		}
		switch boot.Stage(s.Report.Stage) {
		case boot.StageRunning, liveness.Silent, liveness.Off:
			ran = append(ran, n)
		}
	}
	up, err := d.Liveness.Answering(ran, r.Since)
	if err != nil {
		d.Log.Warn("nodes cannot be probed", "error", err)
	}
	for name := range up {
		s := seen[string(name)]
		s.Answers = true
		seen[string(name)] = s
	}
}

// command runs a rollout's command for its present ring. It returns the step that follows from how the command ended;
// ok is false when the rollout was changed meanwhile, or this server ends.
func (d *Driver) command(ctx context.Context, r *rollout.Rollout, step rollout.Step) (next rollout.Step, ok bool) {
	d.setWait(r.ID, fmt.Sprintf("the %s to end", step.Command))
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- runCommand(run, r, step.Run) }()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			switch {
			case run.Err() != nil:
				return next, false
			case err != nil:
				return rollout.Step{Pause: fmt.Sprintf("%s: %v", step.Command, err)}, true
			}
			next := r.After()
			next.Without = step.Without
			return next, true
		case <-tick.C:
			now, _, err := d.Follow.Now().Rollouts().Load(r.ID)
			if err != nil || now.State != r.State || !now.Since.Equal(r.Since) {
				cancel() // the loop waits for the command's end
			}
		}
	}
}
