package masters

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"dim/internal/capture"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/problems"
	"dim/internal/rollout"
	"dim/internal/store"
	"dim/internal/watch"
)

// maxUnsettled bounds how long a capture waits for a file that is written all the time.
const maxUnsettled = time.Minute

// watched is one master that is watched.
type watched struct {
	m        *Masters
	of       watchSpec
	follower *capture.Follower
	watcher  *watch.Watcher
	cancel   context.CancelFunc
	ended    chan struct{}

	capturing chan struct{} // capacity 1: full while the master is captured, also by hand
	since     time.Time     // when the edit began that is captured now
	behind    bool          // nodes do not follow the last version yet

	mu       sync.Mutex
	versions int
	last     image.Version
}

// watchSpec is all that a watched master is made from.
type watchSpec struct {
	image, dir, exclude string
	declared            coord.Watch
}

// Adopted lets Run watch what a declared state says, and drops the problems of images that are no longer declared.
func (m *Masters) Adopted(_ context.Context, now *follow.Declared) {
	m.Problems.Remove(func(about problems.Subject) bool {
		_, declared := now.Cluster.Image(cluster.ImageName(about.Name))
		return about.Kind == problems.KindImage && !declared
	})
	select {
	case m.adjust <- struct{}{}:
	default:
	}
}

// Run watches the masters that are declared to be watched here, until ctx ends.
func (m *Masters) Run(ctx context.Context) error {
	for {
		m.adjustWatches(ctx, m.Follow.Now())
		select {
		case <-ctx.Done():
			m.adjustWatches(ctx, &follow.Declared{})
			return nil
		case <-m.adjust:
		}
	}
}

func (m *Masters) adjustWatches(ctx context.Context, now *follow.Declared) {
	wanted := map[string]watchSpec{}
	for name, w := range now.State.Watches {
		im, ok := now.Cluster.Image(cluster.ImageName(name))
		if !ok || w.Server != string(m.Server) {
			continue
		}
		if dir, ok := strings.CutPrefix(im.Master, "dir:"); ok {
			wanted[name] = watchSpec{name, dir, fmt.Sprint(im.Exclude), w}
		}
	}
	m.mu.Lock()
	running := maps.Clone(m.watched)
	m.mu.Unlock()
	for name, x := range running {
		if wanted[name] == x.of {
			delete(wanted, name)
			continue
		}
		x.cancel()
		<-x.ended
		m.setWatched(name, nil)
	}
	for name, spec := range wanted {
		im, _ := now.Cluster.Image(cluster.ImageName(name))
		m.setWatched(name, m.startWatch(ctx, spec, im))
	}
}

func (m *Masters) setWatched(name string, x *watched) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.watched[name] = x; x == nil {
		delete(m.watched, name)
	}
}

func (m *Masters) watchedMaster(name string) *watched {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.watched[name]
}

func (m *Masters) startWatch(ctx context.Context, spec watchSpec, im *cluster.Image) *watched {
	x := &watched{m: m, of: spec, ended: make(chan struct{}), capturing: make(chan struct{}, 1)}
	o := m.options(im)
	o.Dir, o.Review = spec.dir, m.reviewWatched
	o.Settled = func() bool { return time.Since(x.since) < maxUnsettled }
	x.follower = capture.NewFollower(m.Store, o)
	x.watcher = watch.New(watch.Options{
		Dir: spec.dir, Debounce: spec.declared.Debounce, Skip: o.LeavesOut, Log: m.Log, Do: x.capture,
	})
	ctx, x.cancel = context.WithCancel(ctx)
	go func() {
		defer close(x.ended)
		m.Log.Info("master watched", "image", spec.image, "dir", spec.dir)
		x.watcher.Run(ctx)
		x.capturing <- struct{}{}
		defer func() { <-x.capturing }()
		if err := x.follower.Close(); err != nil {
			m.Log.Warn("notes for the next capture cannot be kept", "image", spec.image, "error", err)
		}
	}()
	return x
}

// exclusive waits until the watch of an image's master does not capture. It does not before release is called. The
// error is ctx's.
func (m *Masters) exclusive(ctx context.Context, name string) (release func(), err error) {
	x := m.watchedMaster(name)
	if x == nil {
		return func() {}, nil
	}
	return x.lock(ctx)
}

func (x *watched) lock(ctx context.Context) (release func(), err error) {
	select {
	case x.capturing <- struct{}{}:
		return func() { <-x.capturing }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// capture makes a version of what changed, and lets nodes follow it. It reports whether it made one.
func (x *watched) capture(ctx context.Context, c watch.Changes) (made bool, err error) {
	release, err := x.lock(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	if err := x.m.Versions.Settle(ctx, x.of.image); err != nil {
		return false, err
	}
	if x.since = c.Since; c.Since.IsZero() {
		x.since = time.Now()
	}
	var touched *capture.Touched
	if !c.All {
		touched = &capture.Touched{Dirs: c.Dirs, Trees: c.Trees, Inodes: c.Inodes}
	}
	began := time.Now()
	r, err := x.follower.Capture(ctx, touched)
	captured := time.Now()
	if _, locked := errors.AsType[*store.LockedError](err); locked || errors.Is(err, capture.ErrChanging) {
		return false, watch.ErrLater
	}
	if err == nil {
		err = x.publish(ctx, r)
	}
	if err == nil && r.Changed {
		x.m.Log.Info("edit of a watched master followed",
			"version", r.Version.Ref().String(), "took", time.Since(x.since),
			"detail", fmt.Sprintf("quiet %v, capture %v, rollout %v",
				began.Sub(x.since), captured.Sub(began), time.Since(captured)))
	}
	err = apiError(x.of.image, err)
	if ctx.Err() == nil {
		x.m.Problems.Set(problems.Image(x.of.image), err)
	}
	return r.Changed, err
}

func (x *watched) publish(ctx context.Context, r capture.Result) error {
	if r.Changed {
		if err := x.m.Versions.Publish(ctx, r.Version); err != nil {
			return err
		}
	}
	x.mu.Lock()
	x.last = r.Version
	if r.Changed {
		x.versions++
	}
	x.mu.Unlock()
	if x.of.declared.Rollout == "" {
		return nil
	}
	if x.behind = x.behind || r.Changed || x.neverRolledOut(r.Version); !x.behind {
		return nil
	}
	err := x.m.RollOut(ctx, control.RolloutRequest{Version: r.Version.Ref().String(), When: x.of.declared.Rollout})
	if err != nil {
		return fmt.Errorf("%s is captured, but not rolled out: %w", r.Version.Ref(), err)
	}
	x.behind = false
	return nil
}

// neverRolledOut reports whether a version was made since the master is watched and no rollout has ever led to it: it
// was captured by hand, or the server ended before the rollout began. A rollout that was undone counts.
func (x *watched) neverRolledOut(v image.Version) bool {
	if v.Created.Before(x.of.declared.Declared) {
		return false
	}
	list, err := x.m.Follow.Now().Rollouts().Outlines()
	return err == nil && !slices.ContainsFunc(list, func(r rollout.Outline) bool { return r.Ref() == v.Ref() })
}
