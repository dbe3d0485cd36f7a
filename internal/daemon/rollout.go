package daemon

import (
	"context"
	"errors"
	"slices"
	"time"

	"dim/internal/cluster"
	"dim/internal/cluster/nodeset"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/rollout"
)

// Rollout implements control.Backend.
func (d *daemon) Rollout(ctx context.Context, r control.RolloutRequest) (control.Rollout, error) {
	now := d.declared()
	wanted, err := d.asked(now, r)
	if err != nil {
		return control.Rollout{}, err
	}
	if r.DryRun {
		return d.planned(ctx, now, wanted)
	}
	if !moves(now, &wanted) {
		out := d.rolled(now, &wanted)
		out.State = "nothing to do"
		return out, nil
	}
	shared, err := d.change(ctx)
	if err != nil {
		return control.Rollout{}, err
	}
	var begun rollout.Rollout
	err = shared.Decide(ctx, func(s coord.State) (c coord.Change, err error) {
		begun, c, err = wanted.Declare(s, d.running(wanted.Nodes()), time.Now().UTC())
		return c, err
	})
	if err != nil {
		return control.Rollout{}, rolloutError(err)
	}
	d.log.Info("rollout begins", "rollout", begun.ID, "version", begun.Ref(), "nodes", begun.Nodes().String(), "when", string(begun.When))
	if err := d.refresh(ctx, shared); err != nil {
		return control.Rollout{}, err
	}
	return d.RolloutStatus(ctx, begun.ID)
}

// rolloutError tells a person what can be done about a rollout that is in the way.
func rolloutError(err error) error {
	e, ok := coded(err).(*control.Error)
	switch {
	case !ok:
		return err
	case errors.Is(err, rollout.ErrState):
		return e.WithHint("dim rollout ls lists all; without a number it is the latest")
	case e.Code == control.Conflict:
		return e.WithHint("dim rollout ls lists them; resume, undo or stop the one in the way")
	}
	return e
}

// manner makes a rollout of how a request wants nodes to move; it says nothing of which ones, and to what.
func manner(r control.RolloutRequest) (rollout.Rollout, error) {
	out := rollout.Rollout{When: rollout.When(r.When), Soak: time.Duration(r.Soak * float64(time.Second)), Check: r.Check, Hook: r.Hook}
	switch {
	case out.When != rollout.Now && out.When != rollout.Boot:
		return out, control.Errorf(control.Invalid, "roll out: nodes cannot change %q", r.When).WithHint("they change now, or at their next boot")
	case out.Soak < 0:
		return out, control.Errorf(control.Invalid, "roll out: soak time of %v", out.Soak)
	}
	return out, nil
}

// checkManner tells whether all nodes of an image could be moved so.
func checkManner(c *cluster.Cluster, im *cluster.Image, r control.RolloutRequest) error {
	if _, err := manner(r); err != nil {
		return err
	}
	nodes, _, err := nodesOf(c, im, r.Nodes)
	if err != nil {
		return err
	}
	if _, err := rollout.Rings(r.Rings, nodes); err != nil {
		return control.Errorf(control.Invalid, "%v", err)
	}
	return nil
}

// asked makes a rollout of a request: its nodes, all of the image's, in rings.
func (d *daemon) asked(now *declared, r control.RolloutRequest) (rollout.Rollout, error) {
	out, err := manner(r)
	if err != nil {
		return out, err
	}
	v, err := now.resolve(r.Version)
	if err != nil {
		return out, err
	}
	out.Image, out.Version = v.Image, v.Number
	im, ok := now.cluster.Image(cluster.ImageName(v.Image))
	if !ok {
		return out, control.Errorf(control.NotFound, "roll out %s: the description has no such image", r.Version)
	}
	nodes, all, err := nodesOf(now.cluster, im, r.Nodes)
	if err != nil {
		return out, err
	}
	if out.Rings, err = rollout.Rings(r.Rings, nodes); err != nil {
		return out, control.Errorf(control.Invalid, "%v", err)
	}
	out.All = all
	return out, nil
}

// nodesOf returns the nodes of a set, or all that run an image, in their order; all tells that they are.
func nodesOf(c *cluster.Cluster, im *cluster.Image, set string) (nodes []string, all bool, err error) {
	selected, of := c.Nodes, 0
	if set != "" {
		if selected, err = selectNodes(c, set); err != nil {
			return nil, false, err
		}
	}
	for _, n := range c.Nodes {
		if n.Image == im {
			of++
		}
	}
	var others []*cluster.Node
	for _, n := range selected {
		switch {
		case n.Image == im:
			nodes = append(nodes, string(n.Name))
		case set != "":
			others = append(others, n)
		}
	}
	if len(others) > 0 {
		return nil, false, control.Errorf(control.Invalid, "roll out %s: %s run another image", im.Name, cluster.Fold(others)).
			WithHint("without a node set it is all nodes of the image")
	}
	return nodes, len(nodes) == of, nil
}

// selectNodes returns the nodes of a set; the error tells a set that is none from one that names what is not there.
func selectNodes(c *cluster.Cluster, set string) ([]*cluster.Node, error) {
	nodes, err := c.Select(set)
	if err == nil {
		return nodes, nil
	}
	code := control.NotFound
	if _, bad := errors.AsType[*nodeset.SyntaxError](err); bad {
		code = control.Invalid
	}
	return nil, control.Errorf(code, "%v", err)
}

// moves reports whether any node would follow something else.
func moves(now *declared, r *rollout.Rollout) bool {
	current, _ := now.state.Images[r.Image].Followed()
	if r.All && current.Number != r.Version {
		return true
	}
	return slices.ContainsFunc(r.Nodes(), func(name string) bool {
		n, ok := now.cluster.Node(cluster.NodeName(name))
		if !ok {
			return false
		}
		ref, next := now.follows(n)
		if r.When == rollout.Boot && next == r.Ref() {
			return false
		}
		return !next.IsZero() || ref != r.Ref()
	})
}

// running returns those of nodes that work from their root now.
func (d *daemon) running(nodes []string) []string {
	return slices.DeleteFunc(slices.Clone(nodes), func(n string) bool {
		return !d.liveness.State(cluster.NodeName(n)).Running
	})
}

// Rollouts implements control.Backend.
func (d *daemon) Rollouts(context.Context) ([]control.Rollout, error) {
	now := d.declared()
	all, err := rollout.List(now.state)
	if err != nil {
		d.log.Error("rollout cannot be read", "error", err)
	}
	list := make([]control.Rollout, len(all))
	for i := range all {
		list[i] = d.rolled(now, &all[i])
	}
	return list, nil
}

// RolloutStatus implements control.Backend.
func (d *daemon) RolloutStatus(ctx context.Context, id int) (control.Rollout, error) {
	now := d.declared()
	if id == 0 {
		for known := range now.state.Rollouts {
			id = max(id, known)
		}
		if id == 0 {
			return control.Rollout{}, control.Errorf(control.NotFound, "rollout: there was none yet").WithHint("dim rollout NAME --when now begins one")
		}
	}
	r, ok, err := rollout.Load(now.state, id)
	if err == nil && !ok {
		err = control.Errorf(control.NotFound, "rollout %d: there is none", id).WithHint("dim rollout ls lists them")
	}
	if err != nil {
		return control.Rollout{}, err
	}
	out := d.rolled(now, &r)
	out.States = d.rolloutNodes(ctx, now, &r)
	return out, nil
}

// ChangeRollout implements control.Backend.
func (d *daemon) ChangeRollout(ctx context.Context, id int, in control.RolloutChange) (control.Rollout, error) {
	at := time.Now().UTC()
	decide := map[string]func(s coord.State) (coord.Change, error){
		"pause":  func(s coord.State) (coord.Change, error) { return rollout.Pause(s, id, "by hand", at) },
		"resume": func(s coord.State) (coord.Change, error) { return rollout.Resume(s, id, at) },
		"stop":   func(s coord.State) (coord.Change, error) { return rollout.Stop(s, id, at) },
		"undo":   func(s coord.State) (coord.Change, error) { return rollout.Undo(s, id, rollout.When(in.When), at) },
	}[in.Do]
	if decide == nil {
		return control.Rollout{}, control.Errorf(control.Invalid, "rollout %d: nobody knows how to %q one", id, in.Do)
	}
	if in.When != "" {
		if _, err := manner(control.RolloutRequest{When: in.When}); err != nil {
			return control.Rollout{}, err
		}
	}
	if in.DryRun {
		now := d.declared()
		change, err := decide(now.state)
		if err != nil {
			return control.Rollout{}, rolloutError(err)
		}
		return d.plannedChange(ctx, now, id, &change)
	}
	shared, err := d.change(ctx)
	if err != nil {
		return control.Rollout{}, err
	}
	if err := shared.Decide(ctx, decide); err != nil {
		return control.Rollout{}, rolloutError(err)
	}
	d.log.Info("rollout changed", "rollout", id, "how", in.Do)
	if err := d.refresh(ctx, shared); err != nil {
		return control.Rollout{}, err
	}
	return d.RolloutStatus(ctx, id)
}

// rolled returns r as the API shows it.
func (d *daemon) rolled(now *declared, r *rollout.Rollout) control.Rollout {
	current, _ := now.state.Images[r.Image].Followed()
	out := control.Rollout{
		ID: r.ID, Image: r.Image, Version: r.Version, When: string(r.When), Nodes: r.Nodes().String(), Count: len(r.Nodes()), All: r.All,
		Soak: r.Soak.Seconds(), Check: r.Check, Hook: r.Hook, State: string(r.State), Ring: r.Ring + 1, Phase: string(r.Phase), Since: r.Since,
		Reason: r.Reason, Started: r.Started, Ended: r.Ended, Current: current.Number,
	}
	if r.State == rollout.Running {
		d.mu.Lock()
		out.Reason = d.waits[r.ID]
		d.mu.Unlock()
	}
	for _, ring := range r.Rings {
		shown := control.RolloutRing{Nodes: ring.Nodes.String(), Count: len(ring.Nodes)}
		for _, n := range ring.Nodes {
			if d.showsVersion(n, r) {
				shown.Shows++
			}
		}
		out.Shows += shown.Shows
		out.Rings = append(out.Rings, shown)
	}
	return out
}

func (d *daemon) showsVersion(node string, r *rollout.Rollout) bool {
	x := d.exports.node(cluster.NodeName(node))
	return x != nil && x.fs.Version().Ref() == r.Ref()
}
