package confine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a child. Receive and Close are for one goroutine. Send and SendFrom are for one, which may be another.
type Process struct {
	ctx    context.Context
	limits Limits
	cmd    *exec.Cmd
	inFile *os.File
	in     *bufio.Writer
	out    *os.File
	frames *bufio.Reader
	room   []byte // for payloads
	note   *os.File
	stderr tail
	stop   func() bool // ends the wait for ctx
	reap   sync.Once

	feeding atomic.Bool // the parent waits for the source of what it sends
	silent  bool        // Limits.Silence has passed
}

// Failure is the error of a child that did not end as it should: it crashed, or has come to one of its limits.
type Failure struct{ text string }

// Error says how it failed.
func (e *Failure) Error() string { return e.text }

// Start starts a child, which runs a task with a request, and hands it files. Request becomes JSON. The caller calls
// Close. The child is ended when ctx ends.
func (p Program) Start(ctx context.Context, l Limits, task string, request any, files ...*os.File) (*Process, error) {
	if len(p.Argv) == 0 {
		return nil, errors.New("no program is known that can read it")
	}
	wanted, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(order{Task: task, Limits: l, Request: wanted})
	if err != nil {
		return nil, err
	}
	c := &Process{ctx: ctx, limits: l, stderr: tail{max: 16 << 10}}
	if err := c.start(p, files); err != nil {
		return nil, fmt.Errorf("start a process to read it: %w", err)
	}
	c.stop = context.AfterFunc(ctx, c.kill)
	if err := c.Send(kindTask, text); err != nil {
		err = c.explain()
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// order tells a child what to run.
type order struct {
	Task    string          `json:"task"`
	Limits  Limits          `json:"limits"`
	Request json.RawMessage `json:"request"`
}

// namespaces are those that a child has of its own.
const namespaces = unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

func (c *Process) start(p Program, files []*os.File) error {
	fd, err := unix.MemfdCreate("dim-note", unix.MFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	c.note = os.NewFile(uintptr(fd), "note")
	files = append([]*os.File{c.note}, files...)
	err = c.startIn(p, namespaces, files)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSPC) { // it is not permitted
		err = c.startIn(p, 0, files)
	}
	if err != nil {
		c.note.Close()
	}
	return err
}

func (c *Process) startIn(p Program, namespaces uintptr, files []*os.File) error {
	childIn, in, err := os.Pipe()
	if err != nil {
		return err
	}
	defer childIn.Close()
	out, childOut, err := os.Pipe()
	if err != nil {
		return errors.Join(err, in.Close())
	}
	defer childOut.Close()
	enlarge(in)
	enlarge(out)
	c.cmd = &exec.Cmd{
		Path: "/proc/self/exe", Args: p.Argv, Dir: "/", Env: []string{"GOTRACEBACK=single"},
		Stdin: childIn, Stdout: childOut, Stderr: &c.stderr, ExtraFiles: files,
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: namespaces},
	}
	if err := c.cmd.Start(); err != nil {
		return errors.Join(err, in.Close(), out.Close())
	}
	c.inFile, c.in = in, bufio.NewWriterSize(in, 64<<10)
	c.out, c.frames = out, bufio.NewReaderSize((*source)(c), 256<<10)
	return nil
}

// enlarge lets a pipe hold as much as one may, so that parent and child work at the same time instead of in turn.
func enlarge(pipe *os.File) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, 1<<20) })
}

// source is what the child writes. A Process reads it through this type, which watches the time.
type source Process

func (s *source) Read(p []byte) (int, error) {
	for {
		if err := s.out.SetReadDeadline(time.Now().Add(s.limits.Silence)); err != nil {
			return 0, err
		}
		n, err := s.out.Read(p)
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			if s.feeding.Load() {
				continue
			}
			s.silent = true
		}
		return n, err
	}
}

// Send sends a frame to the child.
func (c *Process) Send(kind Kind, parts ...[]byte) error {
	if err := writeFrame(c.in, kind, parts...); err != nil {
		return err
	}
	return c.in.Flush()
}

// SendFrom sends all that r returns in frames, and then a frame of another kind without a payload. Time in which r
// returns nothing is not the child's silence. The error is that of r, or that the child takes nothing any more. After
// an error of r nothing more can be sent, and the child sees that.
func (c *Process) SendFrom(r io.Reader, kind, last Kind) error {
	buf := make([]byte, 256<<10)
	for {
		c.feeding.Store(true)
		n, err := r.Read(buf)
		c.feeding.Store(false)
		if n > 0 {
			if err := c.Send(kind, buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return c.Send(last)
		}
		if err != nil {
			return errors.Join(err, c.inFile.Close())
		}
	}
}

// Receive returns the next frame. The payload is valid until the next call. After the last frame the error is io.EOF if
// the task has succeeded, its error if not, a *Failure if the child has failed, or that of the context.
func (c *Process) Receive() (Kind, []byte, error) {
	kind, payload, err := readFrame(c.frames, c.room)
	switch {
	case errors.Is(err, errFrame):
		return 0, nil, &Failure{"the process that reads it does not keep to the protocol"}
	case err != nil:
		return 0, nil, c.explain()
	case kind == kindEnd && len(payload) == 0:
		return 0, nil, io.EOF
	case kind == kindEnd:
		return 0, nil, errors.New(plain(string(payload)))
	}
	c.room = payload[:0]
	return kind, payload, nil
}

// Note returns what the child has noted last, without control characters.
func (c *Process) Note() string {
	b := make([]byte, maxNote)
	n, _ := c.note.ReadAt(b, 0)
	text, _, _ := bytes.Cut(b[:n], []byte{0})
	return plain(string(text))
}

func (c *Process) kill() { _ = c.cmd.Process.Kill() }

// explain waits for the end of a child that has said nothing of an end, and returns why it ended.
func (c *Process) explain() error {
	if c.silent {
		c.kill()
	}
	grace := time.AfterFunc(c.limits.Silence, c.kill)
	c.wait()
	grace.Stop()
	if err := c.ctx.Err(); err != nil {
		return err
	}
	status, _ := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	said := c.stderr.String()
	switch {
	case c.silent:
		return &Failure{fmt.Sprintf("the process that reads it did nothing for %v", c.limits.Silence)}
	case c.overtime(status):
		return &Failure{fmt.Sprintf("to read it takes more than %v of the processor", c.limits.CPU)}
	case c.exhausted(said):
		return &Failure{fmt.Sprintf("to read it takes more than %d MiB of memory", c.limits.Memory>>20)}
	}
	return &Failure{fmt.Sprintf("the process that reads it crashed: %s", crash(c.cmd.ProcessState, said))}
}

// exhausted reports whether the child, with these last words, has ended because there was no more memory for it. Go's
// garbage collector may end with a bad address or an abort then, without a word of memory.
func (c *Process) exhausted(said string) bool {
	for _, words := range []string{"out of memory", "cannot allocate memory", "failed to allocate"} {
		if strings.Contains(said, words) {
			return true
		}
	}
	used, ok := c.cmd.ProcessState.SysUsage().(*syscall.Rusage) // Maxrss is in KiB: getrusage(2)
	return ok && strings.HasPrefix(said, "SIG") && uint64(used.Maxrss)<<10 >= c.limits.Memory/2
}

// overtime reports whether the kernel has killed the child because of its hard limit.
func (c *Process) overtime(status syscall.WaitStatus) bool {
	return status.Signal() == unix.SIGKILL && c.limits.CPU > 0 &&
		c.cmd.ProcessState.UserTime()+c.cmd.ProcessState.SystemTime() >= c.limits.CPU
}

// crash returns the line of a Go program's last words that says what happened.
func crash(state *os.ProcessState, said string) string {
	for line := range strings.Lines(said) {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") ||
			strings.HasPrefix(line, "SIG") {
			return plain(strings.TrimSpace(line)) + " (" + state.String() + ")"
		}
	}
	return state.String()
}

func (c *Process) wait() {
	c.reap.Do(func() {
		_ = c.inFile.Close()
		_ = c.cmd.Wait() // the state says how it ended
	})
}

// Close ends the child if it runs, and waits for its end.
func (c *Process) Close() error {
	c.stop()
	c.kill()
	c.wait()
	return errors.Join(c.out.Close(), c.note.Close())
}

// tail keeps the first and the last bytes of what is written to it.
type tail struct {
	max int

	mu          sync.Mutex
	first, last []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(p), t.max/2-len(t.first))
	t.first = append(t.first, p[:n]...)
	t.last = append(t.last, p[n:]...)
	if over := len(t.last) - t.max/2; over > 0 {
		t.last = append(t.last[:0], t.last[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.first) + string(t.last)
}
