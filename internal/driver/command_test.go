package driver

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
	"dim/internal/testkit"
)

// asServer is set in the process that a test starts to be killed.
const asServer = "DIM_TEST_COMMAND_OF"

func TestACommandAndItsChildrenEndWithAKilledServer(t *testing.T) {
	if file := os.Getenv(asServer); file != "" {
		text := fmt.Sprintf("sleep 1000 & echo $! > %q.new; mv %[1]q.new %[1]q; wait", file)
		_ = runCommand(t.Context(), aRollout(), text)
		return
	}
	file := filepath.Join(t.TempDir(), "pid")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), asServer+"="+file)
	testkit.Must(t, cmd.Start())
	var child []byte
	testkit.Eventually(t, "the command runs", func() bool {
		child, _ = os.ReadFile(file)
		return len(child) > 0
	})
	testkit.Must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	testkit.Eventually(t, "its child is gone", func() bool { return !running(string(bytes.TrimSpace(child))) })
}

func TestProcessesThatACommandLeavesBehindGoOn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	testkit.Must(t, runCommand(t.Context(), aRollout(), fmt.Sprintf("sleep 1000 >/dev/null 2>&1 & echo $! > %q", file)))
	child, err := os.ReadFile(file)
	testkit.Must(t, err)
	pid := string(bytes.TrimSpace(child))
	defer exec.Command("kill", "-KILL", pid).Run()
	if !running(pid) {
		t.Error("it ended with the command, which ended by itself")
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	if err := runCommand(ctx, aRollout(), "sleep 1000"); err == nil {
		t.Error("a cancelled command succeeded")
	}
}

func aRollout() *rollout.Rollout {
	return &rollout.Rollout{ID: 1, Image: "compute", Version: 1, Rings: []rollout.Ring{{Nodes: rollout.Nodes{"n01"}}}}
}

// running reports whether a process exists and is not a zombie.
func running(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}
