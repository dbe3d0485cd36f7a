package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"dim/internal/rollout"
)

// saidBytes is how much of what a command says last is kept for its error.
const saidBytes = 2000

// guarded runs the command that is its first argument, with a process beside it that ends the whole group when nobody has said within its life, by a
// line on file 3, that this is not to be: Pdeathsig of the shell reaches no child of it when the server is killed.
const guarded = `{ read -r _ <&3 || kill -KILL 0; } >/dev/null 2>&1 &
exec 3<&-
exec /bin/sh -c "$1"`

// runCommand runs a command of a rollout by the shell, with what it is about in the environment, until it ends or ctx does. The error tells how it
// ended and the last line that it said. What the command leaves behind goes on when it ended by itself, and ends with it when it did not, also when this
// server is killed.
func runCommand(ctx context.Context, r *rollout.Rollout, text string) error {
	// The kernel ends the command when the thread that started it does: with this server, but not before.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r3, alive, err := os.Pipe()
	if err != nil {
		return err
	}
	defer alive.Close()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", guarded, "sh", text)
	cmd.ExtraFiles = []*os.File{r3}
	cmd.Env = append(os.Environ(),
		fmt.Sprint("DIM_ROLLOUT=", r.ID), fmt.Sprint("DIM_RING=", r.Ring+1), "DIM_NODES="+r.Rings[r.Ring].Nodes.String(),
		"DIM_IMAGE="+r.Image, fmt.Sprint("DIM_VERSION=", r.Version))
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // with what it started
	cmd.WaitDelay = time.Second
	err = cmd.Start()
	r3.Close()
	if err != nil {
		return err
	}
	err = cmd.Wait()
	_, _ = alive.WriteString("ended\n")    // the guard may be gone with the group
	if errors.Is(err, exec.ErrWaitDelay) { // it ended well, and left something behind that holds its output open
		err = nil
	}
	if last := said.last(); err != nil && last != "" {
		err = fmt.Errorf("%w: %s", err, last)
	}
	return err
}

// tail keeps the end of what is written to it.
type tail struct{ b []byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > 2*saidBytes {
		t.b = bytes.Clone(t.b[len(t.b)-saidBytes:])
	}
	return len(p), nil
}

// last returns the last line that is not empty, at most so long that it fits into a status.
func (t *tail) last() string {
	text := strings.TrimSpace(string(t.b))
	text = text[strings.LastIndexByte(text, '\n')+1:]
	return strings.ToValidUTF8(text[max(0, len(text)-200):], "?")
}
