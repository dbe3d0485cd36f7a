// Package watch reports changes below a directory and where they are, so that a capture need not search for them.
//
// # How
//
// The kernel reports the events of the whole file system of the directory (fanotify with file handles). That costs
// nothing for each of the thousands of directories, and includes directories that are created or moved in later. An
// event names a directory by its handle. The path of a handle is looked up once and kept; an event of another part of
// the file system costs one lookup in a table.
//
// Changes are collected until there have been none for a moment, or until they have gone on for too long. Then they are
// passed to Options.Do. If Do fails, they are passed again, together with later changes.
//
// # Changes without an event
//
// Writes to a mapped file are reported when it is unmapped. Mounts and unmounts in the directory are not reported.
// Therefore Do is called for the whole directory:
//
//   - at the start
//   - at intervals (Options.Every)
//   - when the kernel has lost events
//   - when the directory or its file system has been replaced
//
// If the kernel cannot report events, Do is called for the whole directory every few seconds, and State says why.
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

// Options of a Watcher.
type Options struct {
	Dir      string
	Debounce time.Duration // time without a change before the changes are passed to Do
	Every    time.Duration // interval between calls of Do for the whole directory; 0: 10 minutes
	// Skip reports whether changes in a directory below Dir have no effect.
	Skip func(dir string) bool
	// Do handles changes. It reports whether it has made something of them; the rate of that is limited. ErrLater is no
	// failure.
	Do  func(context.Context, Changes) (made bool, err error)
	Log *slog.Logger
}

// ErrLater is returned by Options.Do if it must be called again later, because a file is still being written.
var ErrLater = errors.New("still being changed")

// State describes a Watcher.
type State struct {
	Since    time.Time     // when it was started
	Polling  string        // why the kernel does not report events; "": it does
	Interval time.Duration // between calls of Do for the whole directory
	Walks    int           // calls of Do for the whole directory
	Lost     int           // how often events were lost
	Err      error         // of the last Do
}

// Watcher watches one directory.
type Watcher struct {
	o     Options
	queue uint          // flags of fanotify_init that bound the queue
	wake  chan struct{} // capacity 1: there are changes

	mu      sync.Mutex
	pending pending
	state   State

	loggedLoss string // the last error that eventsLost has logged
}

// Intervals between calls of Do for the whole directory.
const (
	fullEvery = 10 * time.Minute
	pollEvery = 5 * time.Second
	// pollShare bounds the cost of polling: the interval is at least so many times the duration of one call.
	pollShare = 20
)

const (
	checkEvery = time.Second // interval between checks that the directory is still watched
	firstPause = time.Second // after a failure
	lastPause  = 30 * time.Second
)

// New returns a Watcher. It watches during Run.
func New(o Options) *Watcher {
	if o.Every <= 0 {
		o.Every = fullEvery
	}
	return &Watcher{
		o: o, queue: unix.FAN_UNLIMITED_QUEUE, wake: make(chan struct{}, 1), pending: newPending(time.Now),
	}
}

// State returns the state of the Watcher.
func (w *Watcher) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	w.setState(func(s *State) { s.Since, s.Interval = time.Now(), w.o.Every })
	var wg sync.WaitGroup
	wg.Go(func() { w.listen(ctx) })
	w.dispatch(ctx)
	wg.Wait()
}

func (w *Watcher) setState(change func(*State)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.state)
}

func (w *Watcher) add(c Changes) {
	w.mu.Lock()
	w.pending.add(c)
	w.mu.Unlock()
	w.signal()
}

func (w *Watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// listen collects the events of the kernel, and opens the queue again when the directory is replaced.
func (w *Watcher) listen(ctx context.Context) {
	logged := ""
	for ctx.Err() == nil {
		k, err := openEvents(w.o.Dir, w.queue)
		if err == nil {
			w.setState(func(s *State) { s.Polling, s.Interval = "", w.o.Every })
			w.add(Changes{All: true}) // there are no events of earlier changes
			err = w.readEvents(ctx, k)
			k.close()
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		if logged != err.Error() {
			logged = err.Error()
			w.o.Log.Warn("kernel does not report changes; the directory is polled", "dir", w.o.Dir, "error", err)
		}
		if w.startPolling(logged) {
			w.add(Changes{All: true})
		}
		pause(ctx, pollEvery)
	}
}

// startPolling sets the reason for polling. It reports whether the Watcher did not poll before.
func (w *Watcher) startPolling(reason string) (started bool) {
	w.setState(func(s *State) { started, s.Polling = s.Polling == "", reason })
	return started
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// readEvents records events until ctx ends, or until the directory is not watched any more, which is no error.
func (w *Watcher) readEvents(ctx context.Context, k *eventQueue) error {
	f := newLocator(w.o.Dir, w.o.Skip)
	stop := context.AfterFunc(ctx, k.close)
	defer stop()
	for checked := time.Now(); ; {
		b, err := k.read(time.Now().Add(checkEvery))
		if err == nil && len(b) > 0 {
			err = w.record(f, b)
		}
		if err != nil || ctx.Err() != nil {
			return err
		}
		if time.Since(checked) < checkEvery {
			continue
		}
		if !k.watches(w.o.Dir) {
			return nil
		}
		checked = time.Now()
	}
}

func (w *Watcher) record(f *locator, b []byte) error {
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
		if err := f.record(&e, &w.pending); err != nil {
			w.pending.add(Changes{All: true})
			w.eventsLost(err)
		}
	}
	if !w.pending.first.IsZero() {
		w.signal()
	}
	return nil
}

// eventsLost counts events that were lost or could not be located. The caller holds w.mu.
func (w *Watcher) eventsLost(err error) {
	w.state.Lost++
	if w.loggedLoss != err.Error() {
		w.loggedLoss = err.Error()
		w.o.Log.Warn("events were lost; the whole directory is read", "dir", w.o.Dir, "error", err)
	}
}

// schedule decides when Do is called next.
type schedule struct {
	rate      rate
	walked    time.Time     // last call of Do for the whole directory
	took      time.Duration // its duration
	notBefore time.Time
	pause     time.Duration // after the last failure
}

// dispatch calls Options.Do whenever changes are due.
func (w *Watcher) dispatch(ctx context.Context) {
	d := schedule{walked: time.Now()}
	for {
		w.waitUntil(ctx, func() time.Time { return w.due(&d) })
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		c := w.pending.drain()
		w.mu.Unlock()
		begin := time.Now()
		c.All = c.All || c.Since.IsZero() || !begin.Before(d.walked.Add(w.interval(d.took)))
		made, err := w.o.Do(ctx, c)
		now := time.Now()
		if made {
			d.rate.spend(now)
		}
		if err == nil && c.All {
			d.walked, d.took = now, now.Sub(begin)
		}
		d.pause = w.finish(ctx, c, err, d.pause)
		d.notBefore = now.Add(d.pause)
	}
}

func (w *Watcher) due(d *schedule) time.Time {
	t := d.walked.Add(w.interval(d.took))
	w.mu.Lock()
	defer w.mu.Unlock()
	if due, any := w.pending.due(w.o.Debounce); any {
		t = earlier(t, later(due, d.rate.next()))
	}
	return later(t, d.notBefore)
}

// finish records the result of Do, and returns the pause before the next call.
func (w *Watcher) finish(ctx context.Context, c Changes, err error, paused time.Duration) time.Duration {
	if err != nil && ctx.Err() == nil {
		w.add(c)
	}
	if errors.Is(err, ErrLater) {
		return firstPause
	}
	w.setState(func(s *State) {
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

// interval returns the interval between calls of Do for the whole directory. Took is the duration of the last one.
func (w *Watcher) interval(took time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.state.Polling != "" {
		w.state.Interval = min(max(pollEvery, pollShare*took), w.o.Every)
	}
	return w.state.Interval
}

// waitUntil returns when the time due has passed, or when ctx ends. Due may change with every event.
func (w *Watcher) waitUntil(ctx context.Context, due func() time.Time) {
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
