package push

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
	"dim/internal/testkit"
)

// replicas implements Options.Changes: a replica whose switches have the stamps 1, 2, ... and change one directory
// each.
type replicas struct {
	mu   sync.Mutex
	dirs []string // of the switch with stamp i+1
}

func (r *replicas) changes(_ cluster.NodeName, image string, stamp int64) (Changes, error) {
	if image == "" {
		image = "compute"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	dirs := r.dirs[min(int(stamp), len(r.dirs)):]
	return Changes{Image: image, Stamp: int64(len(r.dirs)), Dirs: slices.Values(dirs)}, nil
}

func (r *replicas) change(dir string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirs = append(r.dirs, dir)
}

func newHub(r *replicas) *Hub {
	return New(Options{
		Caller: func(r *http.Request) (cluster.NodeName, error) {
			if n := r.Header.Get("Node"); n != "" {
				return cluster.NodeName(n), nil
			}
			return "", errors.New("no such node")
		},
		Changes: r.changes, Log: slog.New(slog.DiscardHandler),
	})
}

func call(ctx context.Context, h *Hub, node, body string) (int, string) {
	r := httptest.NewRequestWithContext(ctx, "POST", path, strings.NewReader(body))
	r.Header.Set("Node", node)
	w := httptest.NewRecorder()
	h.Handler().ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// body is the body of a call of a node that has looked up to a stamp.
func body(stamp int) string {
	return fmt.Sprintf(`{"boot":"b1","seen":"compute:%d","memory":3000}`, stamp)
}

func TestAWaitingCallIsAnsweredAfterASwitch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r replicas
		h := newHub(&r)
		code, answer := call(t.Context(), h, "n01", body(0))
		if code != 200 || answer != "now compute:0\nend\n" {
			t.Errorf("without a change: %d %q", code, answer)
		}
		go func() {
			time.Sleep(10 * time.Second)
			if s, ok := h.Status("n01"); !ok || !s.Waiting {
				t.Error("the status does not show the waiting call")
			}
			r.change("etc")
			r.change("a b/%\n")
			h.Wake("n01", "n02")
		}()
		began := time.Now()
		_, answer = call(t.Context(), h, "n01", body(0))
		if answer != "now compute:2\nlook /etc\nlook /a%20b/%25%0A\nend\n" {
			t.Errorf("after a switch: %q", answer)
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("answered %v after the call, want 10 s", took)
		}
		if s, _ := h.Status("n01"); s.Waiting || s.Stamp != 0 || s.Memory != 3000 || !s.Connected(time.Now()) {
			t.Errorf("status: %+v", s)
		}
		time.Sleep(LostAfter)
		if s, _ := h.Status("n01"); s.Connected(time.Now()) {
			t.Error("a node whose process calls no longer counts as connected")
		}
	})
}

func TestACallOfANodeThatIsBehindIsAnsweredAtOnce(t *testing.T) {
	r := &replicas{dirs: []string{"a", "b", "c"}}
	h := newHub(r)
	if _, answer := call(t.Context(), h, "n01", body(1)); answer != "now compute:3\nlook /b\nlook /c\nend\n" {
		t.Errorf("answer %q", answer)
	}
	if _, ok := h.Status("n02"); ok {
		t.Error("a node that has not called has a status")
	}
	if _, answer := call(t.Context(), h, "n02", `{}`); answer != "now compute:3\nend\n" {
		t.Errorf("answer to the first call of a boot: %q", answer)
	}
	if _, ok := h.Status("n02"); ok {
		t.Error("a node that has no root yet has a status")
	}
}

func TestOneCallOfANodeWaitsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(&replicas{})
		codes := make(chan int, 3)
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 3 {
			go func() {
				code, _ := call(ctx, h, "n01", body(0))
				codes <- code
			}()
			synctest.Wait()
			if i > 0 {
				if code := <-codes; code != http.StatusConflict {
					t.Errorf("the call before it was answered with %d", code)
				}
			}
		}
		cancel()
		<-codes
		synctest.Wait()
		if s, _ := h.Status("n01"); s.Waiting {
			t.Error("the status shows a waiting call that has ended")
		}
	})
}

// pipes is a listener of one connection in memory, so that deadlines follow the clock of the test.
type pipes struct {
	conn   chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conn:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p pipes) Close() error   { close(p.closed); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

const callHead = "POST " + path + " HTTP/1.1\r\nHost: x\r\nNode: n01\r\nContent-Length: %d\r\n\r\n%s"

// serve serves a hub to one client in memory.
func serve(t *testing.T, h *Hub, client func(net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		l := pipes{make(chan net.Conn, 1), make(chan struct{})}
		s := &http.Server{Handler: h.Handler()}
		go s.Serve(l)
		defer s.Close()
		clientEnd, serverEnd := net.Pipe()
		defer clientEnd.Close()
		l.conn <- serverEnd
		client(clientEnd)
	})
}

func TestAnAnswerThatIsNotReadIsAbandoned(t *testing.T) {
	many := &replicas{}
	for i := range 1000 {
		many.change(fmt.Sprintf("a/directory/of/some/length/%d", i))
	}
	h := newHub(many)
	serve(t, h, func(c net.Conn) {
		began := time.Now()
		fmt.Fprintf(c, callHead, len(body(0)), body(0))
		time.Sleep(time.Hour)
		if s, ok := h.Status("n01"); !ok || s.Waiting || s.Called.Sub(began) != writeTimeout {
			t.Errorf("abandoned after %v: %+v", s.Called.Sub(began), s)
		}
	})
}

func TestAnIncompleteCallIsRefused(t *testing.T) {
	h := newHub(&replicas{})
	serve(t, h, func(c net.Conn) {
		began := time.Now()
		fmt.Fprintf(c, callHead, 1000, body(0))
		answer := make([]byte, 100)
		n, _ := c.Read(answer)
		refused := strings.HasPrefix(string(answer[:n]), "HTTP/1.1 400")
		if took := time.Since(began); took != readTimeout || !refused || len(h.nodes) != 0 {
			t.Errorf("answered after %v: %s", took, answer[:n])
		}
	})
}

func TestAnUnknownCallerIsRefused(t *testing.T) {
	h := newHub(&replicas{})
	code, answer := call(t.Context(), h, "", body(0))
	if code != http.StatusForbidden || answer != "no such node\n" {
		t.Errorf("%d %q", code, answer)
	}
	if len(h.nodes) != 0 {
		t.Error("an unknown caller has a record")
	}
}

func TestDecode(t *testing.T) {
	got, err := decode(strings.NewReader(`{"boot":"b\u001b[1m","seen":"a:b:17","memory":-3,"left":9}
{"mount":"/etc/re%20solv.conf","type":"tmpfs"}
{"stale":"/usr/lib/libc.so.6","pid":412,"name":"ssh\nd","unit":"sshd.service","more":2}
{"future":"kind"}`))
	want := Status{
		Boot: "b?[1m", Image: "a:b", Stamp: 17, Omitted: 9, Mounts: []Mount{{"etc/re solv.conf", "tmpfs"}},
		Stale: []Process{{412, "ssh?d", "sshd.service", "usr/lib/libc.so.6", 2}},
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	for _, bad := range []string{
		``, `x`, `{"seen":"compute"}`, `{"seen":":1"}`, `{"seen":"a:-1"}`,
		`{} {"mount":"etc"}`, `{} {"mount":"/a/../b"}`, `{} {"mount":"/"}`,
		`{} {"mount":"/%0"}`, `{} {"mount":"/a%00"}`, `{} {"stale":"//a"}`, `{} [`, `{"memory":"x"}`,
		`{}` + strings.Repeat(`{"mount":"/a"}`, maxEntries+1), `{} {"mount":"/` + strings.Repeat("a", maxPath) + `"}`,
	} {
		if _, err := decode(strings.NewReader(bad)); err == nil {
			t.Errorf("%.60q is accepted", bad)
		}
	}
	long := `{"boot":"` + strings.Repeat("x", maxBody) + `"}`
	if code, _ := call(t.Context(), newHub(&replicas{}), "n01", long); code != http.StatusBadRequest {
		t.Errorf("a call of more than %d bytes: %d", maxBody, code)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(body(12) + `{"mount":"/etc/x%20y","type":"tmpfs"}` +
		`{"stale":"/usr/lib/x","pid":1,"name":"a","unit":"b.service","more":3}`)
	f.Add(`{"seen":"a:9223372036854775808"}`)
	f.Add(`{} {"mount":"/%`)
	control := func(r rune) bool { return r < ' ' || r == 0x7f }
	f.Fuzz(func(t *testing.T, body string) {
		s, err := decode(io.LimitReader(strings.NewReader(body), maxBody))
		if err != nil {
			return
		}
		if len(s.Mounts)+len(s.Stale) > maxEntries || s.Stamp < 0 {
			t.Errorf("out of bounds: %+v", s)
		}
		for _, m := range s.Mounts {
			if m.Path == "" || m.Path[0] == '/' || len(m.Path) > maxPath || strings.ContainsFunc(m.Type, control) {
				t.Errorf("mount %+v", m)
			}
			if p, err := url.PathUnescape(escape(m.Path)); p != m.Path || err != nil {
				t.Errorf("%q becomes %q: %v", m.Path, p, err)
			}
		}
		for _, p := range s.Stale {
			if strings.ContainsFunc(p.Name+p.Unit, control) || p.PID < 0 {
				t.Errorf("process %+v", p)
			}
		}
	})
}

func TestMountsOutliveTheServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mounts.json")
	h := newHub(&replicas{dirs: []string{"a"}})
	if err := h.Load(path); err != nil {
		t.Errorf("a file that is not there: %v", err)
	}
	call(t.Context(), h, "n01", body(0)+`{"mount":"/etc/a","type":"tmpfs"}`)
	call(t.Context(), h, "n02", `{}`)
	testkit.Must(t, h.Save(path))
	again := newHub(&replicas{dirs: []string{"a"}})
	testkit.Must(t, again.Load(path))
	m, ok := again.Mounts("n01")
	want := []Mount{{"etc/a", "tmpfs"}}
	if !ok || m.Boot != "b1" || m.Image != "compute" || m.Called.IsZero() || !slices.Equal(m.Mounts, want) {
		t.Errorf("loaded: %+v", m)
	}
	if _, ok := again.Status("n01"); ok {
		t.Error("a node that has not called since the start has a status")
	}
	if _, ok := again.Mounts("n02"); ok {
		t.Error("a node that has no root yet has mounts")
	}
	testkit.Must(t, os.Remove(path))
	if err := again.Save(path); err != nil || exists(path) {
		t.Errorf("written although nothing changed: %v", err)
	}
	call(t.Context(), again, "n01", body(0))
	if m, ok := again.Mounts("n01"); !ok || len(m.Mounts) != 0 {
		t.Errorf("after another call: %+v", m)
	}
	if err := again.Save(path); err != nil || !exists(path) {
		t.Errorf("not written although mounts changed: %v", err)
	}
	for _, bad := range []string{"x", `{"format":2}`} {
		testkit.Must(t, os.WriteFile(path, []byte(bad), 0o600))
		if err := newHub(&replicas{}).Load(path); err == nil {
			t.Errorf("%s is loaded", bad)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
