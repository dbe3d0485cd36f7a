package readfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"dim/internal/confine"
)

// FS is what a child may read.
type FS interface {
	fs.StatFS
	fs.ReadDirFS
	fs.ReadLinkFS
}

// Call is one run of a task that Handle has made.
type Call struct {
	Program confine.Program
	Task    string
	Limits  confine.Limits
	Request any   // becomes JSON
	Roots   []FS  // what the child may read
	Most    int64 // bounds the result, in bytes of JSON
}

// Do runs the task and parses its result, JSON, into result. The result is not trusted.
func (c *Call) Do(ctx context.Context, result any) error {
	p, err := c.Program.Start(ctx, c.Limits, c.Task, c.Request)
	if err != nil {
		return err
	}
	s := &server{process: p, roots: c.Roots}
	text, err := s.serve(c.Most)
	s.close()
	if failed, ok := errors.AsType[*confine.Failure](err); ok && p.Note() != "" {
		err = fmt.Errorf("/%s: %w", p.Note(), failed)
	}
	if err = errors.Join(err, p.Close()); err != nil {
		return err
	}
	if err := json.Unmarshal(text, result); err != nil {
		return fmt.Errorf("the result of the process that reads it is not understood: %w", err)
	}
	return nil
}

// server answers a child.
type server struct {
	process *confine.Process
	roots   []FS
	open    fs.File // the file that was read last
	at      question
}

func (s *server) serve(most int64) (result []byte, err error) {
	for {
		kind, payload, err := s.process.Receive()
		switch {
		case errors.Is(err, io.EOF), err == nil && kind == kindDone:
			return result, nil
		case err != nil:
			return nil, err
		case kind == kindResult:
			if int64(len(result)+len(payload)) > most {
				return nil, fmt.Errorf("the result of the process that reads it is larger than %d bytes", most)
			}
			result = append(result, payload...)
		case kind == kindRefused:
			return nil, &refusal{string(payload)}
		case kind == kindAsk:
			q, err := parseQuestion(payload)
			if err != nil {
				return nil, err
			}
			if err := s.reply(&q); err != nil {
				return nil, err
			}
		default:
			return nil, errors.New("the process that reads it sends what it should not")
		}
	}
}

func (s *server) reply(q *question) error {
	b, err := s.answer(q)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.process.Send(kindAbsent)
	case err != nil:
		return s.process.Send(kindError, fmt.Appendf(nil, "%.1000s", err.Error()))
	}
	for ; len(b) > confine.MaxPayload; b = b[confine.MaxPayload:] {
		if err := s.process.Send(kindPart, b[:confine.MaxPayload]); err != nil {
			return err
		}
	}
	return s.process.Send(kindAnswer, b)
}

func (s *server) answer(q *question) ([]byte, error) {
	if int(q.root) >= len(s.roots) {
		return nil, fs.ErrNotExist
	}
	root := s.roots[q.root]
	switch q.op {
	case opStat, opLstat:
		stat := root.Stat
		if q.op == opLstat {
			stat = root.Lstat
		}
		i, err := stat(q.name)
		if err != nil {
			return nil, err
		}
		return encode(infoOf(i))
	case opReadLink:
		target, err := root.ReadLink(q.name)
		return []byte(target), err
	case opReadDir:
		return readDir(root, q.name)
	case opRead:
		return s.read(q)
	}
	return nil, errors.ErrUnsupported
}

func readDir(root FS, name string) ([]byte, error) {
	entries, err := root.ReadDir(name)
	if err != nil {
		return nil, err
	}
	list := make([]info, len(entries))
	for n, e := range entries {
		i, err := e.Info()
		if err != nil {
			return nil, err
		}
		list[n] = infoOf(i)
	}
	return encode(list)
}

// read returns content. It keeps the file open, because the rest of it is mostly asked for next.
func (s *server) read(q *question) ([]byte, error) {
	if s.open == nil || s.at.root != q.root || s.at.name != q.name {
		s.close()
		f, err := s.roots[q.root].Open(q.name)
		if err != nil {
			return nil, err
		}
		s.open, s.at = f, *q
	}
	r, ok := s.open.(io.ReaderAt)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	b := make([]byte, q.length)
	n, err := r.ReadAt(b, int64(q.offset))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b[:n], err
}

func (s *server) close() {
	if s.open != nil {
		s.open.Close()
		s.open = nil
	}
}
