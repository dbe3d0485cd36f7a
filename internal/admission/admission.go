// Package admission decides at accept which connections a service takes, and keeps those that it has.
//
// # Who is taken
//
// The declared nodes, the other servers, the hosts of admin networks, and this machine, as package caller tells them
// apart. All others are closed at once, so that strangers cost no more than an accept. Machines that are not declared
// boot by DHCP alone, which has no connections.
//
// # Limits
//
// An address has a number of connections, and as many again for its ordinary users, who could use up those of its
// superuser otherwise. A further connection takes the place of the one that was quiet longest, because a node that was
// switched off leaves connections that nobody ends. The number in all grows with the description. The superuser of this
// machine has no limit.
//
// # What it must not know
//
// Any protocol on the connections, and what a caller may do.
package admission

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/bounds"
	"dim/internal/caller"
	"dim/internal/cluster"
)

const (
	// perAddress is the number of connections of an address. A Linux client has up to 16 to one server (nconnect in
	// nfs(5)).
	perAddress = 16
	// perNode and spare make the number of connections in all.
	perNode, spare = 4, 1024
	// quietTime is how long a connection must have been quiet to be closed in favour of another one.
	quietTime = time.Second
	// requestRate and requestBurst bound the HTTP requests of an address, in a second and at once. A boot takes about
	// ten, and a node that runs calls again at each switch.
	requestRate, requestBurst = 20, 200
)

// Door takes the connections of one service. It may be used by any number of goroutines.
type Door struct {
	name    string
	cluster func() *cluster.Cluster
	log     *slog.Logger
	open    bounds.Table[holder, net.Conn]
	rate    bounds.Rate[holder] // of HTTP requests
	refused atomic.Uint64
}

// Refused returns how many connections were not taken since the start.
func (d *Door) Refused() uint64 { return d.refused.Load() }

// holder is whose connections are counted together.
type holder struct {
	addr      netip.Addr
	superuser bool
}

// New returns the door of a service; cluster returns the description that holds now.
func New(service string, cluster func() *cluster.Cluster, log *slog.Logger) *Door {
	return &Door{
		name: service, cluster: cluster, log: log,
		rate: bounds.Rate[holder]{Every: time.Second / requestRate, Burst: requestBurst},
	}
}

// limitOf returns how many connections an address may have, and all in a cluster of so many nodes.
func limitOf(nodes int) bounds.Limit {
	return bounds.Limit{Each: perAddress, All: spare + perNode*nodes}
}

// Listener returns a listener that accepts what d takes of ln. A connection is d's until it is closed.
func (d *Door) Listener(ln net.Listener) net.Listener { return &listener{ln, d} }

// ConnState is a hook of a http.Server that closes what d does not take. In the place of it a Listener would do, but
// hides from net/http that its connections are TCP, and files would no longer be sent by the kernel.
func (d *Door) ConnState(c net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		if !d.take(c) {
			_ = c.Close()
		}
	case http.StateClosed, http.StateHijacked:
		d.leave(c)
	}
}

// Handler returns a handler that passes requests on to next, unless their address makes too many: then it ends the
// connection. Programs on this machine may make any number.
func (d *Door) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if peer, err := caller.OfRequest(r); err == nil {
			who, _ := caller.Resolve(d.cluster(), peer)
			h := holder{who.Peer.Remote.Addr(), who.Superuser}
			if mine := who.Local && who.Node == nil; !mine && !d.rate.Allow(h, time.Now()) {
				w.Header().Set("Connection", "close")
				http.Error(w, "too many requests: try again in a second", http.StatusTooManyRequests)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// take adds c to the connections that are taken, and reports whether it is.
func (d *Door) take(c net.Conn) (taken bool) {
	defer func() {
		if !taken {
			d.refused.Add(1)
		}
	}()
	cl := d.cluster()
	who, err := caller.Resolve(cl, peerOf(c))
	if err != nil {
		d.log.Warn("connection refused", "kind", d.name, "client", who.Peer.Remote, "error", err)
		return false
	}
	limit := limitOf(len(cl.Nodes))
	if who.Root {
		limit = bounds.Limit{}
	}
	h := holder{who.Peer.Remote.Addr(), who.Superuser}
	if d.open.Add(h, c, limit) {
		return true
	}
	if quiet := quietest(d.open.Of(h)); quiet != nil {
		d.open.Remove(h, quiet)
		_ = quiet.Close()
		if d.open.Add(h, c, limit) {
			return true
		}
	}
	d.log.Warn("connection refused", "kind", d.name, "client", who.Peer.Remote, "reason", "too many connections")
	return false
}

// leave removes a connection that has ended. It may have been counted for either user of its address: the description
// may have changed.
func (d *Door) leave(c net.Conn) {
	addr := peerOf(c).Remote.Addr().Unmap()
	d.open.Remove(holder{addr, true}, c)
	d.open.Remove(holder{addr, false}, c)
}

func peerOf(c net.Conn) caller.Peer {
	end := func(a net.Addr) netip.AddrPort {
		tcp, ok := a.(*net.TCPAddr)
		if !ok {
			return netip.AddrPort{}
		}
		return tcp.AddrPort()
	}
	return caller.Peer{Remote: end(c.RemoteAddr()), Local: end(c.LocalAddr())}
}

// quietest returns the connection of list that has received nothing for the longest time, nil when all are in use.
func quietest(list []net.Conn) (quiet net.Conn) {
	longest := quietTime
	for _, c := range list {
		info, err := infoOf(c)
		switch age := time.Duration(info.Last_data_recv) * time.Millisecond; {
		case err != nil:
			return c // it has ended
		case age >= longest:
			longest, quiet = age, c
		}
	}
	return quiet
}

// infoOf returns what the kernel knows of a connection.
func infoOf(c net.Conn) (unix.TCPInfo, error) {
	tcp, ok := tcpOf(c)
	if !ok {
		return unix.TCPInfo{}, errors.ErrUnsupported
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return unix.TCPInfo{}, err
	}
	var info *unix.TCPInfo
	cerr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.SOL_TCP, unix.TCP_INFO) })
	if err := errors.Join(cerr, err); err != nil {
		return unix.TCPInfo{}, err
	}
	return *info, nil
}

func tcpOf(c net.Conn) (*net.TCPConn, bool) {
	if x, ok := c.(*conn); ok {
		return x.TCPConn, true
	}
	tcp, ok := c.(*net.TCPConn)
	return tcp, ok
}

// listener accepts the connections that its door takes.
type listener struct {
	net.Listener
	door *Door
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, ok := c.(*net.TCPConn)
		if !ok {
			_ = c.Close()
			continue
		}
		if taken := (&conn{tcp, l.door}); l.door.take(taken) {
			return taken, nil
		}
		_ = c.Close()
	}
}

// conn is a connection that leaves its door when it is closed.
type conn struct {
	*net.TCPConn
	door *Door
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.door.leave(c)
	return c.TCPConn.Close()
}
