package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/control"
	"dim/internal/control/server"
	"dim/internal/testkit"
)

// rollouts is a daemon that records the rollouts that it is asked for.
type rollouts struct {
	control.Backend // calls that no test makes
	asked           *[]control.RolloutRequest
}

func (b rollouts) Rollout(_ context.Context, r control.RolloutRequest) (control.Rollout, error) {
	*b.asked = append(*b.asked, r)
	return control.Rollout{Image: "compute", Version: 2, Count: 1200, State: "done"}, nil
}

func TestAllNodesAreMovedOnlyAfterAYes(t *testing.T) {
	data := t.TempDir()
	var asked []control.RolloutRequest
	listen(t, data, rollouts{asked: &asked})
	for _, tt := range []struct {
		answer string
		code   int
		nodes  []string // of the requests that are not dry runs
	}{
		{"y\n", exitOK, []string{"@*"}},
		{"YES\n", exitOK, []string{"@*"}},
		{"\n", exitFailed, nil},
		{"n\n", exitFailed, nil},
	} {
		asked = nil
		keyboard, terminal := openTerminal(t)
		testkit.Value(keyboard.WriteString(tt.answer))(t)
		var out, errs bytes.Buffer
		code := run([]string{"--data", data, "rollout", "compute", "--when", "now"}, terminal, &out, &errs)
		var nodes []string
		for _, r := range asked {
			if !r.DryRun {
				nodes = append(nodes, r.Nodes)
			}
		}
		if code != tt.code || fmt.Sprint(nodes) != fmt.Sprint(tt.nodes) ||
			!strings.Contains(errs.String(), "Move all 1,200 nodes of image compute to compute@2? [y/N] ") {
			t.Errorf("answer %q: exit code %d, moved %q, printed %q", tt.answer, code, nodes, errs.String())
		}
	}
}

// leftover is a daemon with files of a removed node.
type leftover struct {
	control.Backend // calls that no test makes
	removed         *int
}

func (b leftover) RemoveLayers(_ context.Context, r control.RemoveLayersRequest) ([]control.RemovedLayer, error) {
	if !r.DryRun {
		*b.removed++
	}
	return []control.RemovedLayer{{Server: "head", Node: "n99", Image: "compute", Entries: 12, Bytes: 4096}}, nil
}

func TestFilesOfRemovedNodesGoOnlyAfterAYes(t *testing.T) {
	data := t.TempDir()
	removed := 0
	listen(t, data, leftover{removed: &removed})
	for _, tt := range []struct {
		answer string
		code   int
	}{{"n\n", exitFailed}, {"\n", exitFailed}, {"y\n", exitOK}} {
		removed = 0
		keyboard, terminal := openTerminal(t)
		testkit.Value(keyboard.WriteString(tt.answer))(t)
		var out, errs bytes.Buffer
		code := run([]string{"--data", data, "node", "rm", "n99"}, terminal, &out, &errs)
		const plan = "would be removed: compute of n99 on head, 12 paths, 4.0 KiB\nRemove them for good? [y/N] "
		if code != tt.code || (removed == 1) != (code == exitOK) || !strings.HasPrefix(errs.String(), plan) {
			t.Errorf("answer %q: exit code %d, removed %d times, printed %q", tt.answer, code, removed, errs.String())
		}
	}
}

// listen serves b as the daemon of a data directory until the test ends.
func listen(t *testing.T, data string, b control.Backend) {
	t.Helper()
	ln := testkit.Value(net.Listen("unix", filepath.Join(data, "dim.sock")))(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	calls := server.NewCalls(nil)
	calls.Open(b)
	go func() { done <- server.Serve(ctx, ln, calls, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		testkit.Must(t, <-done)
	})
}

// openTerminal returns the two ends of a pseudo-terminal.
func openTerminal(t *testing.T) (keyboard, terminal *os.File) {
	t.Helper()
	keyboard = testkit.Value(os.OpenFile("/dev/ptmx", os.O_RDWR, 0))(t)
	fd := int(keyboard.Fd())
	testkit.Must(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n := testkit.Value(unix.IoctlGetInt(fd, unix.TIOCGPTN))(t)
	terminal = testkit.Value(os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0))(t)
	t.Cleanup(func() { keyboard.Close(); terminal.Close() })
	return keyboard, terminal
}
