package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// maxBody bounds what a request may carry; a description with its templates and tables is the largest.
const maxBody = 64 << 20

// Serve answers the API's requests on ln, a unix socket (see SocketPath), until ctx ends, and closes ln. Long calls that run then are
// cancelled and waited for.
func Serve(ctx context.Context, ln net.Listener, b Backend, log *slog.Logger) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	s := &http.Server{
		Handler:           superuserOnly(newMux(b)),
		ReadHeaderTimeout: 10 * time.Second,
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
	err := s.Serve(ln)
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-stopped
	return nil
}

func newMux(b Backend) *http.ServeMux {
	mux := http.NewServeMux()
	h := handlers{b}
	mux.Handle("GET /v1/status", answer(func(r *http.Request) (Status, error) { return b.Status(r.Context()) }))
	mux.Handle("GET /v1/description", answer(func(r *http.Request) (Description, error) { return b.Description(r.Context()) }))
	mux.Handle("PUT /v1/description", answer(h.apply))
	mux.Handle("GET /v1/images", answer(func(r *http.Request) ([]Image, error) { return b.Images(r.Context()) }))
	mux.Handle("GET /v1/images/{image}/versions", answer(func(r *http.Request) ([]Version, error) {
		return b.Versions(r.Context(), r.PathValue("image"))
	}))
	mux.Handle("GET /v1/versions/{ref}", answer(func(r *http.Request) (Version, error) {
		return b.Version(r.Context(), r.PathValue("ref"))
	}))
	mux.HandleFunc("GET /v1/diff", h.diff)
	versionCalls(mux, b)
	mux.Handle("POST /v1/tags", answer(h.tag))
	mux.HandleFunc("POST /v1/captures", h.capture)
	mux.Handle("GET /v1/nodes", answer(func(r *http.Request) ([]Node, error) {
		return b.Nodes(r.Context(), r.URL.Query().Get("set"))
	}))
	mux.Handle("GET /v1/nodes/{node}", answer(func(r *http.Request) (Node, error) {
		return b.Node(r.Context(), r.PathValue("node"))
	}))
	stateCalls(mux, b)
	mux.Handle("GET /v1/machines", answer(func(r *http.Request) ([]Machine, error) { return b.Machines(r.Context()) }))
	mux.Handle("GET /v1/mounts", answer(func(r *http.Request) ([]Mount, error) { return b.Mounts(r.Context()) }))
	mux.HandleFunc("POST /v1/mounts", h.mount)
	handleRollouts(mux, b)
	handleWatches(mux, b)
	mux.Handle("/", answer(func(r *http.Request) (struct{}, error) {
		return struct{}{}, Errorf(NotFound, "%s %s: no such call", r.Method, r.URL.Path)
	}))
	return mux
}

// answer makes a handler of a call that returns one value.
func answer[T any](call func(*http.Request) (T, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := call(r)
		if err != nil {
			refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(withoutNulls(v))
	})
}

func refuse(w http.ResponseWriter, err error) {
	e := asError(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Code.status())
	_ = json.NewEncoder(w).Encode(line{Error: e})
}

// handlers are the calls that take a body or answer with many lines.
type handlers struct{ b Backend }

// tagRequest is the body of POST /v1/tags.
type tagRequest struct {
	Ref string `json:"ref"`
	Tag string `json:"tag"`
}

func (h handlers) apply(r *http.Request) (Description, error) {
	d, err := body[Description](r)
	if err != nil {
		return Description{}, err
	}
	return h.b.Apply(r.Context(), d)
}

func (h handlers) tag(r *http.Request) (Version, error) {
	t, err := body[tagRequest](r)
	if err != nil {
		return Version{}, err
	}
	return h.b.Tag(r.Context(), t.Ref, t.Tag)
}

func (h handlers) diff(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	out := newLines(w)
	whole, err := h.b.Diff(r.Context(), q.Get("from"), q.Get("to"), func(c Change) bool { return out.send(line{Change: &c}) == nil })
	out.end(whole, err)
}

func (h handlers) capture(w http.ResponseWriter, r *http.Request) {
	req, err := body[CaptureRequest](r)
	if err != nil {
		refuse(w, err)
		return
	}
	out := newLines(w)
	done, err := h.b.Capture(r.Context(), req, func(p Progress) { _ = out.flush(line{Progress: &p}) })
	out.end(done, err)
}

func body[T any](r *http.Request) (T, error) {
	var v T
	dec := json.NewDecoder(io.LimitReader(r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return v, Errorf(Invalid, "read request: %v", err)
	}
	return v, nil
}

// line is one line of a long answer: exactly one field is set.
type line struct {
	Progress *Progress `json:"progress,omitempty"`
	Change   *Change   `json:"change,omitempty"`
	Result   any       `json:"result,omitempty"`
	Error    *Error    `json:"error,omitempty"`
}

// lines writes a long answer. Until something was written, an error still has an HTTP status of its own.
type lines struct {
	w     http.ResponseWriter
	enc   *json.Encoder
	begun bool
}

func newLines(w http.ResponseWriter) *lines { return &lines{w: w, enc: json.NewEncoder(w)} }

func (l *lines) send(v line) error {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	return l.enc.Encode(v)
}

func (l *lines) flush(v line) error {
	if err := l.send(v); err != nil {
		return err
	}
	return http.NewResponseController(l.w).Flush()
}

func (l *lines) end(result any, err error) {
	switch {
	case err == nil:
		_ = l.send(line{Result: withoutNulls(result)})
	case !l.begun:
		refuse(l.w, err)
	default:
		_ = l.send(line{Error: asError(err)})
	}
}
