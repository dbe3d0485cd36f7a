package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"dim/internal/capture"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/problems"
	"dim/internal/rollout"
	"dim/internal/store"
	"dim/internal/watch"
)

// Quiet that a master must keep before a version is made of it.
const (
	defaultDebounce = 200 * time.Millisecond
	leastDebounce   = time.Millisecond
	mostDebounce    = time.Minute
)

// patience is for how long a capture waits for a file that is written all the time.
const patience = time.Minute

// watches are the masters that this server watches.
type watches struct {
	again chan struct{} // capacity 1: what is declared may have changed

	mu   sync.Mutex
	list map[string]*watched // by image
}

func newWatches() watches { return watches{again: make(chan struct{}, 1), list: map[string]*watched{}} }

func (w *watches) rouse() {
	select {
	case w.again <- struct{}{}:
	default:
	}
}

func (w *watches) get(name string) *watched {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.list[name]
}

// watched is one master that is watched.
type watched struct {
	d       *daemon
	from    watchedFrom
	follow  *capture.Follower
	watcher *watch.Watcher
	cancel  context.CancelFunc
	ended   chan struct{}

	capturing chan struct{} // capacity 1: full while the master is captured, by hand as well; filled before all locks of the daemon
	since     time.Time     // of what is captured now
	behind    bool          // nodes have not followed the last version yet

	mu       sync.Mutex
	versions int
	last     image.Version
}

// watchedFrom is what it is made of: when that changes, it is made anew.
type watchedFrom struct {
	image, dir, exclude string
	declared            coord.Watch
}

// watchMasters watches what is declared to be watched here, until ctx ends.
func (d *daemon) watchMasters(ctx context.Context) error {
	for {
		d.adjustWatches(ctx, d.declared())
		select {
		case <-ctx.Done():
			d.adjustWatches(ctx, &declared{cluster: d.cluster()})
			return nil
		case <-d.watches.again:
		}
	}
}

func (d *daemon) adjustWatches(ctx context.Context, now *declared) {
	wanted := map[string]watchedFrom{}
	for name, w := range now.state.Watches {
		im, ok := now.cluster.Image(cluster.ImageName(name))
		if !ok || w.Server != string(d.server) {
			continue
		}
		if dir, ok := strings.CutPrefix(im.Master, "dir:"); ok {
			wanted[name] = watchedFrom{name, dir, fmt.Sprint(im.Exclude), w}
		}
	}
	for name, x := range d.watches.all() {
		if wanted[name] == x.from {
			delete(wanted, name)
			continue
		}
		x.cancel()
		<-x.ended
		d.watches.put(name, nil)
	}
	for name, from := range wanted {
		im, _ := now.cluster.Image(cluster.ImageName(name))
		d.watches.put(name, d.startWatch(ctx, from, im.Exclude))
	}
}

func (w *watches) all() map[string]*watched {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := map[string]*watched{}
	for name, x := range w.list {
		list[name] = x
	}
	return list
}

func (w *watches) put(name string, x *watched) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.list[name] = x; x == nil {
		delete(w.list, name)
	}
}

func (d *daemon) startWatch(ctx context.Context, from watchedFrom, exclude image.Patterns) *watched {
	x := &watched{d: d, from: from, ended: make(chan struct{}), capturing: make(chan struct{}, 1)}
	o := capture.Options{
		Image: from.image, Dir: from.dir, Exclude: exclude, CacheDir: d.layout.notes(), Own: []string{d.config.Data}, Log: d.log,
		Reserve: d.reserve(from.image), Review: d.reviewWatched, Settled: func() bool { return time.Since(x.since) < patience },
	}
	x.follow = capture.NewFollower(d.store, o)
	x.watcher = watch.New(watch.Options{
		Dir: from.dir, Debounce: from.declared.Debounce, Skip: o.LeavesOut, Log: d.log, Do: x.do,
	})
	ctx, x.cancel = context.WithCancel(ctx)
	go func() {
		defer close(x.ended)
		d.log.Info("master watched", "image", from.image, "dir", from.dir)
		x.watcher.Run(ctx)
		x.capturing <- struct{}{}
		defer func() { <-x.capturing }()
		if err := x.follow.Close(); err != nil {
			d.log.Warn("notes for the next capture cannot be kept", "image", from.image, "error", err)
		}
	}()
	return x
}

// do makes a version of what changed, and lets nodes follow.
func (x *watched) do(ctx context.Context, c watch.Changes) (made bool, err error) {
	select {
	case x.capturing <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-x.capturing }()
	if err := x.d.settleVersions(ctx, x.from.image); err != nil {
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
	r, err := x.follow.Capture(ctx, touched)
	captured := time.Now()
	if _, locked := errors.AsType[*store.LockedError](err); locked || errors.Is(err, capture.ErrChanging) {
		return false, watch.ErrLater
	}
	if err == nil {
		err = x.publish(ctx, r)
	}
	if err == nil && r.Changed {
		x.d.log.Info("edit of a watched master followed", "version", r.Version.Ref().String(), "waited", began.Sub(x.since), "capture", captured.Sub(began),
			"rollout", time.Since(captured))
	}
	if ctx.Err() == nil {
		x.d.wrong.Set(problems.Image(x.from.image), err)
	}
	return r.Changed, err
}

func (x *watched) publish(ctx context.Context, r capture.Result) error {
	if err := x.d.publish(ctx, r); err != nil {
		return err
	}
	x.mu.Lock()
	x.last = r.Version
	if r.Changed {
		x.versions++
	}
	x.mu.Unlock()
	if x.from.declared.Rollout == "" {
		return nil
	}
	if x.behind = x.behind || r.Changed || x.untold(r.Version); !x.behind {
		return nil
	}
	_, err := x.d.Rollout(ctx, control.RolloutRequest{Version: r.Version.Ref().String(), When: x.from.declared.Rollout})
	if err != nil {
		return fmt.Errorf("%s is captured, but not rolled out: %w", r.Version.Ref(), err)
	}
	x.behind = false
	return nil
}

// untold reports whether a version was made since the master is watched and no rollout has ever led to it: it was captured by hand, or the server
// ended before nodes were told. One that was undone stays so.
func (x *watched) untold(v image.Version) bool {
	if v.Created.Before(x.from.declared.Declared) {
		return false
	}
	list, err := rollout.List(x.d.declared().state)
	return err == nil && !slices.ContainsFunc(list, func(r rollout.Rollout) bool { return r.Image == v.Image && r.Version == v.Number })
}

// alone waits until the master of an image is not captured because it is watched; it is not until release. The error is ctx's.
func (w *watches) alone(ctx context.Context, name string) (release func(), err error) {
	x := w.get(name)
	if x == nil {
		return func() {}, nil
	}
	select {
	case x.capturing <- struct{}{}:
		return func() { <-x.capturing }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Watch implements control.Backend.
func (d *daemon) Watch(ctx context.Context, r control.WatchRequest) (control.Watch, error) {
	im, ok := d.cluster().Image(cluster.ImageName(r.Image))
	_, watched := d.declared().state.Watches[r.Image]
	if !ok && !(r.Off && watched) { // what has left the description may be watched still
		return control.Watch{}, control.Errorf(control.NotFound, "watch %s: the description has no such image", r.Image).WithHint("dim image ls lists the images")
	}
	w := coord.Watch{Server: string(d.server), Rollout: r.Rollout, Debounce: time.Duration(r.Debounce * float64(time.Second)), Declared: time.Now().UTC()}
	if w.Debounce == 0 {
		w.Debounce = defaultDebounce
	}
	dir := ""
	if !r.Off {
		dir, ok = strings.CutPrefix(im.Master, "dir:")
	}
	switch {
	case r.Off:
	case !ok:
		return control.Watch{}, control.Errorf(control.Invalid, "watch %s: its master is %s, but only dir: can be watched", r.Image, im.Master)
	case w.Rollout != "" && w.Rollout != "now" && w.Rollout != "boot":
		return control.Watch{}, control.Errorf(control.Invalid, "watch %s: nodes cannot follow at %q", r.Image, w.Rollout).WithHint("--rollout now or --rollout boot")
	case w.Debounce < leastDebounce || w.Debounce > mostDebounce:
		return control.Watch{}, control.Errorf(control.Invalid, "watch %s: a quiet of %v is not between %v and %v", r.Image, w.Debounce, leastDebounce, mostDebounce)
	}
	if r.DryRun {
		return d.plannedWatch(r, &w, dir), nil
	}
	return d.putWatch(ctx, r, &w)
}

// plannedWatch tells how a master would be watched.
func (d *daemon) plannedWatch(r control.WatchRequest, w *coord.Watch, dir string) control.Watch {
	if r.Off {
		out := d.watchOf(d.declared(), r.Image)
		out.On = false
		return out
	}
	out := d.shownWatch(r.Image, *w)
	if err := watch.Check(dir); err != nil {
		out.Polling = err.Error()
	}
	return out
}

func (d *daemon) putWatch(ctx context.Context, r control.WatchRequest, w *coord.Watch) (control.Watch, error) {
	shared, err := d.change(ctx)
	if err != nil {
		return control.Watch{}, err
	}
	if r.Off {
		w = nil
	}
	if err := shared.PutWatch(ctx, r.Image, w); err != nil {
		return control.Watch{}, coded(err)
	}
	x := d.watches.get(r.Image)
	if err := d.refresh(ctx, shared); err != nil {
		return control.Watch{}, err
	}
	if r.Off && x != nil {
		select {
		case <-x.ended:
		case <-ctx.Done():
		}
	}
	return d.watchOf(d.declared(), r.Image), nil
}

// putWatches puts what was kept of a state that was lost.
func putWatches(ctx context.Context, c *coord.Coord, kept coord.State) error {
	for name, w := range kept.Watches {
		if err := c.PutWatch(ctx, name, &w); err != nil {
			return err
		}
	}
	return nil
}

// watchOf returns how an image's master is watched.
func (d *daemon) watchOf(now *declared, name string) control.Watch {
	w, ok := now.state.Watches[name]
	if !ok {
		return control.Watch{Image: name}
	}
	out := d.shownWatch(name, w)
	x := d.watches.get(name)
	if x == nil {
		return out
	}
	s := x.watcher.State()
	out.Since, out.Polling, out.Interval, out.Walks, out.Lost = s.Since, s.Polling, s.Interval.Seconds(), s.Walks, s.Lost
	if s.Err != nil {
		out.Problem = s.Err.Error()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	out.Versions, out.Last, out.Made = x.versions, x.last.Number, x.last.Created
	return out
}

// declaredWatch returns how an image's master is watched; nil: it is not.
func (d *daemon) declaredWatch(now *declared, name string) *control.Watch {
	w := d.watchOf(now, name)
	if !w.On {
		return nil
	}
	return &w
}

func (d *daemon) shownWatch(name string, w coord.Watch) control.Watch {
	out := control.Watch{Image: name, On: true, Server: w.Server, Rollout: w.Rollout, Debounce: w.Debounce.Seconds(), Declared: w.Declared}
	if im, ok := d.cluster().Image(cluster.ImageName(name)); ok {
		out.Master = im.Master
	}
	return out
}
