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

func TestACommandGetsItsNodesInAFile(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	r := aRollout()
	r.Rings[0].Nodes = rollout.Nodes{"s01c1b01", "s02c1b01", "s02c1b02"}
	testkit.Must(t, runCommand(t.Context(), r, fmt.Sprintf(`{ echo "$DIM_NODES"; cat "$DIM_NODES_FILE"; } > %q`, out)))
	text, err := os.ReadFile(out)
	testkit.Must(t, err)
	if want := "s01c1b01,s02c1b[01-02]\ns01c1b01\ns02c1b01\ns02c1b02\n"; string(text) != want {
		t.Errorf("got %q, want %q", text, want)
	}
	testkit.Must(t, runCommand(t.Context(), r, fmt.Sprintf(`echo "$DIM_NODES_FILE" > %q`, out)))
	if text, err = os.ReadFile(out); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(string(bytes.TrimSpace(text))); !os.IsNotExist(err) {
		t.Errorf("the file is left behind: %v", err)
	}
}

func TestACommandRunsForNodesThatDoNotFitIntoTheEnvironment(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	r := aRollout()
	r.Rings[0].Nodes = nil
	for i := range 10_000 { // names that cannot be folded
		r.Rings[0].Nodes = append(r.Rings[0].Nodes, fmt.Sprintf("node%c%c%c%c%c%c-of-irregular-name",
			'a'+i/4096%8, 'a'+i/512%8, 'a'+i/64%8, 'a'+i/8%8, 'a'+i%8, 'a'+i/8192))
	}
	testkit.Must(t, runCommand(t.Context(), r,
		fmt.Sprintf(`echo "${DIM_NODES-unset} $(wc -l < "$DIM_NODES_FILE")" > %q`, out)))
	if text, err := os.ReadFile(out); err != nil || string(text) != "unset 10000\n" {
		t.Errorf("got %q, %v", text, err)
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
