package server

import (
	"context"
	"encoding/json"
	"io"
	"net/http"

	"dim/internal/control"
	"dim/internal/control/wire"
)

// maxBody bounds the body of a request; a description with its templates and tables is the largest.
const maxBody = 64 << 20

// answer returns a handler for a call that returns one value.
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

// withBody adapts a method that takes the body of the request.
func withBody[In, Out any](do func(context.Context, In) (Out, error)) func(*http.Request) (Out, error) {
	return func(r *http.Request) (Out, error) {
		in, err := body[In](r)
		if err != nil {
			var none Out
			return none, err
		}
		return do(r.Context(), in)
	}
}

// withNode adapts a method that takes a node and the body of the request.
func withNode[In, Out any](do func(context.Context, string, In) (Out, error)) func(*http.Request) (Out, error) {
	return func(r *http.Request) (Out, error) {
		return withBody(func(ctx context.Context, in In) (Out, error) { return do(ctx, r.PathValue("node"), in) })(r)
	}
}

func body[T any](r *http.Request) (T, error) {
	var v T
	dec := json.NewDecoder(io.LimitReader(r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return v, control.Errorf(control.Invalid, "read request: %v", err)
	}
	return v, nil
}

func refuse(w http.ResponseWriter, err error) {
	e := asError(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(httpStatus(e.Code))
	_ = json.NewEncoder(w).Encode(wire.Line{Error: e})
}

// lines writes an answer that consists of many lines.
type lines struct {
	w     http.ResponseWriter
	enc   *json.Encoder
	begun bool
}

func newLines(w http.ResponseWriter) *lines { return &lines{w: w, enc: json.NewEncoder(w)} }

// change sends c and reports whether the client can still be reached.
func (l *lines) change(c control.Change) bool { return l.send(wire.Line{Change: &c}) == nil }

// progress sends p at once. An error shows in the result, which cannot be sent either.
func (l *lines) progress(p control.Progress) {
	if l.send(wire.Line{Progress: &p}) == nil {
		_ = http.NewResponseController(l.w).Flush()
	}
}

// end sends the last line. When it is the first one too, an error becomes an HTTP status.
func (l *lines) end(result any, err error) {
	switch {
	case err == nil:
		_ = l.send(wire.Line{Result: withoutNulls(result)})
	case !l.begun:
		refuse(l.w, err)
	default:
		_ = l.send(wire.Line{Error: asError(err)})
	}
}

func (l *lines) send(v wire.Line) error {
	if !l.begun {
		l.begun = true
		l.w.Header().Set("Content-Type", "application/x-ndjson")
	}
	return l.enc.Encode(v)
}
