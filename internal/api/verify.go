package api

import (
	"context"
	"errors"
	"slices"
	"time"

	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/store"
)

// progressInterval is the least time between two reports of how far a long call is.
const progressInterval = 200 * time.Millisecond

// Verify implements control.Backend. What is damaged is brought anew from another server, if there is one.
func (api *API) Verify(
	ctx context.Context, ref string, progress func(control.Progress),
) (out control.VerifyResult, err error) {
	c := storeCheck{API: api, began: time.Now(), progress: progress}
	if ref != "" {
		v, err := api.Follow.Now().Resolve(ref)
		if err != nil {
			return out, err
		}
		out.Ref, out.Digest, c.version = v.Ref().String(), v.Digest.String(), &v
	}
	records := api.Registry.RewriteRecords(ctx)
	found, err := c.run(ctx)
	out.Objects, out.Bytes = c.done.Objects, c.done.Bytes
	if err == nil && len(found) > 0 {
		found, out.Replaced, err = c.repair(ctx, found)
	}
	out.Problems = slices.Concat([]string{}, records, texts(found))
	out.Replaced = slices.Concat([]string{}, out.Replaced)
	out.Seconds = time.Since(c.began).Seconds()
	for _, text := range out.Problems {
		api.Log.Error("verify found a problem", "reason", text)
	}
	return out, err
}

// storeCheck is one call of Verify.
type storeCheck struct {
	*API
	version  *image.Version // nil: the whole store
	began    time.Time
	reported time.Time
	progress func(control.Progress)
	done     store.CheckProgress
}

// run reads the version or the store.
func (c *storeCheck) run(ctx context.Context) (found []store.Problem, err error) {
	o := store.CheckObserver{
		Problem: func(p store.Problem) { found = append(found, p) },
		Progress: func(at store.CheckProgress) {
			c.done = at
			if now := time.Now(); now.Sub(c.reported) >= progressInterval {
				c.reported = now
				c.progress(control.Progress{
					Image: "store", Stage: "verify", Started: c.began, Files: at.Objects, Bytes: at.Bytes,
				})
			}
		},
	}
	if c.version == nil {
		err = c.Store.Check(ctx, o)
	} else {
		err = c.Store.CheckVersion(ctx, *c.version, o)
	}
	return found, err
}

// repair brings what was found to be damaged from other servers. It returns what is damaged now, and what is not any
// more.
func (c *storeCheck) repair(
	ctx context.Context, found []store.Problem,
) (left []store.Problem, replaced []string, err error) {
	damaged := map[image.Digest]bool{}
	for _, p := range found {
		if !p.Object.IsZero() {
			damaged[p.Object] = true
		}
	}
	versions, err := c.held()
	if err != nil || len(damaged) == 0 {
		return found, nil, err
	}
	asked, err := c.Holdings.Repair(ctx, versions, damaged)
	if err != nil {
		c.Log.Warn("what is damaged could not be brought from another server", "error", err)
	}
	if !asked {
		return found, nil, ctx.Err()
	}
	if left, err = c.run(ctx); err != nil {
		return found, nil, err
	}
	still := texts(left)
	for _, text := range texts(found) {
		if !slices.Contains(still, text) {
			c.Log.Warn("what was damaged has been brought from another server", "reason", text)
			replaced = append(replaced, text)
		}
	}
	return left, replaced, nil
}

// held returns the versions of the store that are checked.
func (c *storeCheck) held() (list []image.Version, err error) {
	images, err := c.Store.Images()
	for _, name := range images {
		var held []image.Version
		if held, err = c.Store.Versions(name); err != nil {
			break
		}
		list = append(list, held...)
	}
	damaged, derr := c.Store.Damaged()
	for _, d := range damaged {
		if v, ok := c.Follow.Now().State.Resolve(d.Ref); ok {
			list = append(list, v)
		}
	}
	err = errors.Join(err, derr)
	if c.version != nil {
		list = slices.DeleteFunc(list, func(v image.Version) bool { return v.Digest != c.version.Digest })
	}
	return list, err
}

func texts(list []store.Problem) []string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.String()
	}
	return out
}
