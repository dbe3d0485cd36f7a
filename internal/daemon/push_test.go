package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"dim/internal/control"
	"dim/internal/testkit"
)

// nodeCall calls as the node at from does, and returns the answer.
func (s *site) nodeCall(from, body string) (int, string) { return s.post("/node/hear", from, 0, body) }

// post calls from an address and a port, as nfs has it.
func (s *site) post(path, from string, port int, body string) (int, string) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dial(ctx, from, port, s.ports[1]) }
	c := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	r, err := c.Post(fmt.Sprintf("http://%s:%d%s", s.addr, s.ports[1], path), "application/json",
		strings.NewReader(body))
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	text, _ := io.ReadAll(r.Body)
	return r.StatusCode, string(text)
}

// position returns the first line's last word of an answer: the switch up to which the node has looked.
func position(t *testing.T, answer string) string {
	t.Helper()
	word, ok := strings.CutPrefix(strings.SplitN(answer, "\n", 2)[0], "now ")
	if !ok || !strings.HasSuffix(answer, "\nend\n") {
		t.Fatalf("answer %q", answer)
	}
	return word
}

func TestANodeGetsTheChangedDirectoriesAfterACapture(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.61")
	s.start()
	s.capture("compute")
	write(t, s.mount("127.0.0.11", "/nodes/n01"), "etc", "own", "x")

	_, answer := s.nodeCall("127.0.0.11", `{}`)
	start := position(t, answer)
	if !strings.HasPrefix(start, "compute:") {
		t.Errorf("the start is %q", start)
	}
	answers := make(chan string, 1)
	go func() {
		_, answer := s.nodeCall("127.0.0.11",
			fmt.Sprintf(`{"boot":"b","seen":%q,"memory":3000} {"mount":"/etc/motd","type":"tmpfs"}`, start))
		answers <- answer
	}()
	testkit.Eventually(t, "the node waits", func() bool {
		n, err := s.client().Node(t.Context(), "n01")
		testkit.Must(t, err)
		return n.Details.Push != nil && n.Details.Push.State == control.PushCurrent
	})
	s.put("usr/bin/new", "new\n")
	s.capture("compute")
	select {
	case answer = <-answers:
	case <-time.After(time.Minute):
		t.Fatal("the node gets no answer")
	}
	// The node files have the second of the version's time: they may have changed, or not.
	lines := strings.Replace(answer, "look /\nlook /etc\n", "", 1)
	if want := "now " + position(t, answer) + "\nlook /usr\nlook /usr/bin\nend\n"; lines != want {
		t.Errorf("answer %q, want %q", answer, want)
	}
	if code, answer := s.nodeCall("127.0.0.77", `{}`); code != http.StatusForbidden {
		t.Errorf("an address of no node is answered %d %s", code, answer)
	}

	// A node that has missed a switch gets it after a restart of the server too. A call that waits does not delay the
	// end.
	waits, up := make(chan int, 1), position(t, answer)
	go func() {
		code, _ := s.nodeCall("127.0.0.12", fmt.Sprintf(`{"boot":"b","seen":%q}`, up))
		waits <- code
	}()
	testkit.Eventually(t, "n02 waits", func() bool {
		n, err := s.client().Node(t.Context(), "n02")
		testkit.Must(t, err)
		return n.Details.Push != nil && n.Details.Push.State == control.PushCurrent
	})
	testkit.Must(t, s.stop())
	<-waits
	s.start()
	if _, again := s.nodeCall("127.0.0.11", fmt.Sprintf(`{"boot":"b","seen":%q}`, start)); again != answer {
		t.Errorf("after a restart: %q, want %q", again, answer)
	}
}

func TestAMountOnAChangedFileHoldsTheReplicaUntilItIsGone(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.62")
	s.start()
	s.capture("compute")
	report := func(mount string) {
		// The switch before it makes the answer come at once.
		if code, answer := s.nodeCall("127.0.0.11", `{"boot":"b","seen":"compute:1"}`+mount); code != http.StatusOK {
			t.Fatalf("%d %s", code, answer)
		}
	}
	version := func(node string) int {
		n, err := s.client().Node(t.Context(), node)
		testkit.Must(t, err)
		return n.Version
	}
	report(`{"mount":"/etc/motd","type":"ext4"}{"stale":"/usr/bin/tool","pid":7,"name":"tool","unit":"tool.service"}`)
	s.put("etc/motd", "two\n")
	s.capture("compute")
	if version("n01") != 1 || version("n02") != 2 {
		t.Errorf("n01 shows %d, n02 %d", version("n01"), version("n02"))
	}
	if p := s.problem("node n01"); !strings.Contains(p.Text, "a mount there is on /etc/motd") {
		t.Errorf("the problem: %+v", p)
	}
	n, err := s.client().Node(t.Context(), "n01")
	testkit.Must(t, err)
	if p := n.Details.Push; len(p.Mounts) != 1 || p.Mounts[0].Path != "/etc/motd" || len(p.Restart) != 1 ||
		p.Restart[0] != "tool.service" {
		t.Errorf("what the node reported: %+v", p)
	}
	report("")
	testkit.Eventually(t, "the replica follows", func() bool { return version("n01") == 2 })
	testkit.Eventually(t, "the problem is gone", func() bool { return s.problem("node n01").Text == "" })
}

func TestMountsReportedBeforeARestartHoldTheReplica(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.65")
	s.start()
	s.capture("compute")
	if code, answer := s.nodeCall("127.0.0.11",
		`{"boot":"b","seen":"compute:1"}{"mount":"/etc/motd","type":"ext4"}`); code != http.StatusOK {
		t.Fatalf("%d %s", code, answer)
	}
	testkit.Must(t, s.stop())
	s.start()
	s.put("etc/motd", "two\n")
	s.capture("compute")
	if p := s.problem("node n01"); !strings.Contains(p.Text, "a mount there is on /etc/motd") {
		t.Errorf("the problem: %+v", p)
	}
}

func TestDeclaredMountsHoldTheReplicasOfNodesThatRun(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.66")
	s.describe("", `<shared path="/usr"/>`, `<mount path="/etc/motd"/>`)
	s.start()
	s.capture("compute")
	read(t, s.mount("127.0.0.11", "/nodes/n01"), "etc/motd") // it runs
	s.put("etc/motd", "two\n")
	s.capture("compute")
	for name, want := range map[string]int{"n01": 1, "n02": 2} {
		n, err := s.client().Node(t.Context(), name)
		testkit.Must(t, err)
		if n.Version != want {
			t.Errorf("%s shows version %d, want %d", name, n.Version, want)
		}
	}
	if p := s.problem("node n01"); !strings.Contains(p.Text, "a mount there is on /etc/motd") {
		t.Errorf("the problem: %+v", p)
	}
	s.describe("", `<shared path="/usr"/>`, "")
	testkit.Must(t, s.apply())
	testkit.Eventually(t, "n01 follows", func() bool {
		n, err := s.client().Node(t.Context(), "n01")
		testkit.Must(t, err)
		return n.Version == 2
	})
}

func TestCallsOfANodeAreTakenFromItsSuperuserOnly(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.63")
	s.describe("", ` insecure="yes"`, "")
	s.start()
	s.capture("compute")
	const call = `{"boot":"b","seen":"compute:1"}{"mount":"/etc/motd","type":"ext4"}`
	for path, body := range map[string]string{"/node/hear": call, "/boot/stage": `{"stage":"mount"}`} {
		if code, text := s.post(path, "127.0.0.11", 0, body); code != http.StatusForbidden ||
			!strings.Contains(text, "below 1024") {
			t.Errorf("%s from an ordinary port: %d %s", path, code, text)
		}
	}
	s.put("etc/motd", "two\n")
	s.capture("compute")
	n, err := s.client().Node(t.Context(), "n01")
	testkit.Must(t, err)
	if n.Version != 2 || n.Stage == "mount" || n.Details.Push != nil {
		t.Errorf("n01 after the calls of its user: %+v", n)
	}
	if code, text := s.post("/boot/stage", "127.0.0.11", 1023, `{"stage":"mount"}`); code != http.StatusNoContent {
		t.Errorf("the superuser's report: %d %s", code, text)
	}
	if code, text := s.post("/node/hear", "127.0.0.11", 1023, call); code != http.StatusOK {
		t.Errorf("the superuser's call: %d %s", code, text)
	}
}

// A client that opens more connections than it may, sends half a call or reads no answer must not delay others.
func TestStuckClientsCostOthersNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.64")
	s.start()
	bootable(s, "1")
	kernel := s.script("127.0.0.12")[0]
	begins := []string{
		"", "POST /node/hear HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
		"POST /boot/stage HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
		"GET /boot/ipxe HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
		"GET " + kernel + " HTTP/1.1\r\nHost: x\r\n\r\n",
	}
	const limit = 16 // of an address, in package admission
	var conns []net.Conn
	for i := range 3 * limit {
		conn, err := s.dial(t.Context(), "127.0.0.11", 0, s.ports[1])
		testkit.Must(t, err)
		defer conn.Close()
		_, _ = io.WriteString(conn, begins[i%len(begins)]) // the server may have closed it
		conns = append(conns, conn)
	}
	testkit.Eventually(t, "the server has closed those beyond the limit", func() bool {
		open := 0
		for _, conn := range conns {
			_ = conn.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, err := conn.Read(make([]byte, 4096)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				open++
			}
		}
		return open <= limit
	})
	if code, text := s.web("127.0.0.12", "GET", kernel, ""); code != http.StatusOK || text != "kernel 1" {
		t.Errorf("another node: %d %s", code, text)
	}
	if code, text := s.nodeCall("127.0.0.12", `{}`); code != http.StatusOK {
		t.Errorf("the call of another node: %d %s", code, text)
	}
}
