// Package server serves the daemon's API: a control.Backend as JSON over HTTP on a unix socket.
//
// # Answers
//
// Most calls answer with one JSON object or list. Long calls (captures, comparisons, verification) answer with one
// JSON object a line, see wire.Line. An error that occurs before the first line has an HTTP status of its own.
//
// # Access
//
// Only the superuser may call, and the user that the daemon itself runs as. The listener makes the socket with mode
// 0600; this package checks the peer credentials of each connection besides, because a mode can be changed. There is
// no other authentication. The connections of each user are bounded, so that a program that leaves some open does not
// keep others from the daemon.
//
// This package must not know how anything is stored, served or booted: every answer comes from the Backend.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"dim/internal/control"
)

// Calls are the API's calls. Before Open they are refused, because the daemon is starting.
type Calls struct {
	starting func() string
	open     atomic.Pointer[http.ServeMux]
}

// NewCalls returns Calls that are refused. starting says what the daemon is doing, in words.
func NewCalls(starting func() string) *Calls { return &Calls{starting: starting} }

// Open lets b answer from now on.
func (c *Calls) Open(b control.Backend) { c.open.Store(newMux(b)) }

// ServeHTTP implements http.Handler.
func (c *Calls) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if mux := c.open.Load(); mux != nil {
		mux.ServeHTTP(w, r)
		return
	}
	refuse(w, control.Errorf(control.Unavailable, "the daemon is starting: %s", c.starting()).
		WithHint("try again in a moment; the daemon's log tells what it waits for"))
}

// Serve answers the API's requests on ln, a unix socket, until ctx ends, and closes ln. It cancels the calls that are
// in progress then, and waits for them.
func Serve(ctx context.Context, ln net.Listener, calls *Calls, log *slog.Logger) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	s := &http.Server{
		Handler:           superuserOnly(calls),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		cancel()
		grace, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer done()
		if s.Shutdown(grace) != nil {
			_ = s.Close()
		}
	}()
	err := s.Serve(&limited{Listener: ln, log: log})
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-stopped
	return nil
}

func newMux(b control.Backend) *http.ServeMux {
	mux := http.NewServeMux()
	handleStatus(mux, b)
	handleDescription(mux, b)
	handleImages(mux, b)
	handleVersions(mux, b)
	handleStore(mux, b)
	handleDiffs(mux, b)
	handleRollouts(mux, b)
	handleNodes(mux, b)
	handleSaved(mux, b)
	handleSnapshots(mux, b)
	handleMounts(mux, b)
	mux.Handle("/", answer(func(r *http.Request) (struct{}, error) {
		return struct{}{}, control.Errorf(control.NotFound, "%s %s: no such call", r.Method, r.URL.Path).
			WithHint("the daemon is of another version than this program: restart it")
	}))
	return mux
}

func handleStatus(mux *http.ServeMux, b control.StatusBackend) {
	mux.Handle("GET /v1/status", answer(func(r *http.Request) (control.Status, error) { return b.Status(r.Context()) }))
}

func handleDescription(mux *http.ServeMux, b control.DescriptionBackend) {
	mux.Handle("GET /v1/description", answer(func(r *http.Request) (control.Description, error) {
		return b.Description(r.Context())
	}))
	mux.Handle("PUT /v1/description", answer(withBody(b.Apply)))
}
