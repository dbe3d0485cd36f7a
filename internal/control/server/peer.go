package server

import (
	"context"
	"net"
	"net/http"
	"os"

	"golang.org/x/sys/unix"

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
	u, ok := c.(*net.UnixConn)
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
