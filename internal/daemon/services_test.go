package daemon

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"dim/internal/testkit"
)

func TestHTTPConnectionsBeyondTheLimitAreClosed(t *testing.T) {
	t.Parallel()
	t.Run("of all", func(t *testing.T) { testConnections(t, limit(2, 9)) })
	t.Run("from one address", func(t *testing.T) { testConnections(t, limit(9, 2)) })
}

// testConnections checks that two connections are served at a time.
func testConnections(t *testing.T, hook func(net.Conn, http.ConnState)) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ConnState = hook
	s.Start()
	defer s.Close()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		testkit.Must(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	ask := func(c net.Conn) error {
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		_, err := c.Read(make([]byte, 4096))
		return err
	}
	first, second := dial(), dial()
	testkit.Must(t, ask(first))
	testkit.Must(t, ask(second))
	if err := ask(dial()); err == nil {
		t.Error("a third is served")
	}
	testkit.Must(t, ask(second))
	testkit.Must(t, first.Close())
	testkit.Eventually(t, "there is room again", func() bool { return ask(dial()) == nil })
}
