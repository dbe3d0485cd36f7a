package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/control"
)

func TestAnotherUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: becomes another user")
	}
	data := t.TempDir()
	for _, dir := range []string{filepath.Dir(data), data} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(data, "dim.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- Serve(ctx, ln, struct{ control.Backend }{}, slog.New(slog.DiscardHandler)) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}()
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	answer := make(chan string)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread that became another user dies with this goroutine
		answer <- talkAs(65534, path)
	}()
	if got := <-answer; !strings.Contains(got, "403 Forbidden") || !strings.Contains(got, `"denied"`) {
		t.Errorf("another user got %q", got)
	}
}

// talkAs makes one request as another user, which this thread becomes.
func talkAs(uid uintptr, path string) string {
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return errno.Error()
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /v1/status HTTP/1.0\r\n\r\n"); err != nil {
		return err.Error()
	}
	b, err := io.ReadAll(c)
	return fmt.Sprint(string(b), err)
}

func TestWithoutNullsLeavesTheOriginalAlone(t *testing.T) {
	in := []control.Image{{Newest: &control.Version{}}}
	out := withoutNulls(in).([]control.Image)
	if out[0].Newest.Tags == nil || in[0].Newest.Tags != nil {
		t.Errorf("out %v, in %v", out[0].Newest.Tags, in[0].Newest.Tags)
	}
}
