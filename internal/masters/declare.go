package masters

import (
	"context"
	"strings"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/watch"
)

// Bounds of the quiet that a master must keep before a version is made of it.
const (
	defaultDebounce = 200 * time.Millisecond
	minDebounce     = time.Millisecond
	maxDebounce     = time.Minute
)

// Watch declares how an image's master is watched, or only tells how it would be. The error may be a control.Error.
func (m *Masters) Watch(ctx context.Context, r control.WatchRequest) (control.Watch, error) {
	im, ok := m.Follow.Cluster().Image(cluster.ImageName(r.Image))
	_, watched := m.Follow.Now().State.Watches[r.Image]
	if !ok && !(r.Off && watched) { // an image that has left the description may still be watched
		return control.Watch{}, control.Errorf(control.NotFound,
			"watch %s: the description has no such image", r.Image).
			WithHint("dim image ls lists the images")
	}
	w := coord.Watch{
		Server: string(m.Server), Rollout: r.Rollout, Debounce: time.Duration(r.Debounce * float64(time.Second)),
		Declared: time.Now().UTC(),
	}
	if w.Debounce == 0 {
		w.Debounce = defaultDebounce
	}
	if r.Off {
		if r.DryRun {
			out := m.Watched(m.Follow.Now(), r.Image)
			out.On = false
			return out, nil
		}
		return m.endWatch(ctx, r.Image)
	}
	if err := checkWatch(im, &w); err != nil {
		return control.Watch{}, err
	}
	if err := m.here("watch", im); err != nil {
		return control.Watch{}, err
	}
	if r.DryRun {
		out := m.describe(r.Image, w)
		if err := watch.Check(strings.TrimPrefix(im.Master, "dir:")); err != nil {
			out.Polling = err.Error()
		}
		return out, nil
	}
	return m.put(ctx, r.Image, &w)
}

// checkWatch returns an error unless an image's master can be watched so.
func checkWatch(im *cluster.Image, w *coord.Watch) error {
	switch {
	case !strings.HasPrefix(im.Master, "dir:"):
		return control.Errorf(control.Invalid,
			"watch %s: its master is %s, but only dir: can be watched", im.Name, im.Master)
	case w.Rollout != "" && w.Rollout != "now" && w.Rollout != "boot":
		return control.Errorf(control.Invalid, "watch %s: nodes cannot follow at %q", im.Name, w.Rollout).
			WithHint("--rollout now or --rollout boot")
	case w.Debounce < minDebounce || w.Debounce > maxDebounce:
		return control.Errorf(control.Invalid, "watch %s: a quiet of %v is not between %v and %v",
			im.Name, w.Debounce, minDebounce, maxDebounce)
	}
	return nil
}

// put declares how a master is watched; nil: it is not.
func (m *Masters) put(ctx context.Context, name string, w *coord.Watch) (control.Watch, error) {
	shared, err := m.Follow.Change(ctx)
	if err != nil {
		return control.Watch{}, err
	}
	if err := shared.PutWatch(ctx, name, w); err != nil {
		return control.Watch{}, follow.APIError(err)
	}
	if err := m.Follow.Refresh(ctx, shared); err != nil {
		return control.Watch{}, err
	}
	return m.Watched(m.Follow.Now(), name), nil
}

// endWatch declares that a master is no longer watched, and returns when it is not.
func (m *Masters) endWatch(ctx context.Context, name string) (control.Watch, error) {
	x := m.watchedMaster(name)
	out, err := m.put(ctx, name, nil)
	if err != nil || x == nil {
		return out, err
	}
	select {
	case <-x.ended:
	case <-ctx.Done():
	}
	return m.Watched(m.Follow.Now(), name), nil
}

// Watched returns how an image's master is watched.
func (m *Masters) Watched(now *follow.Declared, name string) control.Watch {
	w, ok := now.State.Watches[name]
	if !ok {
		return control.Watch{Image: name}
	}
	out := m.describe(name, w)
	x := m.watchedMaster(name)
	if x == nil {
		return out
	}
	s := x.watcher.State()
	out.Since, out.Polling, out.Interval = s.Since, s.Polling, s.Interval.Seconds()
	out.Walks, out.Lost = s.Walks, s.Lost
	if s.Err != nil {
		out.Problem = s.Err.Error()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	out.Versions, out.Last, out.Made = x.versions, x.last.Number, x.last.Created
	return out
}

func (m *Masters) describe(name string, w coord.Watch) control.Watch {
	out := control.Watch{
		Image: name, On: true, Server: w.Server, Rollout: w.Rollout, Debounce: w.Debounce.Seconds(),
		Declared: w.Declared,
	}
	if im, ok := m.Follow.Cluster().Image(cluster.ImageName(name)); ok {
		out.Master = im.Master
	}
	return out
}
