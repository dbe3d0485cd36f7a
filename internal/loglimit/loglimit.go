// Package loglimit bounds how much a log grows when somebody makes the same happen again and again: a client that sends
// garbage, an address that is refused, a disk that fails.
//
// A cause is a message together with the node, client or machine that it is about. Messages are constants, so the first
// few lines of a cause in a minute say all that there is to say. The next line of the message after that minute has the
// number of lines that were left out.
//
// It must not know what is logged.
package loglimit

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

const (
	// interval is the time after which lines of a cause are written again.
	interval = time.Minute
	// each is the number of lines of one cause in an interval.
	each = 10
)

// subjects are the keys of what a line is about.
var subjects = [...]string{"node", "client", "mac", "address", "image"}

// Handler passes on at most 10 lines a minute of one cause, and of one message as many as All returns. It may be used
// by any number of goroutines.
type Handler struct {
	next    slog.Handler
	subject string // of the attributes that are the handler's
	shared  *shared
}

// shared is what a Handler shares with those that With and WithGroup make of it.
type shared struct {
	all func() int
	now func() time.Time

	mu    sync.Mutex
	since time.Time
	count map[string]*message
}

// message counts the lines of one message in an interval.
type message struct {
	lines   int            // that were passed on
	of      map[string]int // by subject; bounded, because all that are new cost a line
	omitted int            // since the last line that told so
}

// New returns a Handler that passes lines on to next. all returns the most lines of one message in a minute, about
// whomever. It should grow with the number of nodes, which may all boot at once.
func New(next slog.Handler, all func() int) *Handler {
	return &Handler{next: next, shared: &shared{all: all, now: time.Now, count: map[string]*message{}}}
}

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	made := *h
	made.next = h.next.WithAttrs(attrs)
	for _, a := range attrs {
		if made.subject == "" {
			made.subject = subjectOf(a)
		}
	}
	return &made
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	made := *h
	made.next = h.next.WithGroup(name)
	return &made
}

// Handle implements slog.Handler.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	subject := h.subject
	r.Attrs(func(a slog.Attr) bool {
		if subject == "" {
			subject = subjectOf(a)
		}
		return subject == ""
	})
	omitted, ok := h.shared.admit(r.Message, subject)
	if !ok {
		return nil
	}
	if omitted > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("omitted", omitted))
	}
	return h.next.Handle(ctx, r)
}

// subjectOf returns what a line with the attribute is about, "" if the attribute does not say. Of an address and a port
// it is the address.
func subjectOf(a slog.Attr) string {
	for _, key := range subjects {
		if a.Key != key {
			continue
		}
		text := a.Value.String()
		if ap, err := netip.ParseAddrPort(text); err == nil {
			return ap.Addr().String()
		}
		return text
	}
	return ""
}

// admit counts a line and reports whether it is passed on, and how many of its message were left out before it.
func (s *shared) admit(text, subject string) (omitted int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if now.Sub(s.since) >= interval || now.Before(s.since) {
		s.begin(now)
	}
	m := s.count[text]
	if m == nil {
		m = &message{of: map[string]int{}}
		s.count[text] = m
	}
	if m.of[subject] >= each || m.lines >= s.all() {
		m.omitted++
		return 0, false
	}
	m.lines++
	m.of[subject]++
	omitted, m.omitted = m.omitted, 0
	return omitted, true
}

// begin begins an interval. What was left out in the last one is told by the next line of the message.
func (s *shared) begin(now time.Time) {
	s.since = now
	for text, m := range s.count {
		if m.omitted == 0 {
			delete(s.count, text)
			continue
		}
		m.lines, m.of = 0, map[string]int{}
	}
}
