package stream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/pki"
)

const (
	// deadAfter is how long a head may send nothing. It tells the time in shorter intervals.
	deadAfter = 3 * beatInterval
	// messageTimeout bounds the time that one message takes.
	messageTimeout = 2 * time.Minute
	// firstPause and lastPause bound the pause between tries to reach a head.
	firstPause = 250 * time.Millisecond
	lastPause  = 15 * time.Second
	// aloneFor is how long a head that has lost the shared state is followed before the others are asked again.
	aloneFor = 30 * time.Second
)

// Head is a head as an image server reaches it.
type Head struct {
	Name   cluster.ServerName
	Client *http.Client // it accepts this head only
	URL    string       // that paths are appended to: "https://head"
}

// ClientOptions are the options of a Client. All are needed.
type ClientOptions struct {
	Heads func() []Head // that may be asked now
	// Adopt adopts a state. With replace it does so whatever revision the state before has.
	Adopt func(ctx context.Context, s coord.State, replace bool) error
	Tried func() // is called when a head is followed, and when all were asked in vain
	Log   *slog.Logger
}

// Client follows the declared state that heads send. Its methods may be called from any number of goroutines.
type Client struct {
	ClientOptions
	deadAfter time.Duration // how long a head may send nothing

	mu     sync.Mutex
	status Status
}

// Status is how a Client is connected.
type Status struct {
	Head  cluster.ServerName // that it follows; "": none
	Since time.Time          // when that became so
	Err   error              // why it follows none
	Ahead time.Duration      // by how much the head's clock was ahead of this server's
	Alone string             // why the head cannot tell whether its state is the latest one; "": it is
}

// NewClient returns a Client that follows no head before Run.
func NewClient(o ClientOptions) *Client {
	c := &Client{ClientOptions: o, deadAfter: deadAfter}
	c.status = Status{Since: time.Now(), Err: errors.New("no head was asked yet")}
	return c
}

// Status returns how the client is connected.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *Client) setStatus(change func(*Status)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.status)
}

// Run follows a head, and another one when that fails, until ctx ends. has is the state that this server has.
func (c *Client) Run(ctx context.Context, has coord.State) {
	at, err := positionOf(has)
	if err != nil {
		at = position{store: has.Store, revision: has.Revision}
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		if c.tryAll(ctx, &at) {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause)): // all image servers try again after a head has ended
		}
	}
}

// errAlone ends the stream of a head that has lost the shared state, while there are other heads.
var errAlone = errors.New("it has lost the shared state")

// tryAll follows one head after the other, in any order, until all have failed. It returns whether it has followed one.
// A head that has lost the shared state is followed only if there is no better one.
func (c *Client) tryAll(ctx context.Context, at *position) (followed bool) {
	heads := c.Heads()
	rand.Shuffle(len(heads), func(i, k int) { heads[i], heads[k] = heads[k], heads[i] })
	t := trial{client: c, at: at}
	switch len(heads) {
	case 0:
		t.errs = append(t.errs, errors.New("the description has no head that this server can ask"))
	case 1:
		t.run(ctx, heads, math.MaxInt64)
	default:
		t.run(ctx, t.run(ctx, heads, 0), aloneFor)
	}
	if ctx.Err() == nil {
		c.setStatus(func(s *Status) { s.Err = errors.Join(t.errs...) })
		c.Tried()
	}
	return t.followed
}

// trial is one round of tries to follow heads.
type trial struct {
	client   *Client
	at       *position
	followed bool
	errs     []error
}

// run follows one head after the other until all have failed, and returns those that had no shared state for longer
// than patience.
func (t *trial) run(ctx context.Context, heads []Head, patience time.Duration) (alone []Head) {
	c := t.client
	for _, h := range heads {
		err := c.follow(ctx, h, t.at, patience)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, errAlone) {
			alone = append(alone, h)
		}
		err = fmt.Errorf("server %s: %w", h.Name, err)
		t.errs = append(t.errs, err)
		if c.Status().Head == h.Name {
			t.followed, t.errs = true, []error{err}
			c.Log.Warn("head is not followed any more", "server", string(h.Name), "error", err)
			c.setStatus(func(s *Status) { *s = Status{Since: time.Now(), Err: err} })
		}
	}
	return alone
}

// follow follows a head until it fails, or until it has had no shared state for longer than patience.
func (c *Client) follow(ctx context.Context, h Head, at *position, patience time.Duration) error {
	begin := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alive := time.AfterFunc(c.deadAfter, func() { cancel(fmt.Errorf("it has sent nothing for %v", c.deadAfter)) })
	defer alive.Stop()
	body, err := c.open(ctx, h, at)
	if err != nil {
		return cause(ctx, err)
	}
	defer body.Close()
	lines := bufio.NewReaderSize(&watched{body, alive, c.deadAfter}, 64<<10)
	for {
		late := time.AfterFunc(messageTimeout, func() {
			cancel(fmt.Errorf("a message takes more than %v", messageTimeout))
		})
		m, err := readMessage(lines)
		late.Stop()
		if err == nil && m.Alone != "" && time.Since(begin) > patience {
			err = fmt.Errorf("%w: %s", errAlone, m.Alone)
		}
		if err == nil {
			err = c.take(ctx, h, at, m)
		}
		if err != nil {
			return cause(ctx, err)
		}
	}
}

// cause returns why ctx was cancelled, or err.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// watched is a reader that says when something arrives.
type watched struct {
	io.Reader
	alive *time.Timer
	after time.Duration
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if n > 0 {
		w.alive.Reset(w.after)
	}
	return n, err
}

// open asks a head for its stream.
func (c *Client) open(ctx context.Context, h Head, at *position) (io.ReadCloser, error) {
	q := url.Values{"store": {at.store}, "revision": {strconv.FormatInt(at.revision, 10)}, editsParameter: {"1"}}
	if at.common != nil {
		q.Set("digest", at.digest().String())
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL+Path+"?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := h.Client.Do(r)
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the rest is a long URL
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	return resp.Body, nil
}

// refusal returns why a head has not sent its stream. The error is a pki.EndedError if this server was removed.
func refusal(resp *http.Response) error {
	if ended := pki.EndedIn(resp.Header); ended != nil {
		return ended
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
	text := strings.TrimSpace(string(b))
	switch resp.StatusCode {
	case http.StatusForbidden, http.StatusUnauthorized:
		return fmt.Errorf("it refuses this server: %s", text)
	case http.StatusServiceUnavailable:
		return errors.New(text)
	}
	return fmt.Errorf("it answers %s: %s", resp.Status, text)
}

// take adopts the state of a message.
func (c *Client) take(ctx context.Context, h Head, at *position, m *message) error {
	if m.Store != "" {
		next, s, err := at.apply(m)
		if err != nil {
			at.common = nil // the next head sends all
			return err
		}
		if err := c.Adopt(ctx, s, m.From == 0); err != nil {
			return err
		}
		*at = next
	}
	c.setStatus(func(s *Status) {
		if s.Head != h.Name {
			*s = Status{Head: h.Name, Since: time.Now()}
			c.Log.Info("follows head", "server", string(h.Name))
		}
		s.Ahead, s.Alone = time.Until(m.Time), m.Alone
	})
	c.Tried()
	return nil
}
