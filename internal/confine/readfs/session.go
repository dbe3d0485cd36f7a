package readfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"dim/internal/confine"
)

// Session is a child that answers one request after another, each about other file systems. It is for one goroutine.
type Session struct {
	process *confine.Process
	end     context.CancelFunc
	most    int64
	perAsk  time.Duration // for one request
	broken  bool
}

// Open starts a task that HandleEach has made. Request and Roots of the call are not used: Ask has them. Each request
// may take as long as Limits.Silence in all. The caller calls Close.
func (c *Call) Open(ctx context.Context) (*Session, error) {
	ctx, end := context.WithCancel(ctx)
	p, err := c.Program.Start(ctx, c.Limits, c.Task, nil)
	if err != nil {
		end()
		return nil, err
	}
	return &Session{process: p, end: end, most: c.Most, perAsk: c.Limits.Silence}, nil
}

// Ask sends a request about file systems and parses its result, JSON, into result. The result is not trusted. The error
// may be a *confine.Failure: the child has crashed or come to a limit. After an error nothing else can be asked unless
// Usable returns true.
func (s *Session) Ask(request any, roots []FS, result any) error {
	text, err := json.Marshal(request)
	if err != nil {
		return err
	}
	late := time.AfterFunc(s.perAsk, s.end)
	defer func() {
		if !late.Stop() {
			s.broken = true
		}
	}()
	answers := &server{process: s.process, roots: roots}
	defer answers.close()
	if err = s.process.Send(kindRequest, text); err == nil {
		text, err = answers.serve(s.most)
	}
	refused, ok := errors.AsType[*refusal](err)
	switch {
	case ok:
		return refused
	case err == nil:
		if err = json.Unmarshal(text, result); err != nil {
			err = fmt.Errorf("the result of the process that reads it is not understood: %w", err)
		}
	case errors.Is(err, context.Canceled):
		err = fmt.Errorf("to read it takes more than %v", s.perAsk)
	}
	if err == nil {
		return nil
	}
	s.broken = true
	if note := s.process.Note(); note != "" {
		err = fmt.Errorf("/%s: %w", note, err)
	}
	return err
}

// Usable reports whether another request can be asked.
func (s *Session) Usable() bool { return !s.broken }

// Close ends the child.
func (s *Session) Close() error {
	s.end()
	return s.process.Close()
}

// refusal is the error of one request of a session.
type refusal struct{ text string }

func (r *refusal) Error() string { return r.text }

// HandleEach makes a task of a function that answers one request, which is JSON. Its result becomes JSON. The file
// systems are those of the request.
func HandleEach(do func(ctx context.Context, request []byte, root func(int) FS) (any, error)) confine.Task {
	return func(ctx context.Context, c *confine.Child) error {
		for {
			kind, payload, err := c.Receive()
			if err != nil || kind != kindRequest {
				return err // the parent is gone
			}
			request := append([]byte(nil), payload...)
			c.SetNote("")
			roots := rootsOf(c)
			result, err := do(ctx, request, roots)
			if err == nil {
				err = sendResult(c, result)
			}
			last, text := kindDone, ""
			if err != nil {
				last, text = kindRefused, fmt.Sprintf("%.1000s", err.Error())
			}
			if err := c.Send(last, []byte(text)); err != nil {
				return err
			}
		}
	}
}
