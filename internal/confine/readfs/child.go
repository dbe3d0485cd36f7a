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

// Handle makes a task of a function, which may read the file systems of the parent by their index. Its result becomes
// JSON.
func Handle(do func(ctx context.Context, c *confine.Child, root func(int) FS) (any, error)) confine.Task {
	return func(ctx context.Context, c *confine.Child) error {
		result, err := do(ctx, c, rootsOf(c))
		if err != nil {
			return err
		}
		return sendResult(c, result)
	}
}

// rootsOf returns a function that returns the parent's file systems by their index.
func rootsOf(c *confine.Child) func(int) FS {
	roots := map[int]FS{}
	return func(index int) FS {
		if roots[index] == nil {
			roots[index] = &remote{child: c, index: byte(index), known: map[string]known{}}
		}
		return roots[index]
	}
}

func sendResult(c *confine.Child, result any) error {
	text, err := encode(result)
	for ; err == nil && len(text) > 0; text = text[min(len(text), confine.MaxPayload):] {
		err = c.Send(kindResult, text[:min(len(text), confine.MaxPayload)])
	}
	return err
}

// remote is a file system of the parent, for one goroutine.
type remote struct {
	child *confine.Child
	index byte
	known map[string]known // answers to opLstat
}

type known struct {
	info info
	err  error
}

// ask returns the answer to a question.
func (r *remote) ask(o op, verb, name string, at ...int64) ([]byte, error) {
	if !fs.ValidPath(name) || len(name) > maxName {
		return nil, &fs.PathError{Op: verb, Path: name, Err: fs.ErrInvalid}
	}
	q := question{op: o, root: r.index, name: name}
	if len(at) == 2 {
		q.offset, q.length = uint64(at[0]), uint32(at[1])
	}
	if err := r.child.Send(kindAsk, q.encode()); err != nil {
		return nil, err
	}
	var all []byte
	for {
		kind, payload, err := r.child.Receive()
		switch {
		case err != nil:
			return nil, err
		case kind == kindAbsent:
			return nil, &fs.PathError{Op: verb, Path: name, Err: fs.ErrNotExist}
		case kind == kindError:
			return nil, errors.New(string(payload))
		}
		all = append(all, payload...)
		if kind == kindAnswer {
			return all, nil
		}
	}
}

func (r *remote) stat(o op, verb, name string) (i info, err error) {
	b, err := r.ask(o, verb, name)
	if err == nil {
		err = json.Unmarshal(b, &i)
	}
	return i, err
}

// Stat implements fs.StatFS.
func (r *remote) Stat(name string) (fs.FileInfo, error) {
	i, err := r.stat(opStat, "stat", name)
	if err != nil {
		return nil, err
	}
	return i, nil
}

// Lstat implements fs.ReadLinkFS.
func (r *remote) Lstat(name string) (fs.FileInfo, error) {
	k, ok := r.known[name]
	if !ok {
		k.info, k.err = r.stat(opLstat, "lstat", name)
		r.known[name] = k
	}
	if k.err != nil {
		return nil, k.err
	}
	return k.info, nil
}

// ReadLink implements fs.ReadLinkFS.
func (r *remote) ReadLink(name string) (string, error) {
	b, err := r.ask(opReadLink, "readlink", name)
	return string(b), err
}

// ReadDir implements fs.ReadDirFS.
func (r *remote) ReadDir(name string) ([]fs.DirEntry, error) {
	b, err := r.ask(opReadDir, "readdir", name)
	if err != nil {
		return nil, err
	}
	var infos []info
	if err := json.Unmarshal(b, &infos); err != nil {
		return nil, err
	}
	list := make([]fs.DirEntry, len(infos))
	for n, i := range infos {
		list[n] = i
	}
	return list, nil
}

// Open implements fs.FS.
func (r *remote) Open(name string) (fs.File, error) {
	i, err := r.stat(opStat, "open", name)
	if err != nil {
		return nil, err
	}
	r.child.SetNote(name)
	return &file{remote: r, name: name, info: i}, nil
}

// file is an open file or directory. It reads what is at its name.
type file struct {
	remote *remote
	name   string
	info   info
	offset int64

	listed bool
	rest   []fs.DirEntry // of a directory
}

func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *file) Close() error               { return nil }

// ReadDir implements fs.ReadDirFile.
func (f *file) ReadDir(n int) (list []fs.DirEntry, err error) {
	if !f.listed {
		if f.rest, err = f.remote.ReadDir(f.name); err != nil {
			return nil, err
		}
		f.listed = true
	}
	if n <= 0 {
		n = len(f.rest)
	} else if len(f.rest) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(f.rest))
	list, f.rest = f.rest[:n], f.rest[n:]
	return list, nil
}

func (f *file) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p[:min(len(p), confine.MaxPayload)], f.offset)
	f.offset += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// ReadAt implements io.ReaderAt.
func (f *file) ReadAt(p []byte, offset int64) (n int, err error) {
	if !f.info.Mode().IsRegular() {
		return 0, &fs.PathError{Op: "read", Path: f.name, Err: fs.ErrInvalid}
	}
	for n < len(p) {
		if offset < 0 || offset >= f.info.S {
			return n, io.EOF
		}
		length := min(int64(len(p)-n), confine.MaxPayload)
		b, err := f.remote.ask(opRead, "read", f.name, offset, length)
		if err != nil {
			return n, err
		}
		if len(b) == 0 || int64(len(b)) > length {
			return n, fmt.Errorf("read %s: %w", f.name, io.ErrUnexpectedEOF)
		}
		n += copy(p[n:], b)
		offset += int64(len(b))
	}
	return n, nil
}
