package nfs

import (
	"context"
	"log/slog"
	"net/netip"

	"dim/internal/meter"
	"dim/internal/oncrpc"
	"dim/internal/vfs"
)

// Exports decides who may use which trees. Its methods may be called from any number of goroutines.
type Exports interface {
	// Client returns what a peer may use. It is asked with the first call of a connection, and again when the Client is
	// no longer current. An error means that the user in the peer's calls is not to be believed: they are denied.
	Client(Peer) (Client, error)
	// Paths lists what can be mounted, for showmount.
	Paths() []string
}

// Peer is what a connection proves about its other end.
type Peer struct {
	Remote netip.AddrPort
	Local  netip.AddrPort // our end
}

// Client is what one peer may use. Its methods may be called from any number of goroutines.
type Client interface {
	// Current reports whether Exports would still return this Client for its peer. It is asked on every call and
	// must be fast.
	Current() bool
	// Mount returns the tree at a path. The error should be a vfs.Errno.
	Mount(ctx context.Context, path string) (vfs.FS, error)
	// Find returns the tree that a handle belongs to. It is asked on every call and must be fast. The error is
	// ESTALE for a tree that is gone, EBADHANDLE for what never was a handle, EACCES for a tree that is none of the
	// client's.
	Find(vfs.Handle) (Export, error)
}

// Export is one tree.
type Export struct {
	FS    vfs.FS       // comparable, as a pointer is
	Meter *meter.Meter // counts the calls; nil: nothing does
	Done  func()       // called when the call no longer uses FS; nil: nobody waits for that
}

// Options are the server's choices. The zero value works.
type Options struct {
	Log *slog.Logger
}

// resolved is the Client of a connection, kept in its oncrpc.Peer.
type resolved struct{ Client }

// client returns the Client of a connection.
func (s *Server) client(peer *oncrpc.Peer) (Client, error) {
	if kept, ok := peer.Data.Load().(*resolved); ok && kept.Current() {
		return kept.Client, nil
	}
	c, err := s.exports.Client(Peer{Remote: peer.Remote, Local: peer.Local})
	if err != nil {
		return nil, err
	}
	peer.Data.Store(&resolved{c})
	return c, nil
}
