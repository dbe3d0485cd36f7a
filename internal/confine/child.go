package confine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Task is a function that a child runs.
type Task func(context.Context, *Child) error

// Child is what a task has: its request, its parent, its files.
type Child struct {
	request []byte
	in      *bufio.Reader
	out     *bufio.Writer
	room    []byte
	note    *os.File
}

// The descriptors of a child besides those of every program.
const (
	noteFD      = 3
	firstFileFD = 4
)

// maxNote is the longest note, in bytes.
const maxNote = 4096

// Main runs the one of tasks that the parent wants, and returns the exit code of the process. It is called by the
// program that Program names, with its standard input and output, before it does anything else.
func Main(ctx context.Context, in io.Reader, out io.Writer, tasks map[string]Task) int {
	c := &Child{
		in: bufio.NewReaderSize(in, 256<<10), out: bufio.NewWriterSize(out, 256<<10),
		note: os.NewFile(noteFD, "note"),
	}
	err := c.run(ctx, tasks)
	text := ""
	if err != nil {
		text = fmt.Sprintf("%.*s", maxText, err.Error())
	}
	if err = errors.Join(c.Send(kindEnd, []byte(text)), c.Flush()); err != nil {
		return 1
	}
	return 0
}

func (c *Child) run(ctx context.Context, tasks map[string]Task) error {
	kind, text, err := readFrame(c.in, nil)
	if err != nil || kind != kindTask {
		return errors.New("this command is for dim itself")
	}
	var o order
	if err := json.Unmarshal(text, &o); err != nil {
		return err
	}
	task := tasks[o.Task]
	if task == nil {
		return fmt.Errorf("there is no task %q", o.Task)
	}
	if err := confine(&o.Limits); err != nil {
		return fmt.Errorf("confine the process that reads: %w", err)
	}
	c.request = o.Request
	return task(ctx, c)
}

// Request parses the request.
func (c *Child) Request(into any) error { return json.Unmarshal(c.request, into) }

// File returns the file with an index that was handed over.
func (c *Child) File(index int) *os.File { return os.NewFile(uintptr(firstFileFD+index), "input") }

// SetNote notes what is being read. The parent can see it whatever happens to the child.
func (c *Child) SetNote(text string) {
	var b [maxNote]byte
	n := copy(b[:maxNote-1], text)
	_, _ = c.note.WriteAt(b[:n+1], 0)
}

// Send sends a frame to the parent, at the latest with the next Flush or Receive.
func (c *Child) Send(kind Kind, parts ...[]byte) error { return writeFrame(c.out, kind, parts...) }

// Flush sends what has not been sent.
func (c *Child) Flush() error { return c.out.Flush() }

// Receive returns the next frame from the parent. The payload is valid until the next call.
func (c *Child) Receive() (Kind, []byte, error) {
	if err := c.Flush(); err != nil {
		return 0, nil, err
	}
	kind, payload, err := readFrame(c.in, c.room)
	if err == nil {
		c.room = payload[:0]
	}
	return kind, payload, err
}
