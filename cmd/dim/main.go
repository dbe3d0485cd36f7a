// Dim lets diskless machines run an ordinary Linux installation over the network. It is the one program for every role:
// `dim serve` is the server, and the other commands are its clients.
//
// The function of a verb parses flags, calls one thing and prints. Results go to standard output; progress, warnings
// and errors go to standard error. The only state is app, which each run makes anew, so that the program can run many
// times in one test process.
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
	report(stderr, err, args)
	return exitCode(err)
}

// The exit codes. Scripts rely on them. `dim help exit-codes` prints the table below.
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

  0    success
  1    failure
  2    the command or its operands are invalid
  3    the command found problems: dim status, dim cluster check and others
  4    no daemon answers, or it cannot do that now (no quorum)
  5    there is no such image, version, node, server or mount
  6    it conflicts with another change, the same operation is in progress, or a
       person must confirm it
  130  interrupted`

// usageError is the error of an invalid command line.
type usageError struct {
	err  error
	hint string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// hintError is an error with a hint.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

var (
	// errProblems is the error of a command that found problems and has printed them.
	errProblems = errors.New("problems found")
	// errInterrupted is the error of a command that was stopped by ^C or SIGTERM.
	errInterrupted = errors.New("interrupted")
)

// exitCode maps an error to an exit code.
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
		case control.NotFound, control.Elsewhere:
			return exitNotFound
		case control.Conflict, control.Busy, control.Held:
			return exitConflict
		}
		return exitFailed
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	_, badDescription := errors.AsType[*cluster.Problems](err)
	switch {
	case errors.Is(err, errProblems), badDescription:
		return exitProblems
	case errors.Is(err, errInterrupted):
		return exitInterrupted
	case errors.Is(err, fs.ErrNotExist):
		return exitNotFound
	}
	return exitFailed
}

// report prints an error, its details and its hint. Operands in it that a terminal must not show raw are quoted.
func report(w io.Writer, err error, args []string) {
	if err == nil || errors.Is(err, errProblems) {
		return
	}
	fmt.Fprintln(w, "dim:", showable(err.Error(), args))
	if e, ok := errors.AsType[*control.Error](err); ok {
		for _, d := range e.Details {
			fmt.Fprintln(w, " ", showable(d, args))
		}
	}
	if h := hint(err); h != "" {
		fmt.Fprintln(w, "hint:", showable(h, args))
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
		return "to check a file without applying it: dim cluster check FILE"
	case errors.Is(err, pki.ErrNotInitialised):
		return "make one with dim init, or with dim join for a server that joins a cluster; or name another with --data"
	case errors.Is(err, fs.ErrPermission):
		return "run as root"
	}
	return ""
}
