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
	"dim/internal/testkit"
)

func TestAnotherUserIsRefused(t *testing.T) {
	testkit.NeedRoot(t, "becomes another user")
	data := t.TempDir()
	testkit.Must(t, os.Chmod(filepath.Dir(data), 0o755), os.Chmod(data, 0o755))
	path := filepath.Join(data, "dim.sock")
	ln := testkit.Value(net.Listen("unix", path))(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- Serve(ctx, ln, struct{ control.Backend }{}, slog.New(slog.DiscardHandler)) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}()
	testkit.Must(t, os.Chmod(path, 0o666))
	answer := make(chan string)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread of another user ends with this goroutine
		answer <- talkAs(65534, path)
	}()
	if got := <-answer; !strings.Contains(got, "403 Forbidden") || !strings.Contains(got, `"denied"`) {
		t.Errorf("another user got %q", got)
	}
}

// talkAs changes the user of this thread and makes one request.
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
