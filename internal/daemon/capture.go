package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"dim/internal/capture"
	"dim/internal/capture/remote"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/problems"
	"dim/internal/store"
)

// Capture implements control.Backend.
func (d *daemon) Capture(ctx context.Context, r control.CaptureRequest, progress func(control.Progress)) (control.CaptureResult, error) {
	im, ok := d.cluster().Image(cluster.ImageName(r.Image))
	if !ok {
		return control.CaptureResult{}, control.Errorf(control.NotFound, "capture %s: the description has no such image", r.Image).WithHint("dim image ls lists the images")
	}
	if r.Rollout != nil {
		if err := checkManner(d.cluster(), im, *r.Rollout); err != nil {
			return control.CaptureResult{}, err
		}
	}
	if _, err := d.change(ctx); err != nil {
		return control.CaptureResult{}, err
	}
	release, err := d.watches.alone(ctx, r.Image)
	if err != nil {
		return control.CaptureResult{}, err
	}
	defer release()
	if err := d.settleVersions(ctx, r.Image); err != nil {
		return control.CaptureResult{}, err
	}
	begin := time.Now()
	note := func(p capture.Progress) {
		now := control.Progress{
			Image: r.Image, Stage: "read", Started: begin, Files: p.Files, FilesTotal: p.TotalFiles, Bytes: p.Bytes, BytesTotal: p.TotalBytes,
		}
		d.mu.Lock()
		d.captures[r.Image] = now
		d.mu.Unlock()
		progress(now)
	}
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.captures, r.Image)
	}()
	watch := d.newSecretWatch(im, func(text string) {
		progress(control.Progress{Image: r.Image, Stage: "look", Started: begin, Warning: text})
	})
	result, err := capture.Run(ctx, d.store, capture.Options{
		Image: r.Image, Master: im.Master, Arch: im.Arch, Exclude: im.Exclude, CacheDir: d.layout.notes(), Own: []string{d.config.Data},
		DryRun: r.DryRun, Reserve: d.reserve(r.Image), Review: watch.review, Progress: note, Log: d.log,
	})
	if locked, ok := errors.AsType[*store.LockedError](err); ok {
		return control.CaptureResult{}, control.Errorf(control.Busy, "capture %s: it is being captured already, by %s", r.Image, locked.Holder)
	}
	if far, ok := errors.AsType[*remote.Error](err); ok {
		err = control.Errorf(control.Unavailable, "%v", err).WithHint(far.Hint)
	}
	if err == nil && !r.DryRun {
		err = d.publish(ctx, result)
	}
	if !r.DryRun && ctx.Err() == nil { // a capture that was called off has not failed
		d.wrong.Set(problems.Image(r.Image), err)
	}
	if err != nil {
		return control.CaptureResult{}, err
	}
	if !r.DryRun {
		watch.remember()
	}
	out := d.captured(r, result, time.Since(begin))
	if r.Rollout != nil && !r.DryRun && out.Version.Number > 0 {
		begun, err := d.rollOut(ctx, r, result.Version)
		if err != nil {
			return out, err
		}
		out = d.captured(r, result, time.Since(begin)) // who follows what has changed
		out.Rollout = &begun
	}
	out.Secrets = watch.found
	d.explain(ctx, &out, result)
	return out, nil
}

// rollOut lets nodes follow what was captured.
func (d *daemon) rollOut(ctx context.Context, r control.CaptureRequest, v image.Version) (control.Rollout, error) {
	moved := *r.Rollout
	moved.Version = v.Ref().String()
	begun, err := d.Rollout(ctx, moved)
	if err != nil {
		err = fmt.Errorf("%s is captured, but not rolled out: %w", v.Ref(), err)
	}
	return begun, err
}

// explain adds to a capture what its changes mean; the version is there and whole without.
func (d *daemon) explain(ctx context.Context, out *control.CaptureResult, in capture.Result) {
	if in.Changes == nil {
		return
	}
	v, err := d.compare.Verdict(ctx, &in.Before, &in.Version)
	if err != nil {
		out.Warnings = append(out.Warnings, "what the change means is not known: "+err.Error())
		return
	}
	shown := meant(v)
	out.Verdict, out.Packages = &shown, packages(v.Packages)
	out.Warnings = append(out.Warnings, unread(v)...)
}

func (d *daemon) captured(r control.CaptureRequest, in capture.Result, took time.Duration) control.CaptureResult {
	now, v := d.declared(), in.Version
	if r.DryRun {
		v, _ = now.state.Images[r.Image].Newest()
	}
	out := control.CaptureResult{
		Version: d.shown(now, v), Unchanged: !in.Changed, DryRun: r.DryRun, Counts: map[control.ChangeKind]int{},
		Changes: []control.Change{}, Warnings: []string{}, Seconds: took.Seconds(),
	}
	current, _ := now.state.Images[r.Image].Followed()
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
	for _, p := range in.Problems {
		out.Warnings = append(out.Warnings, p.String())
	}
	return out
}
