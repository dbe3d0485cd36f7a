package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/liveness"
	"dim/internal/rollout"
)

// How often rollouts are looked at.
const (
	driveEvery = 250 * time.Millisecond
	driveAgain = 2 * time.Second // after a failure
)

// drive lets rollouts go on, and what waits for boots, until ctx ends.
func (d *daemon) drive(ctx context.Context) error {
	select {
	case <-d.tried:
	case <-ctx.Done():
		return nil
	}
	tick := time.NewTicker(driveEvery)
	defer tick.Stop()
	var runners sync.WaitGroup
	defer runners.Wait()
	var running sync.Map // numbers of rollouts
	var seen *declared
	var driven []int
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		d.driveBoots(ctx)
		if now := d.declared(); now != seen {
			seen, driven = now, d.driven(now)
		}
		for _, id := range driven {
			if _, runs := running.LoadOrStore(id, true); runs {
				continue
			}
			runners.Go(func() {
				d.driveOne(ctx, id)
				running.Delete(id)
			})
		}
	}
}

// driveBoots does what waited for nodes to boot or to run.
func (d *daemon) driveBoots(ctx context.Context) {
	if d.calling.Swap(false) && d.holds.Load() {
		d.reconcile(ctx)
	}
	if d.booted.Load() {
		d.promote(ctx)
	}
}

// driven returns the rollouts that go on and are this server's to drive: of several heads the first of the description does it.
func (d *daemon) driven(now *declared) []int {
	if len(now.state.Rollouts) == 0 {
		return nil
	}
	for _, s := range now.cluster.Servers {
		if s.Has(cluster.RoleHead) {
			if s.Name != d.server {
				return nil
			}
			break
		}
	}
	var ids []int
	list, err := rollout.Active(now.state)
	if err != nil {
		d.log.Error("rollout cannot be read", "error", err)
	}
	for i := range list {
		if list[i].State == rollout.Running {
			ids = append(ids, list[i].ID)
		}
	}
	return ids
}

// driveOne takes one rollout as far as it goes: until it is no longer running, or ctx ends.
func (d *daemon) driveOne(ctx context.Context, id int) {
	defer d.waitsFor(id, "")
	for ctx.Err() == nil {
		r, ok, err := rollout.Load(d.declared().state, id)
		if err != nil || !ok || r.State != rollout.Running {
			return
		}
		step := r.Next(d.seenOf(&r, localReports{d}), time.Now())
		d.waitsFor(id, step.Wait)
		pause := driveEvery
		switch {
		case step.Wait != "":
		case step.Run != "":
			if step, ok = d.command(ctx, &r, step); ok {
				err = d.advance(ctx, &r, step)
			}
		default:
			err = d.advance(ctx, &r, step)
		}
		changed := errors.Is(err, rollout.ErrConflict) // it is looked at anew
		if err != nil && !changed && ctx.Err() == nil {
			d.log.Warn("rollout does not go on", "rollout", id, "error", err)
			pause = driveAgain
		}
		if step.Wait == "" && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// waitsFor notes what a rollout waits for.
func (d *daemon) waitsFor(id int, what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if what == "" {
		delete(d.waits, id)
		return
	}
	d.waits[id] = what
}

// advance declares a step. The error is rollout.ErrConflict when somebody has changed the rollout meanwhile.
func (d *daemon) advance(ctx context.Context, r *rollout.Rollout, step rollout.Step) error {
	shared, err := d.reachable(ctx)
	if err != nil {
		return err
	}
	err = shared.Decide(ctx, func(s coord.State) (coord.Change, error) {
		return r.Advance(s, step, d.running(r.Nodes()), time.Now().UTC())
	})
	switch {
	case err == nil && step.Pause != "":
		d.log.Warn("rollout is paused", "rollout", r.ID, "why", step.Pause)
	case err == nil:
		d.log.Info("rollout goes on", "rollout", r.ID, "ring", r.Ring+1, "after", string(r.Phase))
	}
	return errors.Join(err, d.refresh(ctx, shared))
}

// seenOf is what is known of the nodes of r's present ring.
func (d *daemon) seenOf(r *rollout.Rollout, told reports) map[string]rollout.Seen {
	now := d.declared()
	seen := map[string]rollout.Seen{}
	for _, name := range r.Rings[r.Ring].Nodes {
		n, ok := now.cluster.Node(cluster.NodeName(name))
		if !ok || string(n.Image.Name) != r.Image {
			seen[name] = rollout.Seen{Gone: true}
			continue
		}
		seen[name] = rollout.Seen{Server: string(n.Servers[0].Name), Report: told.report(n)}
	}
	if r.Soaked(time.Now()) {
		d.seeAnswers(now, r, seen)
	}
	return seen
}

// seeAnswers finds out which of the nodes that ran before are up.
func (d *daemon) seeAnswers(now *declared, r *rollout.Rollout, seen map[string]rollout.Seen) {
	var ran []*cluster.Node
	for _, name := range r.Rings[r.Ring].Ran {
		n, ok := now.cluster.Node(cluster.NodeName(name))
		s := seen[name]
		if !ok || s.Gone {
			continue
		}
		if s.Report == nil {
			ran = append(ran, n)
			continue
		}
		switch boot.Stage(s.Report.Stage) { // its server may be another one
		case boot.StageRunning, liveness.Silent, liveness.Off:
			ran = append(ran, n)
		}
	}
	up, err := d.liveness.Answering(ran, r.Since)
	if err != nil {
		d.log.Warn("nodes cannot be probed", "error", err)
	}
	for name := range up {
		s := seen[string(name)]
		s.Answers = true
		seen[string(name)] = s
	}
}

// command runs a rollout's command for its present ring. It returns the step that follows from how it ended; ok is false when the
// rollout was changed meanwhile, or this server ends.
func (d *daemon) command(ctx context.Context, r *rollout.Rollout, step rollout.Step) (next rollout.Step, ok bool) {
	d.waitsFor(r.ID, fmt.Sprintf("the %s to end", step.Command))
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- runCommand(run, r, step.Run) }()
	tick := time.NewTicker(driveEvery)
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
			return r.After(), true
		case <-tick.C:
			now, _, err := rollout.Load(d.declared().state, r.ID)
			if err != nil || now.State != r.State || !now.Since.Equal(r.Since) {
				cancel() // and wait for its end
			}
		}
	}
}
