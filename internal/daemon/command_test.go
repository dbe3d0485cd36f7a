package daemon

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"dim/internal/rollout"
)

// asServer is set in the process that a test starts to be killed.
const asServer = "DIM_TEST_COMMAND_OF"

func TestACommandEndsWithAKilledServerAndWhatItStartedToo(t *testing.T) {
	if file := os.Getenv(asServer); file != "" {
		_ = runCommand(t.Context(), aRollout(), fmt.Sprintf("sleep 1000 & echo $! > %q.new; mv %[1]q.new %[1]q; wait", file))
		return
	}
	file := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), asServer+"="+file)
	must(t, cmd.Start())
	var child []byte
	eventually(t, "the command runs", func() bool {
		child, _ = os.ReadFile(file)
		return len(child) > 0
	})
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	eventually(t, "what it started is gone", func() bool { return !runs(string(bytes.TrimSpace(child))) })
}

func TestWhatACommandLeavesBehindGoesOn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	must(t, runCommand(t.Context(), aRollout(), fmt.Sprintf("sleep 1000 >/dev/null 2>&1 & echo $! > %q", file)))
	child, err := os.ReadFile(file)
	must(t, err)
	pid := string(bytes.TrimSpace(child))
	defer exec.Command("kill", "-KILL", pid).Run()
	if !runs(pid) {
		t.Error("it ended with the command, which ended by itself")
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if err := runCommand(ctx, aRollout(), "sleep 1000"); err == nil {
		t.Error("a command that was called off ended well")
	}
}

func aRollout() *rollout.Rollout {
	return &rollout.Rollout{ID: 1, Image: "compute", Version: 1, Rings: []rollout.Ring{{Nodes: rollout.Nodes{"n01"}}}}
}

// runs reports whether a process is there, and not only for somebody to take its exit code.
func runs(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}
