package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"

	"golang.org/x/sys/unix"

	"dim/internal/bounds"
	"dim/internal/control"
)

// peerKey is the context key of a connection's peer credentials.
type peerKey struct{}

func withPeer(ctx context.Context, c net.Conn) context.Context {
	if cred, err := peerOf(c); err == nil {
		return context.WithValue(ctx, peerKey{}, cred)
	}
	return ctx
}

func peerOf(c net.Conn) (*unix.Ucred, error) {
	u, ok := unixOf(c)
	if !ok {
		return nil, net.ErrClosed
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) {
		cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, err
	}
	return cred, cerr
}

func unixOf(c net.Conn) (*net.UnixConn, bool) {
	if x, ok := c.(*conn); ok {
		return x.UnixConn, true
	}
	u, ok := c.(*net.UnixConn)
	return u, ok
}

// connLimit bounds the connections of one user and of all. A mount holds one as long as it lasts.
var connLimit = bounds.Limit{Each: 256, All: 512}

// limited is a listener that bounds the connections of each user. Those beyond the limit are closed at accept.
type limited struct {
	net.Listener
	log  *slog.Logger
	open bounds.Table[uint32, *conn]
}

// conn is a connection that is counted until it is closed.
type conn struct {
	*net.UnixConn
	uid  uint32
	from *limited
}

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		u, ok := c.(*net.UnixConn)
		cred, err := peerOf(c)
		if !ok || err != nil {
			_ = c.Close()
			continue
		}
		counted := &conn{u, cred.Uid, l}
		if l.open.Add(cred.Uid, counted, connLimit) {
			return counted, nil
		}
		l.log.Warn("connection refused", "kind", "control", "client", cred.Uid, "reason", "too many connections")
		_ = c.Close()
	}
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.from.open.Remove(c.uid, c)
	return c.UnixConn.Close()
}

// superuserOnly passes on the requests of root and of the user that the daemon itself runs as. The mode of the socket
// demands the same, but a mode can be changed.
func superuserOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cred, ok := r.Context().Value(peerKey{}).(*unix.Ucred)
		if !ok || cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
			refuse(w, control.Errorf(control.Denied, "only root may talk to this daemon"))
			return
		}
		next.ServeHTTP(w, r)
	})
}
