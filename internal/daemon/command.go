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

// runCommand runs a command of a rollout by the shell, with what it is about in the environment, until it ends or ctx does. The error tells how it
// ended and the last line that it said.
func runCommand(ctx context.Context, r *rollout.Rollout, text string) error {
	// The kernel ends the command when the thread that started it does: with this server, but not before.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", text)
	cmd.Env = append(os.Environ(),
		fmt.Sprint("DIM_ROLLOUT=", r.ID), fmt.Sprint("DIM_RING=", r.Ring+1), "DIM_NODES="+r.Rings[r.Ring].Nodes.String(),
		"DIM_IMAGE="+r.Image, fmt.Sprint("DIM_VERSION=", r.Version))
	var said tail
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // with what it started
	cmd.WaitDelay = time.Second
	err := cmd.Run()
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
