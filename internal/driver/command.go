package driver

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

	"dim/internal/cluster/nodeset"
	"dim/internal/rollout"
)

// outputKept is how many bytes of a command's last output are kept for its error.
const outputKept = 2000

// watchdogScript runs the command that is its first argument. A process beside the command kills the whole process
// group when file 3 reaches its end before a line was read from it: the server was killed then. Pdeathsig alone would
// end the shell and none of its children.
const watchdogScript = `{ read -r _ <&3 || kill -KILL 0; } >/dev/null 2>&1 &
exec 3<&-
exec /bin/sh -c "$1"`

// maxNodes is the longest node set that a command gets in its environment. Linux takes 128 KiB for one variable.
const maxNodes = 100_000

// environment returns the variables that tell a command the rollout and the nodes of its ring. file has their names.
func environment(r *rollout.Rollout, file string) []string {
	env := append(os.Environ(),
		fmt.Sprint("DIM_ROLLOUT=", r.ID), fmt.Sprint("DIM_RING=", r.Ring+1), "DIM_IMAGE="+r.Image,
		fmt.Sprint("DIM_VERSION=", r.Version), "DIM_NODES_FILE="+file)
	if set := nodeset.FoldLast(r.Rings[r.Ring].Nodes); len(set) <= maxNodes {
		env = append(env, "DIM_NODES="+set)
	}
	return env
}

// listNodes writes the names of a ring's nodes into a temporary file, one a line. The caller removes it.
func listNodes(nodes []string) (file string, err error) {
	f, err := os.CreateTemp("", "dim-nodes-*")
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(strings.Join(nodes, "\n") + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return "", fmt.Errorf("write the names of the nodes: %w", err)
	}
	return f.Name(), nil
}

// runCommand runs a command of a rollout by the shell, until it ends or ctx does. The environment tells the rollout and
// the nodes of its ring. The error holds the exit status and the last line of output. Processes that a command leaves
// behind go on when it ended by itself. They are killed with it when ctx ends or this server is killed.
func runCommand(ctx context.Context, r *rollout.Rollout, text string) error {
	// Pdeathsig acts when the thread that started the command ends, so the thread must live as long as this call.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r3, alive, err := os.Pipe()
	if err != nil {
		return err
	}
	defer alive.Close()
	defer r3.Close()
	file, err := listNodes(r.Rings[r.Ring].Nodes)
	if err != nil {
		return err
	}
	defer os.Remove(file)
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", watchdogScript, "sh", text)
	cmd.ExtraFiles = []*os.File{r3}
	cmd.Env = environment(r, file)
	var output tail
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // its whole group
	cmd.WaitDelay = time.Second
	err = cmd.Start()
	r3.Close()
	if err != nil {
		return err
	}
	err = cmd.Wait()
	_, _ = alive.WriteString("ended\n")    // the watchdog may be gone with the group
	if errors.Is(err, exec.ErrWaitDelay) { // it succeeded, and a process that it left behind holds its output open
		err = nil
	}
	if last := output.lastLine(); err != nil && last != "" {
		err = fmt.Errorf("%w: %s", err, last)
	}
	return err
}

// tail keeps the end of what is written to it.
type tail struct{ b []byte }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > 2*outputKept {
		t.b = bytes.Clone(t.b[len(t.b)-outputKept:])
	}
	return len(p), nil
}

// lastLine returns the last line that is not empty, at most 200 bytes of it, so that it fits into a status.
func (t *tail) lastLine() string {
	text := strings.TrimSpace(string(t.b))
	text = text[strings.LastIndexByte(text, '\n')+1:]
	return strings.ToValidUTF8(text[max(0, len(text)-200):], "?")
}
