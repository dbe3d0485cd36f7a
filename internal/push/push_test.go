package push

import (
	"context"
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
)

// replicas is what Since asks: the stamps of switches and the directory that each has changed.
type replicas struct {
	mu   sync.Mutex
	dirs []string // of the switch with stamp i+1
}

func (r *replicas) since(_ cluster.NodeName, image string, stamp int64) (Looks, error) {
	if image == "" {
		image = "compute"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return Looks{Image: image, Stamp: int64(len(r.dirs)), Dirs: slices.Values(r.dirs[min(int(stamp), len(r.dirs)):])}, nil
}

func (r *replicas) change(dir string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirs = append(r.dirs, dir)
}

func newHub(r *replicas) *Hub {
	return New(Options{
		Who: func(r *http.Request) (cluster.NodeName, error) {
			if n := r.Header.Get("Node"); n != "" {
				return cluster.NodeName(n), nil
			}
			return "", fmt.Errorf("who are you?")
		},
		Since: r.since, Log: slog.New(slog.DiscardHandler),
	})
}

func call(ctx context.Context, h *Hub, node, body string) (int, string) {
	r := httptest.NewRequestWithContext(ctx, "POST", Path, strings.NewReader(body))
	r.Header.Set("Node", node)
	w := httptest.NewRecorder()
	h.Handler().ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func hello(stamp int) string {
	return fmt.Sprintf(`{"boot":"b1","seen":"compute:%d","memory":3000}`, stamp)
}

func TestANodeHearsOfASwitchWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r replicas
		h := newHub(&r)
		code, body := call(t.Context(), h, "n01", hello(0)) // nothing happens
		if code != 200 || body != "now compute:0\nend\n" {
			t.Errorf("after the waiting time: %d %q", code, body)
		}
		go func() {
			time.Sleep(10 * time.Second)
			if said, ok := h.Get("n01"); !ok || !said.Waiting {
				t.Error("the node is not known to wait")
			}
			r.change("etc")
			r.change("a b/%\n")
			h.Wake("n01", "n02")
		}()
		began := time.Now()
		if _, body = call(t.Context(), h, "n01", hello(0)); body != "now compute:2\nlook /etc\nlook /a%20b/%25%0A\nend\n" {
			t.Errorf("after a switch: %q", body)
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("the news took %v", took)
		}
		if said, _ := h.Get("n01"); said.Waiting || said.Stamp != 0 || said.Memory != 3000 || !said.Connected(time.Now()) {
			t.Errorf("what is known: %+v", said)
		}
		time.Sleep(Lost)
		if said, _ := h.Get("n01"); said.Connected(time.Now()) {
			t.Error("a node that is silent is not lost")
		}
	})
}

func TestANodeIsToldAtOnceWhatItHasMissed(t *testing.T) {
	r := &replicas{dirs: []string{"a", "b", "c"}}
	h := newHub(r)
	if _, body := call(t.Context(), h, "n01", hello(1)); body != "now compute:3\nlook /b\nlook /c\nend\n" {
		t.Errorf("got %q", body)
	}
	if _, ok := h.Get("n02"); ok {
		t.Error("a node that has said nothing is known")
	}
	if _, body := call(t.Context(), h, "n02", `{}`); body != "now compute:3\nend\n" {
		t.Errorf("where to begin: %q", body)
	}
	if _, ok := h.Get("n02"); ok {
		t.Error("who asks where to begin has a root already")
	}
}

func TestOneCallOfANodeWaitsAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(&replicas{})
		codes := make(chan int, 3)
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 3 {
			go func() {
				code, _ := call(ctx, h, "n01", hello(0))
				codes <- code
			}()
			synctest.Wait()
			if i > 0 {
				if code := <-codes; code != http.StatusConflict {
					t.Errorf("the call before was answered with %d", code)
				}
			}
		}
		cancel()
		<-codes
		synctest.Wait()
		if said, _ := h.Get("n01"); said.Waiting {
			t.Error("a call that was broken off waits on")
		}
	})
}

// pipes is a listener of one connection in memory, whose deadlines are by the bubble's clock.
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

const callHead = "POST " + Path + " HTTP/1.1\r\nHost: x\r\nNode: n01\r\nContent-Length: %d\r\n\r\n%s"

// converse serves a hub to one client in memory.
func converse(t *testing.T, h *Hub, client func(net.Conn)) {
	synctest.Test(t, func(t *testing.T) {
		l := pipes{make(chan net.Conn, 1), make(chan struct{})}
		s := &http.Server{Handler: h.Handler()}
		go s.Serve(l)
		defer s.Close()
		near, far := net.Pipe()
		defer near.Close()
		l.conn <- far
		client(near)
	})
}

func TestWhoTakesNoAnswerIsGivenUp(t *testing.T) {
	many := &replicas{}
	for i := range 1000 {
		many.change(fmt.Sprintf("a/directory/of/some/length/%d", i))
	}
	h := newHub(many)
	converse(t, h, func(c net.Conn) {
		began := time.Now()
		fmt.Fprintf(c, callHead, len(hello(0)), hello(0))
		time.Sleep(time.Hour)
		if said, ok := h.Get("n01"); !ok || said.Waiting || said.Heard.Sub(began) != takeIn {
			t.Errorf("given up after %v, %+v", said.Heard.Sub(began), said)
		}
	})
}

func TestWhoSaysHalfACallIsGivenUp(t *testing.T) {
	h := newHub(&replicas{})
	converse(t, h, func(c net.Conn) {
		began := time.Now()
		fmt.Fprintf(c, callHead, 1000, hello(0))
		answer := make([]byte, 100)
		n, _ := c.Read(answer)
		if took := time.Since(began); took != sayIn || !strings.HasPrefix(string(answer[:n]), "HTTP/1.1 400") || len(h.nodes) != 0 {
			t.Errorf("answered after %v: %s", took, answer[:n])
		}
	})
}

func TestStrangersAreNotHeard(t *testing.T) {
	h := newHub(&replicas{})
	if code, body := call(t.Context(), h, "", hello(0)); code != http.StatusForbidden || body != "who are you?\n" {
		t.Errorf("%d %q", code, body)
	}
	if len(h.nodes) != 0 {
		t.Error("something is kept of a stranger")
	}
}

func TestWhatANodeSaysIsUnderstood(t *testing.T) {
	got, err := parse(strings.NewReader(`{"boot":"b\u001b[1m","seen":"a:b:17","memory":-3,"left":9}
{"mount":"/etc/re%20solv.conf","type":"tmpfs"}{"stale":"/usr/lib/libc.so.6","pid":412,"name":"ssh\nd","unit":"sshd.service","more":2}
{"what":"a later version says"}`))
	want := Said{
		Boot: "b?[1m", Image: "a:b", Stamp: 17, Left: 9, Mounts: []Mount{{"etc/re solv.conf", "tmpfs"}},
		Stale: []Process{{412, "ssh?d", "sshd.service", "usr/lib/libc.so.6", 2}},
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, d)
	}
	for _, bad := range []string{
		``, `x`, `{"seen":"compute"}`, `{"seen":":1"}`, `{"seen":"a:-1"}`, `{} {"mount":"etc"}`, `{} {"mount":"/a/../b"}`, `{} {"mount":"/"}`,
		`{} {"mount":"/%0"}`, `{} {"mount":"/a%00"}`, `{} {"stale":"//a"}`, `{} [`, `{"memory":"x"}`,
		`{}` + strings.Repeat(`{"mount":"/a"}`, maxEntries+1), `{} {"mount":"/` + strings.Repeat("a", maxPath) + `"}`,
	} {
		if _, err := parse(strings.NewReader(bad)); err == nil {
			t.Errorf("%.60q is understood", bad)
		}
	}
	if code, _ := call(t.Context(), newHub(&replicas{}), "n01", `{"boot":"`+strings.Repeat("x", maxBody)+`"}`); code != http.StatusBadRequest {
		t.Errorf("a call of more than %d bytes: %d", maxBody, code)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(hello(12) + `{"mount":"/etc/x%20y","type":"tmpfs"}{"stale":"/usr/lib/x","pid":1,"name":"a","unit":"b.service","more":3}`)
	f.Add(`{"seen":"a:9223372036854775808"}`)
	f.Add(`{} {"mount":"/%`)
	f.Fuzz(func(t *testing.T, body string) {
		s, err := parse(io.LimitReader(strings.NewReader(body), maxBody))
		if err != nil {
			return
		}
		if len(s.Mounts)+len(s.Stale) > maxEntries || s.Stamp < 0 {
			t.Errorf("out of bounds: %+v", s)
		}
		for _, m := range s.Mounts {
			if m.Path == "" || m.Path[0] == '/' || len(m.Path) > maxPath || strings.ContainsFunc(m.Type, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("mount %+v", m)
			}
			if p, err := url.PathUnescape(escape(m.Path)); p != m.Path || err != nil {
				t.Errorf("%q becomes %q: %v", m.Path, p, err)
			}
		}
		for _, p := range s.Stale {
			if strings.ContainsFunc(p.Name+p.Unit, func(r rune) bool { return r < ' ' || r == 0x7f }) || p.PID < 0 {
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
	call(t.Context(), h, "n01", hello(0)+`{"mount":"/etc/a","type":"tmpfs"}`)
	call(t.Context(), h, "n02", `{}`)
	if err := h.Save(path); err != nil {
		t.Fatal(err)
	}
	again := newHub(&replicas{dirs: []string{"a"}})
	if err := again.Load(path); err != nil {
		t.Fatal(err)
	}
	m, ok := again.Mounted("n01")
	if want := []Mount{{"etc/a", "tmpfs"}}; !ok || m.Boot != "b1" || m.Image != "compute" || m.Heard.IsZero() || !slices.Equal(m.Mounts, want) {
		t.Errorf("loaded: %+v", m)
	}
	if _, ok := again.Get("n01"); ok {
		t.Error("a node that has not called since the start was heard")
	}
	if _, ok := again.Mounted("n02"); ok {
		t.Error("a node that has no root yet has mounts")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := again.Save(path); err != nil || exists(path) {
		t.Errorf("without news it is written: %v", err)
	}
	call(t.Context(), again, "n01", hello(0))
	if m, ok := again.Mounted("n01"); !ok || len(m.Mounts) != 0 {
		t.Errorf("after another call: %+v", m)
	}
	if err := again.Save(path); err != nil || !exists(path) {
		t.Errorf("with news it is not written: %v", err)
	}
	for _, bad := range []string{"x", `{"format":2}`} {
		if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := newHub(&replicas{}).Load(path); err == nil {
			t.Errorf("%s is loaded", bad)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
