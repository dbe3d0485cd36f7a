package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Source is a server that may have what is missing.
type Source struct {
	Name string       // of the server
	URL  string       // of its API, without the path
	HTTP *http.Client // to that server
}

// Counts are what has been received from a source since the start.
type Counts struct {
	Bytes   uint64 // received
	Failed  uint64 // answers that did not come, or ended early
	Slow    uint64 // answers that were left for a faster source
	Refused uint64 // answers that no honest source gives
}

const (
	// stalled is for how long nothing may arrive.
	stalled = 20 * time.Second
	// hesitant is for how long nothing may arrive while another source is there.
	hesitant = 4 * time.Second
	// unfair is how many times faster another source must be for an answer to be left.
	unfair = 16
	// banned is for how long a source is left out that has given an answer that no honest source gives.
	banned = 10 * time.Minute
	// patience is how many times in a row an answer of a source may fail before it is left out of a pull.
	patience = 3
)

var (
	errSlow = errors.New("another source is faster")
	errLate = fmt.Errorf("%w: this one has not got in time what it was asked for", errSlow)
	errBusy = errors.New("the server sends as much as it can already")
)

// ledger has what is known of the sources.
type ledger struct {
	mu     sync.Mutex
	counts map[string]*Counts
	until  map[string]time.Time // until when a source is left out
}

func newLedger() *ledger {
	return &ledger{counts: map[string]*Counts{}, until: map[string]time.Time{}}
}

func (l *ledger) count(name string, f func(c *Counts)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.counts[name]
	if c == nil {
		c = new(Counts)
		l.counts[name] = c
	}
	f(c)
}

func (l *ledger) all() map[string]Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make(map[string]Counts, len(l.counts))
	for name, c := range l.counts {
		all[name] = *c
	}
	return all
}

// ban leaves a source out for a while.
func (l *ledger) ban(name string) {
	l.count(name, func(c *Counts) { c.Refused++ })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until[name] = time.Now().Add(banned)
}

// usable returns the sources that are not left out. If all are, there is none.
func (l *ledger) usable(list []Source) []*peer {
	l.mu.Lock()
	defer l.mu.Unlock()
	var peers []*peer
	for _, s := range list {
		if time.Now().After(l.until[s.Name]) {
			peers = append(peers, &peer{Source: s})
		}
	}
	return peers
}

// peer is a source within one pull. Its fields are guarded by pull.mu.
type peer struct {
	Source
	partial bool // it is getting the version itself; set before the peer is used
	out     bool // it is not asked any more
	failed  int  // in a row
	bytes   uint64
	took    time.Duration
	active  map[*answer]struct{}
}

// answer is the answer to a request, while it is read.
type answer struct {
	*reader
	pull    *pull
	from    *peer
	body    io.ReadCloser
	cancel  context.CancelCauseFunc
	ctx     context.Context
	started time.Time
	last    time.Time // when bytes arrived; guarded by pull.mu
	got     uint64    // guarded by pull.mu
	waits   pending
	size    uint64 // bytes that were asked for; guarded by pull.mu

	kept  *bytes.Buffer // what arrives, packed, for other servers; nil: it is not kept
	ended bool          // all has arrived
}

// ask sends a request to a source. The answer must be closed.
func (p *pull) ask(ctx context.Context, from *peer, path string, r request) (*answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	a := &answer{pull: p, from: from, cancel: cancel, ctx: ctx, started: time.Now(), last: time.Now()}
	p.enter(a)
	if err := a.open(path, r); err != nil {
		a.close()
		return nil, a.cause(fmt.Errorf("ask %s: %w", from.Name, err))
	}
	return a, nil
}

func (a *answer) open(path string, r request) error {
	req, err := http.NewRequestWithContext(a.ctx, http.MethodPost, a.from.URL+path, bytes.NewReader(r.encode()))
	if err != nil {
		return err
	}
	a.pull.setPartsHeader(a.from, req)
	resp, err := a.from.HTTP.Do(req)
	if err != nil {
		return err
	}
	a.body = resp.Body
	switch resp.StatusCode {
	case http.StatusOK:
		a.pull.name(resp.Header.Get(holdersHeader))
		a.pull.addGetters(resp.Header.Get(gettersHeader))
	case http.StatusServiceUnavailable:
		return errBusy
	default:
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
		return fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(text))
	}
	if a.pull.exchanging && !a.from.partial && path != treesPath {
		a.kept = new(bytes.Buffer)
	}
	if a.reader, err = newReader(readerFunc(a.read)); err == nil && a.from.partial {
		a.reader.waits = a
	}
	return err
}

// read reads what arrives.
func (a *answer) read(b []byte) (int, error) {
	n, err := a.body.Read(b[:min(len(b), a.pull.o.limit.piece())])
	a.pull.o.ledger.count(a.from.Name, func(c *Counts) { c.Bytes += uint64(n) })
	if n > 0 {
		if err := a.pull.o.limit.wait(a.ctx, n); err != nil {
			return n, err
		}
	}
	if a.kept != nil {
		a.keep(b[:n])
	}
	a.ended = a.ended || errors.Is(err, io.EOF)
	a.pull.arrived(a, n)
	return n, err
}

// finish reads the last record, and what makes the connection usable for another request.
func (a *answer) finish() error {
	err := a.end()
	if err == nil {
		a.drain()
	}
	return err
}

func (a *answer) drain() {
	_, _ = io.CopyN(io.Discard, readerFunc(a.read), 4<<10)
	a.pull.mu.Lock()
	defer a.pull.mu.Unlock()
	a.from.failed = 0
}

// cause returns err, or why the answer was left.
func (a *answer) cause(err error) error {
	if left := context.Cause(a.ctx); err != nil && left != nil && errors.Is(left, errSlow) {
		return left
	}
	return err
}

func (a *answer) close() {
	a.pull.leave(a)
	a.cancel(context.Canceled)
	if a.reader != nil {
		a.reader.close()
	}
	if a.body != nil {
		a.body.Close()
	}
}

// name adds sources that a source has named.
func (p *pull) name(names string) {
	for _, s := range p.named(names, maxHolders) {
		p.addPeer(s)
	}
}

// expects notes how many bytes an answer is to bring.
func (a *answer) expects(bytes uint64) {
	a.pull.mu.Lock()
	defer a.pull.mu.Unlock()
	a.size = bytes
}

func (p *pull) enter(a *answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.from.active == nil {
		a.from.active = map[*answer]struct{}{}
	}
	a.from.active[a] = struct{}{}
}

func (p *pull) arrived(a *answer, n int) {
	p.mu.Lock()
	a.last = time.Now()
	a.got += uint64(n)
	p.mu.Unlock()
}

func (p *pull) leave(a *answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(a.from.active, a)
	a.from.bytes += a.got
	a.from.took += time.Since(a.started)
}

// rate returns how many bytes a second arrive from a source in one answer; 0: not known.
func (s *peer) rate() float64 {
	n, took := s.bytes, s.took
	for a := range s.active {
		n, took = n+a.got, took+time.Since(a.started)
	}
	if took < 100*time.Millisecond {
		return 0
	}
	return float64(n) / took.Seconds()
}

// watch leaves answers that stall, and those of a source than which another one is much faster.
func (p *pull) watch() {
	p.mu.Lock()
	defer p.mu.Unlock()
	whole := 0.0 // the best rate of a source that has the whole version
	for _, s := range p.peers {
		if !s.partial && !s.out {
			whole = max(whole, s.rate())
		}
	}
	for _, s := range p.peers {
		best, others := 0.0, false
		for _, other := range p.peers {
			if other != s && !other.out {
				best, others = max(best, other.rate()), true
			}
		}
		for a := range s.active {
			if a.waits.tooLong(a.size, whole) {
				a.cancel(errLate)
				continue
			}
			quiet := time.Since(a.last)
			if since := a.waits.since; !since.IsZero() && quiet < hesitant {
				quiet = time.Since(since)
			}
			slow := others && (quiet > hesitant || time.Since(a.started) > hesitant && s.rate()*unfair < best)
			if slow || quiet > stalled {
				a.cancel(errSlow)
			}
		}
	}
}

// limiter bounds a rate.
type limiter struct {
	rate func() uint64 // in bytes a second; 0: any. It may change at any time

	mu   sync.Mutex
	free time.Time // when all that was taken is within the rate
}

// piece returns how many bytes are to be read at once, so that a low rate does not look like a source that stalls.
func (l *limiter) piece() int {
	if rate := l.rate(); rate > 0 {
		return int(min(max(rate/8, 512), 64<<10))
	}
	return 64 << 10
}

// wait waits until n more bytes are within the rate.
func (l *limiter) wait(ctx context.Context, n int) error {
	rate := l.rate()
	if rate == 0 {
		return nil
	}
	l.mu.Lock()
	now := time.Now()
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	left := l.free.Sub(now)
	l.mu.Unlock()
	if left < 10*time.Millisecond {
		return nil
	}
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
