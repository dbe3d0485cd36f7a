package api

import (
	"context"
	"slices"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/driver"
	"dim/internal/follow"
	"dim/internal/rollout"
)

// Rollout implements control.Backend.
func (api *API) Rollout(ctx context.Context, r control.RolloutRequest) (control.Rollout, error) {
	if !api.Follow.IsHead() {
		_, err := api.Follow.Change(ctx)
		return control.Rollout{}, err
	}
	now := api.Follow.Now()
	planned, err := api.Driver.Plan(now, r)
	if err != nil {
		return control.Rollout{}, err
	}
	if r.DryRun {
		return api.planned(ctx, now, planned)
	}
	begun, did, err := api.Driver.Begin(ctx, planned)
	if err != nil {
		return control.Rollout{}, err
	}
	if !did {
		out := api.rollout(now, &planned)
		out.State = "nothing to do"
		return out, nil
	}
	return api.RolloutStatus(ctx, begun.ID)
}

// Rollouts implements control.Backend.
func (api *API) Rollouts(context.Context) ([]control.Rollout, error) {
	now := api.Follow.Now()
	all, err := now.Rollouts().List()
	if err != nil {
		api.Log.Error("rollout cannot be read", "error", err)
	}
	list := make([]control.Rollout, len(all))
	for i := range all {
		list[i] = api.rollout(now, &all[i])
	}
	return list, nil
}

// RolloutStatus implements control.Backend.
func (api *API) RolloutStatus(ctx context.Context, id int) (control.Rollout, error) {
	now := api.Follow.Now()
	if id == 0 {
		for known := range now.State.Rollouts {
			id = max(id, known)
		}
		if id == 0 {
			return control.Rollout{}, control.Errorf(control.NotFound, "there was no rollout yet").
				WithHint("dim rollout NODES NAME --when now begins one")
		}
	}
	r, ok, err := now.Rollouts().Load(id)
	if err == nil && !ok {
		err = control.Errorf(control.NotFound, "no such rollout: %d", id).WithHint("dim rollout ls lists them")
	}
	if err != nil {
		return control.Rollout{}, err
	}
	out := api.rollout(now, &r)
	kept := api.keptBy(&r)
	out.States = api.rolloutNodes(ctx, now, &r)
	out.Behind = stragglers(&r, out.States)
	for i := range out.States {
		if text := kept[cluster.NodeName(out.States[i].Node)]; text != "" {
			out.States[i].Verdict += "; " + text
		}
	}
	out.Own = slices.Concat(leftNodes(api.leftBy(&r)), keptNodes(kept), ownChanges(api.asideBy(&r)))
	return out, nil
}

// ChangeRollout implements control.Backend.
func (api *API) ChangeRollout(ctx context.Context, id int, in control.RolloutChange) (control.Rollout, error) {
	decide, err := api.Driver.Decide(id, in)
	if err != nil {
		return control.Rollout{}, err
	}
	if in.DryRun {
		now := api.Follow.Now()
		change, err := decide(now.State)
		if err != nil {
			return control.Rollout{}, driver.APIError(err)
		}
		return api.plannedChange(ctx, now, id, &change)
	}
	if err := api.Driver.Apply(ctx, id, in.Do, decide); err != nil {
		return control.Rollout{}, err
	}
	return api.RolloutStatus(ctx, id)
}

// rollout returns r as the API shows it.
func (api *API) rollout(now *follow.Declared, r *rollout.Rollout) control.Rollout {
	current, _ := now.State.Images[r.Image].Followed()
	out := control.Rollout{
		ID: r.ID, Image: r.Image, Version: r.Version, When: string(r.When),
		Nodes: r.Nodes().String(), Count: len(r.Nodes()), All: r.All,
		Soak: r.Soak.Seconds(), Check: r.Check, Hook: r.Hook, OnConflict: string(r.OnConflict),
		MaxFailed: r.MaxFailed, Skipped: r.Skipped,
		State: string(r.State), Ring: r.Ring + 1, Phase: string(r.Phase), Since: r.Since, Reason: r.Reason,
		Started: r.Started, Ended: r.Ended, Current: current.Number,
	}
	if r.State == rollout.Running {
		out.Reason = api.Driver.Waits(r.ID)
	}
	for _, ring := range r.Rings {
		shown := control.RolloutRing{
			Nodes: ring.Nodes.String(), Count: len(ring.Nodes), Without: ring.Without.String(),
		}
		if r.UnderWay() {
			n := api.Driver.ShownOf(ring.Nodes, r.Ref())
			shown.Shown = &n
		}
		out.Rings = append(out.Rings, shown)
	}
	if out.Shown = r.Shown; r.UnderWay() {
		n := api.Driver.Shown(r)
		out.Shown = &n
	}
	return out
}
