package api

import (
	"context"
	"fmt"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/masters"
)

// Capture implements control.Backend.
func (api *API) Capture(
	ctx context.Context, r control.CaptureRequest, progress func(control.Progress),
) (out control.CaptureResult, err error) {
	im, ok := api.Follow.Cluster().Image(cluster.ImageName(r.Image))
	if !ok {
		return out, control.Errorf(control.NotFound, "capture %s: the description has no such image", r.Image).
			WithHint("dim image ls lists the images")
	}
	if r.Rollout != nil {
		if err := api.Driver.Check(api.Follow.Now(), im, *r.Rollout); err != nil {
			return out, err
		}
	}
	begin := time.Now()
	done, err := api.Masters.Capture(ctx, im, r, progress)
	if err != nil {
		return out, err
	}
	out = api.captured(r, &done)
	if r.Rollout != nil && !r.DryRun && out.Version.Number > 0 {
		begun, err := api.rollOut(ctx, *r.Rollout, done.Version)
		if err != nil {
			return out, err
		}
		out = api.captured(r, &done) // which nodes show it has changed
		out.Rollout = &begun
	}
	out.Seconds = time.Since(begin).Seconds()
	api.explain(ctx, &out, &done)
	return out, nil
}

// rollOut lets nodes follow a version that was captured.
func (api *API) rollOut(ctx context.Context, r control.RolloutRequest, v image.Version) (control.Rollout, error) {
	r.Version = v.Ref().String()
	begun, err := api.Rollout(ctx, r)
	if err != nil {
		err = fmt.Errorf("%s is captured, but not rolled out: %w", v.Ref(), err)
	}
	return begun, err
}

// explain adds to a capture what its changes mean. The version is whole without it.
func (api *API) explain(ctx context.Context, out *control.CaptureResult, in *masters.Captured) {
	if in.Changes == nil {
		return
	}
	v, err := api.Compare.Verdict(ctx, &in.Before, &in.Version)
	if err != nil {
		out.Warnings = append(out.Warnings, control.Warning{
			Kind: control.WarnOdd, Text: "what the change means is not known: " + err.Error(), Hint: "dim image verify",
		})
		return
	}
	shown := meant(v)
	out.Verdict, out.Packages = &shown, packages(v.Packages)
	for _, text := range unread(v) {
		out.Warnings = append(out.Warnings, control.Warning{
			Kind: control.WarnPackages, Text: text, Hint: "dim image diff lists the files that differ",
		})
	}
}

// captured returns a capture as the API shows it.
func (api *API) captured(r control.CaptureRequest, in *masters.Captured) control.CaptureResult {
	now, v := api.Follow.Now(), in.Version
	if r.DryRun {
		v, _ = now.State.Images[r.Image].Newest()
	}
	out := control.CaptureResult{
		Version: api.version(now, v), Unchanged: !in.Changed, DryRun: r.DryRun, Counts: map[control.ChangeKind]int{},
		Changes: []control.Change{}, Warnings: []control.Warning{},
	}
	current, _ := now.State.Images[r.Image].Followed()
	out.Current = current.Number
	for _, c := range in.Changes {
		shown := changed(c)
		out.Counts[shown.Kind]++
		if len(out.Changes) < r.Show {
			out.Changes = append(out.Changes, shown)
		}
	}
	if in.Changed && in.Changes == nil {
		out.Counts[control.Added] = int(in.Added)
	}
	out.Warnings = append(out.Warnings, in.Warnings...)
	return out
}
