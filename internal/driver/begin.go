package driver

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/pkgdb"
	"dim/internal/rollout"
)

// Plan returns the rollout that a request asks for, before it is declared. The error is a control.Error.
func (d *Driver) Plan(now *follow.Declared, r control.RolloutRequest) (rollout.Rollout, error) {
	out, err := manner(r)
	if err != nil {
		return out, err
	}
	v, err := now.Resolve(r.Version)
	if err != nil {
		return out, err
	}
	out.Image, out.Version = v.Image, v.Number
	im, ok := now.Cluster.Image(cluster.ImageName(v.Image))
	if !ok {
		return out, control.Errorf(control.NotFound, "roll out %s: the description has no such image", r.Version)
	}
	nodes, all, err := nodesOf(now, im, r.Nodes)
	if err != nil {
		return out, err
	}
	if out.Rings, err = rollout.Rings(r.Rings, nodes); err != nil {
		return out, control.Errorf(control.Invalid, "%v", err)
	}
	out.All = all
	if !r.NoWait && len(d.others(now, nodes)) > 0 {
		out.Prefetch()
	}
	return out, nil
}

// others returns the servers, other than this one, that serve some nodes.
func (d *Driver) others(now *follow.Declared, nodes []string) (list []string) {
	known := map[cluster.ServerName]bool{d.Server: true}
	for _, name := range nodes {
		n, ok := now.Cluster.Node(cluster.NodeName(name))
		if ok && !known[n.Server().Name] {
			known[n.Server().Name] = true
			list = append(list, string(n.Server().Name))
		}
	}
	return list
}

// Check returns an error unless a request that names no version yet could be planned for an image.
func (d *Driver) Check(now *follow.Declared, im *cluster.Image, r control.RolloutRequest) error {
	if _, err := manner(r); err != nil {
		return err
	}
	nodes, _, err := nodesOf(now, im, r.Nodes)
	if err != nil {
		return err
	}
	if _, err := rollout.Rings(r.Rings, nodes); err != nil {
		return control.Errorf(control.Invalid, "%v", err)
	}
	return nil
}

// manner returns a rollout with how a request wants nodes to move, not which nodes nor to which version.
func manner(r control.RolloutRequest) (rollout.Rollout, error) {
	out := rollout.Rollout{
		When:       rollout.When(r.When),
		OnConflict: pkgdb.OnConflict(cmp.Or(r.OnConflict, string(pkgdb.LeaveNode))),
	}
	out.Soak, out.Check, out.Hook = time.Duration(r.Soak*float64(time.Second)), r.Check, r.Hook
	out.MaxFailed = r.MaxFailed
	switch {
	case out.When != rollout.Now && out.When != rollout.Boot:
		return out, control.Errorf(control.Invalid, "roll out: --when %q: must be now or boot", r.When)
	case !slices.Contains(pkgdb.Choices(), out.OnConflict):
		return out, control.Errorf(control.Invalid, "roll out: --on-conflict %q: must be stop, master or node",
			r.OnConflict)
	case out.Soak < 0:
		return out, control.Errorf(control.Invalid, "roll out: --soak must not be negative")
	}
	if err := out.CheckBudget(); err != nil {
		return out, control.Errorf(control.Invalid, "roll out: --max-failed %v", err)
	}
	return out, nil
}

// nodesOf returns the nodes of a set in their order, or all that have an image when the set is empty or "@*"; all
// reports that they are all.
func nodesOf(now *follow.Declared, im *cluster.Image, set string) (nodes []string, all bool, err error) {
	if set == "@*" {
		set = ""
	}
	selected, of := now.Cluster.Nodes, 0
	if set != "" {
		if selected, err = now.Select(set); err != nil {
			return nil, false, err
		}
	}
	for _, n := range now.Cluster.Nodes {
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
		return nil, false, control.Errorf(control.Invalid,
			"roll out %s: %s run another image", im.Name, cluster.Fold(others)).
			WithHint("@* is all nodes of the image")
	}
	return nodes, len(nodes) == of, nil
}

// Begin declares a planned rollout. When all its nodes follow the version already, nothing is declared and begun is
// false. It returns when this server has adopted the declaration. The rollout has ended then if nothing is left to do
// and all its nodes show the version.
func (d *Driver) Begin(ctx context.Context, planned rollout.Rollout) (r rollout.Rollout, begun bool, err error) {
	if !d.changes(d.Follow.Now(), &planned) {
		return planned, false, nil
	}
	shared, err := d.Follow.Change(ctx)
	if err != nil {
		return r, false, err
	}
	err = shared.Decide(ctx, func(s coord.State) (c coord.Change, err error) {
		r, c, err = planned.Declare(s, d.running(planned.Nodes()), time.Now().UTC())
		return c, err
	})
	if err != nil {
		return r, false, APIError(err)
	}
	d.Log.Info("rollout begins",
		"rollout", r.ID, "version", r.Ref(), "count", len(r.Nodes()), "kind", string(r.When))
	if err := d.Follow.Refresh(ctx, shared); err != nil {
		return r, true, err
	}
	if err := d.end(ctx, r.ID); err != nil {
		d.Log.Warn("rollout does not end yet", "rollout", r.ID, "error", err) // Run tries it again
	}
	return r, true, nil
}

// end ends a rollout if all its nodes show the version and nothing else is left to do.
func (d *Driver) end(ctx context.Context, id int) error {
	r, ok, err := d.Follow.Now().Rollouts().Load(id)
	if err != nil || !ok || r.State != rollout.Running || !r.OnlyWaits() {
		return err
	}
	if step := r.Next(d.seen(&r), time.Now()); step != (rollout.Step{}) {
		return nil
	}
	err = d.advance(ctx, &r, rollout.Step{})
	if errors.Is(err, rollout.ErrConflict) { // Run was faster
		return nil
	}
	return err
}

// RollOut plans and begins the rollout that a request asks for.
func (d *Driver) RollOut(ctx context.Context, req control.RolloutRequest) error {
	planned, err := d.Plan(d.Follow.Now(), req)
	if err == nil {
		_, _, err = d.Begin(ctx, planned)
	}
	return err
}

// changes reports whether any node of r would follow something else.
func (d *Driver) changes(now *follow.Declared, r *rollout.Rollout) bool {
	current, _ := now.State.Images[r.Image].Followed()
	if r.All && current.Number != r.Version {
		return true
	}
	return slices.ContainsFunc(r.Nodes(), func(name string) bool {
		n, ok := now.Cluster.Node(cluster.NodeName(name))
		if !ok {
			return false
		}
		if r.OnConflict != pkgdb.LeaveNode && d.Roots.Left(n.Name) != "" {
			return true
		}
		ref, next := now.Follows(n)
		if r.When == rollout.Boot && next == r.Ref() {
			return false
		}
		return !next.IsZero() || ref != r.Ref()
	})
}

// Decision changes one rollout, given the state in which it is.
type Decision func(coord.State) (coord.Change, error)

// Decide returns the decision that a request about a rollout asks for. The error is a control.Error.
func (d *Driver) Decide(id int, in control.RolloutChange) (Decision, error) {
	at := time.Now().UTC()
	decide := map[string]Decision{
		"pause":  func(s coord.State) (coord.Change, error) { return rollout.Pause(s, id, "by hand", at) },
		"resume": func(s coord.State) (coord.Change, error) { return rollout.Resume(s, id, at) },
		"stop": func(s coord.State) (coord.Change, error) {
			r, _, err := rollout.Load(s, id)
			if err != nil {
				return coord.Change{}, err
			}
			return rollout.Stop(s, id, d.Shown(&r), at)
		},
		"undo": func(s coord.State) (coord.Change, error) { return rollout.Undo(s, id, rollout.When(in.When), at) },
	}[in.Do]
	if decide == nil {
		return nil, control.Errorf(control.Invalid,
			"rollout %d: %q must be pause, resume, stop or undo", id, in.Do)
	}
	if in.When != "" {
		if _, err := manner(control.RolloutRequest{When: in.When}); err != nil {
			return nil, err
		}
	}
	return decide, nil
}

// Apply puts a decision about a rollout, and returns when this server has adopted it; what is for the log.
func (d *Driver) Apply(ctx context.Context, id int, what string, decide Decision) error {
	shared, err := d.Follow.Change(ctx)
	if err != nil {
		return err
	}
	if err := shared.Decide(ctx, decide); err != nil {
		return APIError(err)
	}
	d.Log.Info("rollout changed", "rollout", id, "action", what)
	return d.Follow.Refresh(ctx, shared)
}

// Confirm puts a confirmation of some nodes, and returns when this server has adopted it.
func (d *Driver) Confirm(ctx context.Context, nodes []string, decide Decision) error {
	shared, err := d.Follow.Change(ctx)
	if err != nil {
		return err
	}
	if err := shared.Decide(ctx, decide); err != nil {
		return APIError(err)
	}
	d.Log.Info("nodes confirmed", "count", len(nodes))
	return d.Follow.Refresh(ctx, shared)
}

// APIError makes an error of a decision one of the API, with a hint what a person can do about a rollout that is in the
// way.
func APIError(err error) error {
	e, ok := follow.APIError(err).(*control.Error)
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
