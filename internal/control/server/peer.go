package server

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"dim/internal/bounds"
)

// peerKey is the context key of a connection's peer credentials.
type peerKey struct{}

// peer is the process at the other end of a connection, as it was when it connected.
type peer struct {
	*unix.Ucred
	groups []uint32 // supplementary ones
}

func withPeer(ctx context.Context, c net.Conn) context.Context {
	cred, err := peerOf(c)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, &peer{cred, groupsOf(c)})
}

// maxGroups is the most groups that a process has: NGROUPS_MAX of Linux.
const maxGroups = 65536

// groupsOf returns the supplementary groups of the process at the other end, none if the kernel does not tell.
func groupsOf(c net.Conn) (groups []uint32) {
	u, ok := unixOf(c)
	if !ok {
		return nil
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(func(fd uintptr) {
		for n := 64; n <= maxGroups; n *= 4 {
			list := make([]uint32, n)
			size := uint32(4 * n)
			_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
				uintptr(unsafe.Pointer(&list[0])), uintptr(unsafe.Pointer(&size)), 0)
			if errno == unix.ERANGE {
				continue
			}
			if errno == 0 {
				groups = list[:size/4]
			}
			return
		}
	})
	return groups
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

// rights are what a peer may call.
type rights int

const (
	none rights = iota
	reading
	everything
)

// rightsOf returns what the process at the other end of a request's connection may call. Root and the user that the
// daemon itself runs as may call everything.
func (c *Calls) rightsOf(r *http.Request) rights {
	p, ok := r.Context().Value(peerKey{}).(*peer)
	switch {
	case !ok:
		return none
	case p.Uid == 0 || int(p.Uid) == os.Geteuid():
		return everything
	case c.Readers > 0 && (int(p.Gid) == c.Readers || slices.Contains(p.groups, uint32(c.Readers))):
		return reading
	}
	return none
}
