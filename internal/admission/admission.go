// Package admission decides at accept which connections of a service are admitted, and bounds their number.
//
// # Who is admitted
//
// The declared nodes, the other servers, the hosts of admin networks, and this machine, as package caller tells them
// apart. All others are closed at once, so that strangers cost no more than an accept. Machines that are not declared
// boot by DHCP alone, which has no connections.
//
// # Limits
//
// The superuser of an address may have some connections, and the ordinary users there together as many again: they must
// not use up those of the superuser. A further connection takes the place of the one that was quiet longest, because a
// node that was switched off leaves connections that nobody ends. The number in all grows with the description. The
// superuser of this machine has no limit, and its connections do not count: a load test has one for each node.
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
	// ofLoadTest is the number of connections of a load test from another server.
	ofLoadTest = 1024
	// requestRate and requestBurst bound the HTTP requests of an address, in a second and at once. A boot takes about
	// ten, and a node that runs calls again at each switch.
	requestRate, requestBurst = 20, 200
)

// Controller admits the connections of one service, and keeps those that it has admitted. It may be used by any number
// of goroutines.
type Controller struct {
	// Apart reports whether the connections and requests of a caller are bounded by themselves, because it makes a load
	// test. It must be fast, and is set before the first connection. nil: those of nobody are.
	Apart func(caller.Caller) bool

	name    string
	cluster func() *cluster.Cluster
	log     *slog.Logger
	open    bounds.Table[holder, net.Conn]
	own     bounds.Table[holder, net.Conn] // of this machine's superuser and of a load test, which take nobody's place
	rate    bounds.Rate[holder]            // of HTTP requests
	refused atomic.Uint64
}

// Refused returns how many connections were not admitted since the start.
func (a *Controller) Refused() uint64 { return a.refused.Load() }

// holder is whose connections are counted together.
type holder struct {
	addr      netip.Addr
	superuser bool
}

// New returns the Controller of a service; cluster returns the description that holds now.
func New(service string, cluster func() *cluster.Cluster, log *slog.Logger) *Controller {
	return &Controller{
		name: service, cluster: cluster, log: log,
		rate: bounds.Rate[holder]{Every: time.Second / requestRate, Burst: requestBurst},
	}
}

// limitOf returns how many connections an address may have, and all in a cluster of so many nodes.
func limitOf(nodes int) bounds.Limit {
	return bounds.Limit{Each: perAddress, All: spare + perNode*nodes}
}

// Listener returns a listener that accepts the connections of ln that a admits. A connection counts until it is closed.
func (a *Controller) Listener(ln net.Listener) net.Listener { return &listener{ln, a} }

// ConnState is a hook of an http.Server. It closes connections that a does not admit. With a Listener instead, net/http
// would not see that its connections are TCP, and the kernel would no longer send files by itself.
func (a *Controller) ConnState(c net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		if !a.admit(c) {
			_ = c.Close()
		}
	case http.StateClosed, http.StateHijacked:
		a.remove(c)
	}
}

// Handler returns a handler that passes requests on to next, unless their address makes too many: then it ends the
// connection. Programs on this machine may make any number.
func (a *Controller) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if peer, err := caller.OfRequest(r); err == nil {
			who, _ := caller.Resolve(a.cluster(), peer)
			h := holder{who.Peer.Remote.Addr(), who.Superuser}
			if mine := who.Local && who.Node == nil || a.apart(who); !mine && !a.rate.Allow(h, time.Now()) {
				w.Header().Set("Connection", "close")
				http.Error(w, "too many requests: try again in a second", http.StatusTooManyRequests)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// admit adds c to the connections that are admitted, and reports whether it is.
func (a *Controller) admit(c net.Conn) (admitted bool) {
	defer func() {
		if !admitted {
			a.refused.Add(1)
		}
	}()
	cl := a.cluster()
	who, err := caller.Resolve(cl, peerOf(c))
	if err != nil {
		a.log.Warn("connection refused", "kind", a.name, "client", who.Peer.Remote, "error", err)
		return false
	}
	h := holder{who.Peer.Remote.Addr(), who.Superuser}
	switch {
	case who.Root && who.Node == nil:
		return a.own.Add(h, c, bounds.Limit{})
	case a.apart(who):
		return a.own.Add(h, c, bounds.Limit{Each: ofLoadTest})
	}
	limit := limitOf(len(cl.Nodes))
	if who.Root {
		limit = bounds.Limit{}
	}
	if a.open.Add(h, c, limit) {
		return true
	}
	if quiet := quietest(a.open.Of(h)); quiet != nil {
		a.open.Remove(h, quiet)
		_ = quiet.Close()
		if a.open.Add(h, c, limit) {
			return true
		}
	}
	a.log.Warn("connection refused", "kind", a.name, "client", who.Peer.Remote, "reason", "too many connections")
	return false
}

func (a *Controller) apart(who caller.Caller) bool { return a.Apart != nil && a.Apart(who) }

// remove removes a connection that has ended. It may have been counted for either user of its address: the description
// may have changed.
func (a *Controller) remove(c net.Conn) {
	addr := peerOf(c).Remote.Addr().Unmap()
	a.open.Remove(holder{addr, true}, c)
	a.open.Remove(holder{addr, false}, c)
	a.own.Remove(holder{addr, true}, c)
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

// listener accepts the connections that by admits.
type listener struct {
	net.Listener
	by *Controller
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
		if c := (&conn{tcp, l.by}); l.by.admit(c) {
			return c, nil
		}
		_ = c.Close()
	}
}

// conn is an admitted connection. It no longer counts when it is closed.
type conn struct {
	*net.TCPConn
	by *Controller
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.by.remove(c)
	return c.TCPConn.Close()
}
