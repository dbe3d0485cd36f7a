package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/control"
	"dim/internal/testkit"
)

// serveAll serves a Backend that is not called, on a socket that all users reach.
func serveAll(t *testing.T) (path string) {
	t.Helper()
	testkit.NeedRoot(t, "becomes another user")
	data := t.TempDir()
	testkit.Must(t, os.Chmod(filepath.Dir(data), 0o755), os.Chmod(data, 0o755))
	path = filepath.Join(data, "dim.sock")
	ln := testkit.Value(net.Listen("unix", path))(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	calls := NewCalls(nil)
	calls.Open(struct{ control.Backend }{})
	go func() { ended <- Serve(ctx, ln, calls, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	testkit.Must(t, os.Chmod(path, 0o666))
	return path
}

func TestAnotherUserIsRefused(t *testing.T) {
	path := serveAll(t)
	if got := <-asOther(path); !strings.Contains(got, "403 Forbidden") || !strings.Contains(got, `"denied"`) {
		t.Errorf("another user got %q", got)
	}
}

func TestTheConnectionsOfAUserAreBounded(t *testing.T) {
	path := serveAll(t)
	var open []net.Conn
	for range connLimit.Each + 20 {
		c := testkit.Value(net.Dial("unix", path))(t)
		defer c.Close()
		open = append(open, c)
	}
	for _, c := range open[connLimit.Each:] {
		testkit.Must(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("a connection beyond the limit: %v", err)
		}
	}
	if got := <-asOther(path); !strings.Contains(got, "403 Forbidden") {
		t.Errorf("meanwhile another user got %q", got)
	}
	for _, c := range open {
		c.Close()
	}
	testkit.Eventually(t, "there is room again", func() bool {
		c := testkit.Value(net.Dial("unix", path))(t)
		defer c.Close()
		return strings.Contains(ask(c), "404 Not Found")
	})
}

// asOther makes one request as another user.
func asOther(path string) <-chan string {
	answer := make(chan string)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread of another user ends with this goroutine
		answer <- talkAs(65534, path)
	}()
	return answer
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
	return ask(c)
}

// ask makes a request of a path that does not exist.
func ask(c net.Conn) string {
	if _, err := io.WriteString(c, "GET /v1/nothing HTTP/1.0\r\n\r\n"); err != nil {
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

func TestCallsBeforeTheStartIsOverTellHowFarItIs(t *testing.T) {
	calls := NewCalls(func() string { return "3 of 7 replicas are ready" })
	ask := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		calls.ServeHTTP(w, httptest.NewRequest("GET", "/v1/none", nil))
		return w
	}
	if w := ask(); w.Code != 503 || !strings.Contains(w.Body.String(), "starting: 3 of 7 replicas are ready") {
		t.Errorf("before: %d %s", w.Code, w.Body)
	}
	calls.Open(struct{ control.Backend }{})
	if w := ask(); w.Code != 404 {
		t.Errorf("after: %d %s", w.Code, w.Body)
	}
}
