// Dim lets diskless machines run an ordinary Linux installation over the network. This is the one program for every role: it
// serves (`dim serve`), and it asks and tells the running server (everything else).
//
// A verb's function parses flags, calls one thing and prints. Results go to standard output; progress, problems and errors to standard
// error. The only state is app, made anew by each run, so the program can run many times in one test process.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"syscall"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/pki"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run runs one command and returns its exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{out: stdout, err: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errInterrupted
	}
	report(stderr, err)
	return exitCode(err)
}

// The exit codes. `dim help exit-codes` prints this table; scripts rely on it.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitProblems    = 3
	exitUnavailable = 4
	exitNotFound    = 5
	exitConflict    = 6
	exitInterrupted = 130
)

const exitCodes = `Exit codes

  0    all is well
  1    it failed
  2    the command or its operands make no sense
  3    it was done, and found problems: dim status, dim cluster check
  4    no daemon answers, or it cannot do that now (no quorum)
  5    there is no such image, version, node or mount
  6    somebody else changed it at the same time, or is doing the same
  130  interrupted`

// usageError is a command line that makes no sense.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// hintError is an error and what to do about it.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

var (
	// errProblems ends a command that did its work and found problems, which it has printed already.
	errProblems = errors.New("problems found")
	// errInterrupted ends a command that the person at the keyboard stopped.
	errInterrupted = errors.New("interrupted")
)

// exitCode is the one table of exit codes.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[*control.Error](err); ok {
		switch e.Code {
		case control.Invalid:
			return exitUsage
		case control.Unavailable:
			return exitUnavailable
		case control.NotFound:
			return exitNotFound
		case control.Conflict, control.Busy:
			return exitConflict
		}
		return exitFailed
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	switch {
	case errors.Is(err, errProblems):
		return exitProblems
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.Is(err, fs.ErrNotExist):
		return exitNotFound
	}
	return exitFailed
}

// report prints an error: the cause, all details, and what to do about it.
func report(w io.Writer, err error) {
	if err == nil || errors.Is(err, errProblems) {
		return
	}
	fmt.Fprintln(w, "dim:", err)
	if e, ok := errors.AsType[*control.Error](err); ok {
		for _, d := range e.Details {
			fmt.Fprintln(w, " ", d)
		}
	}
	if h := hint(err); h != "" {
		fmt.Fprintln(w, "hint:", h)
	}
}

func hint(err error) string {
	if e, ok := errors.AsType[*control.Error](err); ok {
		return e.Hint
	}
	if e, ok := errors.AsType[*usageError](err); ok {
		return e.hint
	}
	if e, ok := errors.AsType[*hintError](err); ok {
		return e.hint
	}
	_, badDescription := errors.AsType[*cluster.Problems](err)
	switch {
	case badDescription:
		return "dim cluster check FILE tells the same without serving"
	case errors.Is(err, pki.ErrNotInitialised):
		return "make one with dim init, or name another with --data"
	case errors.Is(err, fs.ErrPermission):
		return "run as root"
	}
	return ""
}
