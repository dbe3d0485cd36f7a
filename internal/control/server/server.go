// Package server serves the daemon's API: a control.Backend as JSON over HTTP on a unix socket.
//
// # Answers
//
// Most calls answer with one JSON object or list. Long calls (captures, comparisons, verification) answer with one
// JSON object a line, see wire.Line. An error that occurs before the first line has an HTTP status of its own.
//
// # Access
//
// The superuser may call everything, and the user that the daemon itself runs as. Members of one group may call what
// readers.go lists, through a socket of their own. The modes of the sockets demand the same; this package checks the
// peer credentials of each connection besides, because a mode can be changed. There is no other authentication. The
// connections of each user are bounded, so that a program that leaves some open does not keep others from the daemon.
//
// This package must not know how anything is stored, served or booted: every answer comes from the Backend.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"dim/internal/control"
)

// Calls are the API's calls. Before Open they are refused, because the daemon is starting.
type Calls struct {
	// Readers is the id of the group whose members may call what changes nothing and has no secrets; 0: there is none.
	// It is set before Serve.
	Readers int

	starting func() string
	open     atomic.Pointer[muxes]
}

// muxes are the calls that root may make, and those that readers may.
type muxes struct{ all, reading *http.ServeMux }

// NewCalls returns Calls that are refused. starting says what the daemon is doing, in words.
func NewCalls(starting func() string) *Calls { return &Calls{starting: starting} }

// Open lets b answer from now on.
func (c *Calls) Open(b control.Backend) { c.open.Store(&muxes{newMux(b), newReadersMux(b)}) }

// ServeHTTP implements http.Handler. It is for those who may call everything.
func (c *Calls) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if open := c.open.Load(); open != nil {
		open.all.ServeHTTP(w, r)
		return
	}
	c.refuseEarly(w)
}

// forPeers passes on the calls that the process at the other end may make.
func (c *Calls) forPeers() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		open := c.open.Load()
		switch rights := c.rightsOf(r); {
		case rights == none:
			refuse(w, control.Errorf(control.Denied, "only root may talk to this daemon").
				WithHint("run as root; members of the group dim may read the status and the listings"))
		case rights == reading && open != nil:
			open.reading.ServeHTTP(w, r)
		default:
			c.ServeHTTP(w, r)
		}
	})
}

func (c *Calls) refuseEarly(w http.ResponseWriter) {
	refuse(w, control.Errorf(control.Unavailable, "the daemon is starting: %s", c.starting()).
		WithHint("try again in a moment; the daemon's log tells what it waits for"))
}

// Serve answers the API's requests on ln, a unix socket, until ctx ends, and closes ln. It cancels the calls that are
// in progress then, and waits for them.
func Serve(ctx context.Context, ln net.Listener, calls *Calls, log *slog.Logger) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	s := &http.Server{
		Handler:           calls.forPeers(),
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
	handleServers(mux, b)
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
	handleStorms(mux, b)
	handleBackup(mux, b)
	mux.Handle("/", answer(func(r *http.Request) (struct{}, error) {
		return struct{}{}, control.Errorf(control.NotFound, "%s %s: no such call", r.Method, r.URL.Path).
			WithHint("the daemon is of another version than this program: restart it")
	}))
	return mux
}

func handleStatus(mux *http.ServeMux, b control.StatusBackend) {
	mux.Handle("GET /v1/status", answer(func(r *http.Request) (control.Status, error) { return b.Status(r.Context()) }))
}

func handleServers(mux *http.ServeMux, b control.ServerBackend) {
	mux.Handle("GET /v1/servers", answer(func(r *http.Request) ([]control.Server, error) {
		return b.Servers(r.Context())
	}))
	mux.Handle("POST /v1/servers/{server}", answer(func(r *http.Request) (control.ServerChanged, error) {
		return withBody(func(ctx context.Context, change control.ServerChange) (control.ServerChanged, error) {
			return b.ChangeServer(ctx, r.PathValue("server"), change)
		})(r)
	}))
	mux.Handle("POST /v1/tokens", answer(withBody(b.NewToken)))
}

func handleDescription(mux *http.ServeMux, b control.DescriptionBackend) {
	mux.Handle("GET /v1/description", answer(func(r *http.Request) (control.Description, error) {
		revision, err := revisionOf(r)
		if err != nil {
			return control.Description{}, err
		}
		return b.Description(r.Context(), revision)
	}))
	mux.Handle("GET /v1/descriptions", answer(func(r *http.Request) ([]control.AppliedDescription, error) {
		return b.Descriptions(r.Context())
	}))
	mux.Handle("PUT /v1/description", answer(withBody(b.Apply)))
	mux.Handle("POST /v1/learn", answer(withBody(b.Learn)))
}

// revisionOf returns the revision that a request is about; 0: none is given.
func revisionOf(r *http.Request) (int64, error) {
	text := r.URL.Query().Get("revision")
	if text == "" {
		return 0, nil
	}
	revision, err := strconv.ParseInt(text, 10, 64)
	if err != nil || revision <= 0 {
		return 0, control.Errorf(control.Invalid, "%q is not a revision", text)
	}
	return revision, nil
}
