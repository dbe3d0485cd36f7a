package daemon

import (
	"context"
	"time"

	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/store"
)

// progressEvery is how often a long call tells how far it is.
const progressEvery = 200 * time.Millisecond

// Verify implements control.Backend.
func (d *daemon) Verify(ctx context.Context, ref string, progress func(control.Progress)) (control.VerifyResult, error) {
	begin := time.Now()
	out := control.VerifyResult{Problems: []string{}}
	told := begin
	h := store.Hearing{
		Problem: func(p store.Problem) { out.Problems = append(out.Problems, p.String()) },
		Progress: func(c store.Checked) {
			out.Objects, out.Bytes = c.Objects, c.Bytes
			if now := time.Now(); now.Sub(told) >= progressEvery {
				told = now
				progress(control.Progress{Image: "store", Stage: "verify", Started: begin, Files: c.Objects, Bytes: c.Bytes})
			}
		},
	}
	var err error
	if ref == "" {
		err = d.store.Check(ctx, h)
	} else {
		v, rerr := d.declared().resolve(ref)
		if rerr != nil {
			return out, rerr
		}
		out.Ref = v.Ref().String()
		err = d.store.CheckVersion(ctx, v, h)
	}
	out.Seconds = time.Since(begin).Seconds()
	for _, text := range out.Problems {
		d.log.Error("verify found a problem", "problem", text)
	}
	return out, err
}

// Untag implements control.Backend.
func (d *daemon) Untag(ctx context.Context, ref string) (control.Version, error) {
	v, err := d.declared().resolve(ref)
	if err != nil {
		return control.Version{}, err
	}
	r, _ := image.ParseRef(ref) // resolve has parsed it
	if r.Tag == "" {
		return control.Version{}, control.Errorf(control.Invalid, "remove tag %s: it names no tag, as %s@stable does", ref, v.Image)
	}
	shared, err := d.change(ctx)
	if err != nil {
		return control.Version{}, err
	}
	if err := shared.RemoveTag(ctx, v.Image, r.Tag, v.Number); err != nil {
		return control.Version{}, coded(err)
	}
	if err := d.refresh(ctx, shared); err != nil {
		return control.Version{}, err
	}
	return d.Version(ctx, v.Ref().String())
}
