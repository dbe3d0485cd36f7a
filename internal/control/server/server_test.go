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
	"unsafe"

	"golang.org/x/sys/unix"

	"dim/internal/control"
	"dim/internal/testkit"
)

// readersID is the group of readers.
const readersID = 4711

// secrets is a Backend whose answers have texts that readers must not see.
type secrets struct{ control.Backend }

func (secrets) Status(context.Context) (control.Status, error) {
	return control.Status{Rollouts: []control.Rollout{{Hook: "secret"}}}, nil
}

func (secrets) Rollouts(context.Context) ([]control.Rollout, error) {
	return []control.Rollout{{
		Check: "secret", Reason: "check: exit status 1: secret",
		Own: []control.OwnChanges{{First: []control.Path{"/root/secret"}}},
	}}, nil
}

func (secrets) Node(context.Context, string) (control.Node, error) {
	return control.Node{Details: &control.NodeDetails{Append: "secret"}}, nil
}

// serveAll serves a Backend of which other users may call little, on a socket that all users reach.
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
	calls.Readers = readersID
	calls.Open(secrets{})
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
	got := <-asOther(path, nothing, 65534)
	if !strings.Contains(got, "403 Forbidden") || !strings.Contains(got, `"denied"`) {
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
	if got := <-asOther(path, nothing, 65534); !strings.Contains(got, "403 Forbidden") {
		t.Errorf("meanwhile another user got %q", got)
	}
	for _, c := range open {
		c.Close()
	}
	testkit.Eventually(t, "there is room again", func() bool {
		c := testkit.Value(net.Dial("unix", path))(t)
		defer c.Close()
		return strings.Contains(ask(c, nothing), "404 Not Found")
	})
}

func TestMembersOfTheGroupOfReadersReadTheStatusAlone(t *testing.T) {
	path := serveAll(t)
	for _, tt := range []struct{ method, call, want string }{
		{"GET", "status", `"hook":"(hidden)"`}, {"GET", "rollouts", `"check":"(hidden)"`},
		{"GET", "rollouts", `"reason":"check: (hidden)"`},
		{"GET", "nodes/n01", `"append":"(hidden)"`}, {"GET", "description", "403 Forbidden"},
		{"GET", "nodes/n01/changes", "403 Forbidden"}, {"GET", "check", "403 Forbidden"},
		{"POST", "rollouts", "403 Forbidden"}, {"PUT", "description", "403 Forbidden"},
		{"DELETE", "versions/compute@1", "403 Forbidden"}, {"POST", "mounts", "403 Forbidden"},
	} {
		got := <-asOther(path, tt.method+" /v1/"+tt.call, readersID)
		if !strings.Contains(got, tt.want) || strings.Contains(got, "secret") {
			t.Errorf("%s %s: %s", tt.method, tt.call, got)
		}
	}
	if got := <-asOther(path, "GET /v1/status", readersID+1); !strings.Contains(got, "403 Forbidden") {
		t.Errorf("a member of another group got %q", got)
	}
}

// nothing is a call that does not exist.
const nothing = "GET /v1/nothing"

// asOther makes one call as another user, who is a member of a group besides.
func asOther(path, call string, group int) <-chan string {
	answer := make(chan string)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread of another user ends with this goroutine
		answer <- talkAs(path, call, uint32(group))
	}()
	return answer
}

// talkAs changes the user and the groups of this thread and makes one call.
func talkAs(path, call string, group uint32) string {
	const uid = 65534
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&group)), 0); errno != 0 {
		return errno.Error()
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, uid, uid, uid); errno != 0 {
		return errno.Error()
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
		return errno.Error()
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	return ask(c, call)
}

// ask makes a call.
func ask(c net.Conn, call string) string {
	if _, err := io.WriteString(c, call+" HTTP/1.0\r\n\r\n"); err != nil {
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
	calls := NewCalls(func() string { return "3 of 7 replicas are prepared" })
	ask := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		calls.ServeHTTP(w, httptest.NewRequest("GET", "/v1/none", nil))
		return w
	}
	if w := ask(); w.Code != 503 || !strings.Contains(w.Body.String(), "starting: 3 of 7 replicas are prepared") {
		t.Errorf("before: %d %s", w.Code, w.Body)
	}
	calls.Open(struct{ control.Backend }{})
	if w := ask(); w.Code != 404 {
		t.Errorf("after: %d %s", w.Code, w.Body)
	}
}
