package sockets

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"dim/internal/testkit"
)

// failingListener is a listener whose Accept returns errors first.
type failingListener struct {
	net.Listener
	errs []error
}

func (l *failingListener) Accept() (net.Conn, error) {
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, err
	}
	return l.Listener.Accept()
}

func TestAMultiListenerAcceptsAgainAfterTransientErrors(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var list []net.Listener
	for range 2 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		testkit.Must(t, err)
		list = append(list, ln)
	}
	first := list[0].Addr()
	list[0] = &failingListener{list[0], []error{syscall.EMFILE, syscall.ECONNABORTED}}
	j := Join(list)
	for range 2 {
		if _, err := j.Accept(); !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("accept: %v", err)
		}
	}
	for _, addr := range []net.Addr{first, list[1].Addr()} {
		c, err := net.Dial("tcp", addr.String())
		testkit.Must(t, err)
		got, err := j.Accept()
		testkit.Must(t, err)
		got.Close()
		c.Close()
	}
	testkit.Must(t, j.Close())
	if _, err := j.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept after Close: %v", err)
	}
	testkit.Must(t, j.Close())
}
