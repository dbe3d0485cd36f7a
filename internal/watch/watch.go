// Package watch tells when something below a directory has changed, and where, so that a capture need not look for it.
//
// # How
//
// The kernel is asked for the events of the whole file system that the directory is on (fanotify with file handles), because that costs
// nothing for each directory of which there are thousands, and misses none that is made or moved in. An event names a directory by its handle;
// where that is, the kernel is asked once for each. Events of other parts of the file system cost a look into a table.
//
// Changes are collected until it has been quiet for a moment, or until they have gone on for too long, and are then handed to Options.Do.
// What Do could not deal with comes again, with what came since.
//
// # What is not told
//
// Writes to a mapped file are told when it is unmapped. What is mounted in the directory, and what is unmounted, is not told. Therefore,
// everything is looked at now and then (Options.Every), as it is at the start, when the kernel lost events, and when
// the directory or its file system is no longer the same. Where the kernel cannot tell (see UnsupportedError), everything is looked at every few
// seconds, and State says why.
//
// # What it must not know
//
// What is done about changes: captures, images.
package watch

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options tell what to watch, and how.
type Options struct {
	Dir      string
	Debounce time.Duration // how long it must be quiet before changes are handed on
	Every    time.Duration // after which everything is looked at; 0: 10 minutes
	// Skip reports whether nothing that happens in a directory below Dir matters.
	Skip func(dir string) bool
	// Do deals with changes. It reports whether it made something of them; how often it can is limited. An error that is
	// ErrLater is no failure.
	Do  func(context.Context, Changes) (made bool, err error)
	Log *slog.Logger
}

// ErrLater is what Options.Do returns when it is not the time yet, because something is still being written.
var ErrLater = errors.New("still being changed")

// State is how a Watcher is.
type State struct {
	Since    time.Time     // it runs
	Polling  string        // why it has to look at everything, instead of being told; "" when it is told
	Interval time.Duration // after which everything is looked at
	Walks    int           // how often everything was
	Lost     int           // how often events were lost, and everything was looked at instead
	Err      error         // of the last Do; nil: it went well
}

// Watcher watches one directory.
type Watcher struct {
	o     Options
	queue uint          // flags of the kernel's queue
	wake  chan struct{} // capacity 1: something is to be dealt with

	mu      sync.Mutex
	pending pending
	state   State

	lostText string // that was said last
}

// Intervals of looking at everything.
const (
	fullEvery = 10 * time.Minute
	pollEvery = 5 * time.Second
	// pollShare bounds what polling costs: the time between two looks is so many times what a look takes.
	pollShare = 20
)

const (
	checkEvery = time.Second // whether events still come
	firstPause = time.Second // after a failure
	lastPause  = 30 * time.Second
)

// New returns a Watcher, which watches when it Runs.
func New(o Options) *Watcher {
	if o.Every <= 0 {
		o.Every = fullEvery
	}
	return &Watcher{o: o, queue: unix.FAN_UNLIMITED_QUEUE, wake: make(chan struct{}, 1), pending: newPending(time.Now)}
}

// State returns how it is.
func (w *Watcher) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	w.note(func(s *State) { s.Since, s.Interval = time.Now(), w.o.Every })
	var wg sync.WaitGroup
	wg.Go(func() { w.listen(ctx) })
	w.deal(ctx)
	wg.Wait()
}

func (w *Watcher) note(change func(*State)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.state)
}

func (w *Watcher) add(c Changes) {
	w.mu.Lock()
	w.pending.add(c)
	w.mu.Unlock()
	w.rouse()
}

func (w *Watcher) rouse() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// listen takes in what the kernel tells.
func (w *Watcher) listen(ctx context.Context) {
	said := ""
	for ctx.Err() == nil {
		k, err := openKernel(w.o.Dir, w.queue)
		if err == nil {
			w.note(func(s *State) { s.Polling, s.Interval = "", w.o.Every })
			w.add(Changes{All: true}) // of what happened before nothing is told
			err = w.hear(ctx, k)
			k.close()
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		if said != err.Error() {
			said = err.Error()
			w.o.Log.Warn("changes are not told by the kernel", "dir", w.o.Dir, "err", err)
		}
		if w.polls(said) {
			w.add(Changes{All: true})
		}
		pause(ctx, pollEvery)
	}
}

// polls notes why everything is looked at now and then, and reports whether that is news.
func (w *Watcher) polls(why string) (news bool) {
	w.note(func(s *State) { news, s.Polling = s.Polling == "", why })
	return news
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// hear takes in events until ctx ends or the directory has to be looked for again, which is no error.
func (w *Watcher) hear(ctx context.Context, k *kernel) error {
	f := newFinder(w.o.Dir, w.o.Skip)
	stop := context.AfterFunc(ctx, k.close)
	defer stop()
	for checked := time.Now(); ; {
		b, err := k.read(time.Now().Add(checkEvery))
		if err == nil && len(b) > 0 {
			err = w.take(f, b)
		}
		if err != nil || ctx.Err() != nil {
			return err
		}
		if time.Since(checked) < checkEvery {
			continue
		}
		if !k.follows(w.o.Dir) {
			return nil
		}
		checked = time.Now()
	}
}

func (w *Watcher) take(f *finder, b []byte) error {
	if err := f.begin(); err != nil {
		return err
	}
	defer f.end()
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(b) > 0 {
		e, rest, err := nextEvent(b)
		if err != nil {
			return err
		}
		b = rest
		if err := f.sort(&e, &w.pending); err != nil {
			w.pending.add(Changes{All: true})
			w.lose(err)
		}
	}
	if !w.pending.first.IsZero() {
		w.rouse()
	}
	return nil
}

// lose notes that events could not be made anything of; w.mu is held.
func (w *Watcher) lose(err error) {
	w.state.Lost++
	if w.lostText != err.Error() {
		w.lostText = err.Error()
		w.o.Log.Warn("events were lost; everything is looked at", "dir", w.o.Dir, "err", err)
	}
}

// dealer is what decides when the next changes are dealt with.
type dealer struct {
	pace      pace
	walked    time.Time     // when everything was looked at last
	took      time.Duration // that
	notBefore time.Time
	pause     time.Duration // after the last failure
}

// deal hands changes to Options.Do when they are due.
func (w *Watcher) deal(ctx context.Context) {
	d := dealer{walked: time.Now()}
	for {
		w.await(ctx, func() time.Time { return w.due(&d) })
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		c := w.pending.take()
		w.mu.Unlock()
		begin := time.Now()
		c.All = c.All || c.Since.IsZero() || !begin.Before(d.walked.Add(w.interval(d.took)))
		made, err := w.o.Do(ctx, c)
		now := time.Now()
		if made {
			d.pace.spend(now)
		}
		if err == nil && c.All {
			d.walked, d.took = now, now.Sub(begin)
		}
		d.pause = w.settle(ctx, c, err, d.pause)
		d.notBefore = now.Add(d.pause)
	}
}

func (w *Watcher) due(d *dealer) time.Time {
	t := d.walked.Add(w.interval(d.took))
	w.mu.Lock()
	defer w.mu.Unlock()
	if due, any := w.pending.due(w.o.Debounce); any {
		t = earlier(t, later(due, d.pace.next()))
	}
	return later(t, d.notBefore)
}

// settle notes how dealing with c went and returns how long to wait before the next attempt.
func (w *Watcher) settle(ctx context.Context, c Changes, err error, paused time.Duration) time.Duration {
	if err != nil && ctx.Err() == nil {
		w.add(c)
	}
	if errors.Is(err, ErrLater) {
		return firstPause
	}
	w.note(func(s *State) {
		s.Err = err
		if c.All && err == nil {
			s.Walks++
		}
	})
	if err == nil {
		return 0
	}
	return min(max(2*paused, firstPause), lastPause)
}

// interval returns how long after a look at everything the next one is.
func (w *Watcher) interval(took time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state.Polling != "" {
		w.state.Interval = min(max(pollEvery, pollShare*took), w.o.Every)
	}
	return w.state.Interval
}

// await returns when due is past, or ctx ends. What is due may change with every event.
func (w *Watcher) await(ctx context.Context, due func() time.Time) {
	for {
		left := time.Until(due())
		if left <= 0 {
			return
		}
		timer := time.NewTimer(left)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-w.wake:
		}
		timer.Stop()
	}
}
