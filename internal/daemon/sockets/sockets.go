// Package sockets opens all that a server listens on: the sockets of its services and of the control API. It is a part
// of package daemon, and the only package that opens listening sockets.
//
// It must not know what is spoken on them.
package sockets

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

// Set is all that a server listens on, besides the control API. Close closes it.
type Set struct {
	NFS, HTTP []net.Listener
	API       []net.Listener // for other servers
	TFTP      []net.PacketConn
	DNS       []net.PacketConn // none: this server does not answer DNS
	DNSTCP    []net.Listener
	DHCP, RA  net.PacketConn // nil: this server does not answer DHCP, or has no IPv6
	Boot      net.PacketConn // nil: this server does not answer DHCP; port 4011, for proxies of DHCP
	Answers   net.PacketConn // nil: this server does not answer DHCP; receives the answers of other DHCP servers
}

// Bounds of Open.
const (
	stuckTimeout = time.Minute // for a client of HTTP, or a server, that acknowledges nothing of what is sent
	addressRetry = 500 * time.Millisecond
	dnsPort      = 53
)

// Open opens the sockets of server s: TCP and TFTP on each of its addresses and on loopback, DNS on its addresses, DHCP
// and router solicitations on all interfaces. It waits up to limit for addresses of s that no interface has yet: an
// interface may get its address long after the network counts as online. Any other failure ends the wait.
func Open(ctx context.Context, s *cluster.Server, limit time.Duration, log *slog.Logger) (*Set, error) {
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for logged := false; ; logged = true {
		l, err := open(ctx, s)
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

// onlyAddressesMissing reports whether the causes of an error of open are all that no interface has the address.
func onlyAddressesMissing(err error) bool {
	joined, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err)
	return ok && !slices.ContainsFunc(joined.Unwrap(), func(err error) bool {
		return !errors.Is(err, unix.EADDRNOTAVAIL)
	})
}

// open opens the sockets of server s. All failures are reported at once.
func open(ctx context.Context, s *cluster.Server) (*Set, error) {
	l := &Set{}
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
	all := Addresses(s)
	if !slices.Contains(all, loopback) {
		all = append(all, loopback)
	}
	for _, addr := range all {
		tcp(&l.NFS, &net.ListenConfig{}, addr, s.Ports.NFS)
		tcp(&l.HTTP, &net.ListenConfig{Control: endStuck}, addr, s.Ports.HTTP)
	}
	for _, addr := range Addresses(s) {
		tcp(&l.API, &net.ListenConfig{Control: endStuck}, addr, s.Ports.API)
		pc, err := new(net.ListenConfig).ListenPacket(ctx, "udp", netip.AddrPortFrom(addr, s.Ports.TFTP).String())
		if note(err) {
			l.TFTP = append(l.TFTP, pc)
		}
	}
	if s.DNS {
		for _, addr := range Addresses(s) {
			tcp(&l.DNSTCP, &net.ListenConfig{Control: endStuck}, addr, dnsPort)
			pc, err := new(net.ListenConfig).ListenPacket(ctx, "udp", netip.AddrPortFrom(addr, dnsPort).String())
			if note(err) {
				l.DNS = append(l.DNS, pc)
			}
		}
	}
	if s.DHCP {
		pc, err := listenDHCP(ctx, 67)
		if note(err) {
			l.DHCP = pc
		}
		if pc, err = listenDHCP(ctx, 4011); note(err) {
			l.Boot = pc
		}
		if pc, err = listenAnswers(ctx); note(err) {
			l.Answers = pc
		}
		// Without IPv6 in this kernel loaders wait some seconds longer, and that is all.
		if pc, err := net.ListenPacket("ip6:ipv6-icmp", "::"); err == nil {
			l.RA = pc
		}
	}
	if len(errs) > 0 {
		l.Close()
		return nil, fmt.Errorf("listen as %s: %w", s.Name, errors.Join(errs...))
	}
	return l, nil
}

// Close closes every socket; those that a server closed already do not mind.
func (l *Set) Close() {
	for _, ln := range slices.Concat(l.NFS, l.HTTP, l.API, l.DNSTCP) {
		_ = ln.Close()
	}
	for _, pc := range append(slices.Concat(l.TFTP, l.DNS), l.DHCP, l.Boot, l.Answers, l.RA) {
		if pc != nil {
			_ = pc.Close()
		}
	}
}

// Addresses returns the addresses of a server, in the order of the description.
func Addresses(s *cluster.Server) []netip.Addr {
	var list []netip.Addr
	for _, card := range s.Interfaces {
		list = append(list, card.Address)
	}
	return list
}

// InterfacesWith returns the indexes of the interfaces that have one of the addresses now.
func InterfacesWith(addrs []netip.Addr) ([]int, error) {
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
func listenDHCP(ctx context.Context, port int) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return withSocket(c, func(fd int) error {
			return errors.Join(
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
				setReceiveBuffer(fd, dhcpBuffer),
			)
		})
	}}
	return lc.ListenPacket(ctx, "udp4", net.JoinHostPort("0.0.0.0", strconv.Itoa(port)))
}

// listenAnswers opens a socket that receives a copy of each packet of UDP from port 67 that arrives here. Clients of
// DHCP are answered on a port of theirs, so that no ordinary socket could receive what is broadcast to them.
func listenAnswers(ctx context.Context) (net.PacketConn, error) {
	fromServers := []unix.SockFilter{
		{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 0}, // X = length of the header of IP
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: 0},  // A = source port
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 67, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return withSocket(c, func(fd int) error {
			return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
				&unix.SockFprog{Len: uint16(len(fromServers)), Filter: &fromServers[0]})
		})
	}}
	return lc.ListenPacket(ctx, "ip4:udp", "0.0.0.0")
}

// OpenTransfers opens a socket for TFTP transfers, on any port of the address to which requests come.
func OpenTransfers(local net.Addr) (net.PacketConn, error) {
	host, _, err := net.SplitHostPort(local.String())
	if err != nil {
		return nil, err
	}
	return net.ListenPacket("udp", net.JoinHostPort(host, "0"))
}

// Services returns what listens, for `dim status`.
func (l *Set) Services() []control.Service {
	var list []control.Service
	for _, s := range []struct {
		name      string
		listeners []net.Listener
	}{{"nfs", l.NFS}, {"http", l.HTTP}, {"api", l.API}, {"dns", l.DNSTCP}} {
		for _, ln := range s.listeners {
			list = append(list, control.Service{Name: s.name, Address: ln.Addr().String()})
		}
	}
	for _, s := range []struct {
		name  string
		conns []net.PacketConn
	}{{"tftp", l.TFTP}, {"dns", l.DNS}, {"dhcp", []net.PacketConn{l.DHCP}}} {
		for _, pc := range s.conns {
			if pc == nil {
				continue
			}
			list = append(list, control.Service{Name: s.name, Address: pc.LocalAddr().String()})
		}
	}
	return list
}

// Lost returns how many messages the kernel has dropped of each service that has UDP sockets.
func (l *Set) Lost() map[string]uint64 {
	counts := map[string]uint64{}
	for service, conns := range map[string][]net.PacketConn{"tftp": l.TFTP, "dns": l.DNS, "dhcp": {l.DHCP, l.Boot}} {
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

// OpenControl opens the sockets of the control API. Those that exist are of a killed daemon: the
// caller has the lock of the data directory.
func OpenControl(sockets []wire.Socket, log *slog.Logger) (list []net.Listener, err error) {
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
