package daemon

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/control/wire"
	"dim/internal/sysfile"
)

// sockets are all that this server listens on. close closes them.
type sockets struct {
	nfs, http []net.Listener
	tftp      []net.PacketConn
	dhcp, ra  net.PacketConn // nil: this server does not answer DHCP, or has no IPv6
}

// Bounds of listenWithin.
const (
	addressWait  = time.Minute
	addressRetry = 500 * time.Millisecond
)

// listenWithin is listen, but waits up to limit for the addresses of s that no interface has yet: an interface may get
// its address long after the network counts as online. Any other failure ends the wait.
func listenWithin(ctx context.Context, s *cluster.Server, limit time.Duration, log *slog.Logger) (*sockets, error) {
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for logged := false; ; logged = true {
		l, err := listen(ctx, s)
		if err == nil || !onlyAddressesMissing(err) {
			return l, err
		}
		if !logged {
			log.Warn("waiting for the server's address", "error", err)
		}
		select {
		case <-waiting.Done():
			return nil, err
		case <-time.After(addressRetry):
		}
	}
}

// onlyAddressesMissing reports whether the causes of an error of listen are all that no interface has the address.
func onlyAddressesMissing(err error) bool {
	joined, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err)
	return ok && !slices.ContainsFunc(joined.Unwrap(), func(err error) bool {
		return !errors.Is(err, unix.EADDRNOTAVAIL)
	})
}

// listen opens the sockets of server s: TCP and TFTP on each of its addresses and on loopback, DHCP and router
// solicitations on all interfaces. All failures are reported at once.
func listen(ctx context.Context, s *cluster.Server) (*sockets, error) {
	l := &sockets{}
	var errs []error
	note := func(err error) bool {
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			err = fmt.Errorf("%w: no interface here has it", err)
		}
		if err != nil {
			errs = append(errs, err)
		}
		return err == nil
	}
	tcp := func(list *[]net.Listener, lc *net.ListenConfig, addr netip.Addr, port uint16) {
		ln, err := lc.Listen(ctx, "tcp", netip.AddrPortFrom(addr, port).String())
		if note(err) {
			*list = append(*list, ln)
		}
	}
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	all := addresses(s)
	if !slices.Contains(all, loopback) {
		all = append(all, loopback)
	}
	for _, addr := range all {
		tcp(&l.nfs, &net.ListenConfig{}, addr, s.Ports.NFS)
		tcp(&l.http, &net.ListenConfig{Control: endStuck}, addr, s.Ports.HTTP)
	}
	for _, addr := range addresses(s) {
		pc, err := new(net.ListenConfig).ListenPacket(ctx, "udp", netip.AddrPortFrom(addr, s.Ports.TFTP).String())
		if note(err) {
			l.tftp = append(l.tftp, pc)
		}
	}
	if s.DHCP {
		pc, err := listenDHCP(ctx)
		if note(err) {
			l.dhcp = pc
		}
		// Without IPv6 in this kernel loaders wait some seconds longer, and that is all.
		if pc, err := net.ListenPacket("ip6:ipv6-icmp", "::"); err == nil {
			l.ra = pc
		}
	}
	if len(errs) > 0 {
		l.close()
		return nil, fmt.Errorf("listen as %s: %w", s.Name, errors.Join(errs...))
	}
	return l, nil
}

// close closes every socket; those that a server closed already do not mind.
func (l *sockets) close() {
	for _, ln := range append(l.nfs, l.http...) {
		_ = ln.Close()
	}
	for _, pc := range append(l.tftp, l.dhcp, l.ra) {
		if pc != nil {
			_ = pc.Close()
		}
	}
}

func addresses(s *cluster.Server) []netip.Addr {
	var list []netip.Addr
	for _, card := range s.Interfaces {
		list = append(list, card.Address)
	}
	return list
}

// interfacesWith returns the indexes of the interfaces that have one of the addresses now.
func interfacesWith(addrs []netip.Addr) ([]int, error) {
	b, err := syscall.NetlinkRIB(syscall.RTM_GETADDR, syscall.AF_INET)
	if err != nil {
		return nil, fmt.Errorf("read addresses of interfaces: %w", err)
	}
	messages, err := syscall.ParseNetlinkMessage(b)
	if err != nil {
		return nil, fmt.Errorf("read addresses of interfaces: %w", err)
	}
	var list []int
	for i := range messages {
		m := &messages[i]
		if m.Header.Type != syscall.RTM_NEWADDR || len(m.Data) < syscall.SizeofIfAddrmsg {
			continue
		}
		index := int(binary.NativeEndian.Uint32(m.Data[4:])) // struct ifaddrmsg, ifa_index
		attrs, err := syscall.ParseNetlinkRouteAttr(m)
		if err != nil {
			return nil, fmt.Errorf("read addresses of interfaces: %w", err)
		}
		for _, a := range attrs {
			addr, ok := netip.AddrFromSlice(a.Value)
			if ok && a.Attr.Type == syscall.IFA_LOCAL && slices.Contains(addrs, addr) && !slices.Contains(list, index) {
				list = append(list, index)
			}
		}
	}
	return list, nil
}

// endStuck lets the kernel end the connections of a socket that make no way: a file that is sent by it takes as long as
// it takes, and net/http's deadlines are for all of it.
func endStuck(_, _ string, c syscall.RawConn) error {
	return withSocket(c, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(stuckTimeout.Milliseconds()))
	})
}

func withSocket(c syscall.RawConn, set func(fd int) error) (err error) {
	if cerr := c.Control(func(fd uintptr) { err = set(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}

// dhcpBuffer is the size of the receive buffer of DHCP, for the messages of 10,000 nodes that are switched on together.
// The kernel charges at least 768 bytes for a message, so that its default size holds less than 300 of them.
const dhcpBuffer = 8 << 20

// setReceiveBuffer sets the size of a socket's receive buffer, as far as the kernel lets it.
func setReceiveBuffer(fd, size int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size); err == nil {
		return nil
	}
	// Without CAP_NET_ADMIN the size is at most net.core.rmem_max.
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
}

// listenDHCP opens a DHCP server's socket. It is bound to no interface, because a bridge, bond or VLAN that is deleted
// and made again is another interface, and a socket that was bound to the old one would receive nothing more. Several
// servers of one machine may have such a socket: each receives all broadcasts.
func listenDHCP(ctx context.Context) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return withSocket(c, func(fd int) error {
			return errors.Join(
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
				setReceiveBuffer(fd, dhcpBuffer),
			)
		})
	}}
	return lc.ListenPacket(ctx, "udp4", net.JoinHostPort("0.0.0.0", strconv.Itoa(67)))
}

// listenTransfer opens a socket for one TFTP transfer, on any port of the address that the request came to.
func listenTransfer(local net.Addr) (net.PacketConn, error) {
	host, _, err := net.SplitHostPort(local.String())
	if err != nil {
		return nil, err
	}
	return net.ListenPacket("udp", net.JoinHostPort(host, "0"))
}

// services returns what listens, for `dim status`.
func (l *sockets) services() []control.Service {
	var list []control.Service
	for _, s := range []struct {
		name      string
		listeners []net.Listener
	}{{"nfs", l.nfs}, {"http", l.http}} {
		for _, ln := range s.listeners {
			list = append(list, control.Service{Name: s.name, Address: ln.Addr().String()})
		}
	}
	for _, s := range []struct {
		name  string
		conns []net.PacketConn
	}{{"tftp", l.tftp}, {"dhcp", []net.PacketConn{l.dhcp}}} {
		for _, pc := range s.conns {
			if pc == nil {
				continue
			}
			list = append(list, control.Service{Name: s.name, Address: pc.LocalAddr().String()})
		}
	}
	return list
}

// lost returns how many messages the kernel has dropped of each service that has UDP sockets.
func (l *sockets) lost() map[string]uint64 {
	counts := map[string]uint64{}
	for service, conns := range map[string][]net.PacketConn{"tftp": l.tftp, "dhcp": {l.dhcp}} {
		for _, pc := range conns {
			conn, ok := pc.(syscall.Conn)
			if !ok {
				continue // this server has no such socket
			}
			n, err := sysfile.UDPDrops(conn)
			if err == nil {
				counts[service] += n
			}
		}
	}
	return counts
}

// listenControl opens the sockets of the control API. Those that exist are of a killed daemon: this one has the lock.
func listenControl(sockets []wire.Socket, log *slog.Logger) (list []net.Listener, err error) {
	for _, s := range sockets {
		switch ln, lerr := s.Open(net.Listen); {
		case lerr == nil:
			list = append(list, ln)
		case s.Optional:
			log.Warn("members of the group dim cannot use dim status and the listings", "error", lerr)
		default:
			err = errors.Join(err, lerr)
		}
	}
	return list, err
}
