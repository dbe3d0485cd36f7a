package daemon

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"dim/internal/testkit"
)

// raw sends bytes as n01 to the HTTP service and returns all that comes back until the server closes the connection.
func (s *site) raw(request string) string {
	s.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 11)}, Timeout: time.Minute}
	conn := testkit.Value(d.DialContext(s.t.Context(), "tcp", fmt.Sprintf("%s:%d", s.addr, s.ports[1])))(s.t)
	defer conn.Close()
	testkit.Must(s.t, conn.SetDeadline(time.Now().Add(time.Minute)))
	testkit.Value(io.WriteString(conn, request))(s.t)
	return string(testkit.Value(io.ReadAll(conn))(s.t))
}

// The requests are of the forms that firmware and loaders send.
func TestFilesOfABootAreServedToEveryFormOfHTTP(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	bootable(s, "1")
	kernel := s.script("127.0.0.11")[0]
	const end = "Host: x\r\nConnection: close\r\n\r\n"
	for name, tt := range map[string]struct {
		request string
		status  string
		body    string // the answer ends with it
		has     string // the answer contains it
	}{
		"HTTP/1.0 without a host":   {"GET " + kernel + " HTTP/1.0\r\n\r\n", "HTTP/1.0 200", "\r\n\r\nkernel 1", ""},
		"two slashes":               {"GET /" + kernel + " HTTP/1.1\r\n" + end, "HTTP/1.1 200", "\r\n\r\nkernel 1", ""},
		"slashes inside":            {"GET //boot//ipxe HTTP/1.1\r\n" + end, "HTTP/1.1 200", "", "#!ipxe"},
		"a dot":                     {"GET /./boot/ipxe HTTP/1.1\r\n" + end, "HTTP/1.1 200", "", "#!ipxe"},
		"an address in the request": {"GET http://x" + kernel + " HTTP/1.1\r\n" + end, "HTTP/1.1 200", "kernel 1", ""},
		"the size of the kernel": {"HEAD " + kernel + " HTTP/1.1\r\n" + end, "HTTP/1.1 200", "\r\n\r\n",
			"Content-Length: 8\r\n"},
		"the size of the kernel by HTTP/1.0": {"HEAD " + kernel + " HTTP/1.0\r\n\r\n", "HTTP/1.0 200", "\r\n\r\n",
			"Content-Length: 8\r\n"},
		"the size of the script": {"HEAD /boot/ipxe HTTP/1.1\r\n" + end, "HTTP/1.1 200", "\r\n\r\n",
			"Content-Length: "},
		"a part": {"GET " + kernel + " HTTP/1.1\r\nRange: bytes=2-4\r\n" + end, "HTTP/1.1 206", "\r\n\r\nrne",
			"Content-Range: bytes 2-4/8"},
		"the end": {"GET " + kernel + " HTTP/1.1\r\nRange: bytes=-2\r\n" + end, "HTTP/1.1 206", "\r\n\r\n 1", ""},
		"a part behind the end": {"GET " + kernel + " HTTP/1.1\r\nRange: bytes=99-\r\n" + end, "HTTP/1.1 416", "",
			"bytes */8"},
	} {
		got := s.raw(tt.request)
		if !strings.HasPrefix(got, tt.status) || !strings.HasSuffix(got, tt.body) || !strings.Contains(got, tt.has) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestAskingForSizesIsNoStepOfABoot(t *testing.T) {
	t.Parallel()
	s := newSite(t, "127.0.0.2")
	s.start()
	bootable(s, "1")
	for range 2 {
		if got := s.raw("HEAD /boot/ipxe HTTP/1.0\r\n\r\n"); !strings.Contains(got, " 200 ") {
			t.Errorf("HEAD: %q", got)
		}
	}
	if n := testkit.Value(s.client().Node(t.Context(), "n01"))(t); n.Stage != "off" {
		t.Errorf("after HEAD n01 is in stage %s", n.Stage)
	}
	s.script("127.0.0.11")
	if n := testkit.Value(s.client().Node(t.Context(), "n01"))(t); n.Stage != "script" {
		t.Errorf("after GET n01 is in stage %s", n.Stage)
	}
}
