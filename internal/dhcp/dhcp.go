// Package dhcp answers DHCPv4 (RFC 2131, 2132, 3011, 3046, 3527, 4578, 5107, 8357) and BOOTP (RFC 951, 1542) for
// machines whose addresses are fixed.
//
// # Concepts
//
// The function Answer decides what a client is given: a Lease. This package decodes messages, follows the rules of the
// protocol (the type of the answer, and where it is sent), and encodes answers. There are no pools and no lease files.
// The lease time is always infinite, because addresses belong to a description and not to this server.
//
// # Clients that are not answered
//
// A machine that Answer does not know gets no answer, so that another DHCP server may serve the same network. It is
// added to Machines, unless Refused knows it. Refused is told of every message that is not answered. A DHCPNAK is sent
// only to a client that this server answers, and that asks for an address other than its own.
//
// # Source ports
//
// Clients send from port 68 and relays from port 67, which only the superuser of a machine can use. A client that sends
// from a port of any user is not answered. A relay may send from such a port (RFC 8357, and some do without it); it is
// for Answer to decide who may be a relay.
//
// # Destinations
//
// An answer is sent to the relay if there is one, else to the present address of the client, else to the broadcast
// address (RFC 2131 section 4.1).
//
// There is one exception. A client that has no address and does not set the broadcast bit should get a unicast
// frame, to an address for which it does not answer ARP yet. That needs a packet socket, or an ARP entry for the
// client. The RFC allows a broadcast in its place, which all firmware and loaders accept, so a plain UDP socket is
// enough.
//
// # Concurrency
//
// One Server may Serve any number of sockets at the same time. Answer is called from each of these goroutines. Each
// socket handles one message after the other. One socket, bound to no interface, is enough: the interface of each
// message is known, and interfaces may come and go meanwhile.
//
// It must not know nodes, images or boot files, nor open sockets.
package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/ipv4"
)

// NotMineError is the error of Answer for a known client that another server answers.
type NotMineError struct{ Reason string }

// Error implements error.
func (e *NotMineError) Error() string { return e.Reason }

// Server answers clients. Answer and Log must be set.
type Server struct {
	// Answer returns what the client is given. After an error the client is not answered, and it is added to
	// Machines with the text of the error unless that is a NotMineError. Answer must not block.
	Answer func(*Request) (Lease, error)
	// Refused, if not nil, is called for each message that is not answered. It must not block. It reports whether the
	// client is known. Anybody can send a message with the MAC of another machine.
	Refused func(Refusal) (known bool)
	// Machines lists the unknown clients; nil: they are not listed.
	Machines *Machines
	// Addresses are those of this server. A message is ignored if it arrives on an interface that has none of them and
	// no relay sent it. nil: messages of all interfaces are answered.
	Addresses []netip.Addr
	Log       *slog.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time

	counters counters
}

// Serve answers messages that arrive on conn, a UDP socket on port 67 of the unspecified address, until ctx ends.
// It does not close conn. The error is nil if ctx ended.
func (s *Server) Serve(ctx context.Context, conn net.PacketConn) error {
	return s.serve(ctx, conn, serverPort)
}

// ServeBoot is Serve for a socket on port 4011, on which clients ask for nothing but their boot file.
func (s *Server) ServeBoot(ctx context.Context, conn net.PacketConn) error {
	return s.serve(ctx, conn, bootPort)
}

func (s *Server) serve(ctx context.Context, conn net.PacketConn, port int) error {
	p := ipv4.NewPacketConn(conn)
	if err := p.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true); err != nil {
		return fmt.Errorf("serve dhcp: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var cards interfaces
	buf := make([]byte, 64<<10)
	for {
		n, cm, from, err := p.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read dhcp messages: %w", err)
		}
		if cm == nil || cm.IfIndex == 0 {
			// It arrived before SetControlMessage, so its interface is unknown. The client will repeat it.
			continue
		}
		s.counters.received.Add(1)
		card := cards.get(cm.IfIndex, time.Now())
		at := arrival{Interface: card, bootPort: port == bootPort}
		at.unicast = card.has(cm.Dst) || slices.Contains(s.Addresses, addr(cm.Dst))
		if a, ok := from.(*net.UDPAddr); ok {
			at.from = netip.AddrPortFrom(addr(a.IP), uint16(a.Port))
		}
		out, to, ok := s.handle(buf[:n], at)
		if !ok {
			continue
		}
		if err := send(p, out, to, card); err != nil {
			s.counters.unsent.Add(1)
			s.noteRefusal(Refusal{MAC: clientOf(buf[:n]), Reason: "the answer could not be sent: " + err.Error()})
			s.Log.Warn("dhcp answer not sent", "address", to.addr, "interface", card.Name, "error", err)
			continue
		}
		s.counters.answered.Add(1)
	}
}

// Interface is the network interface on which a message arrived.
type Interface struct {
	Name      string
	Index     int
	Addresses []netip.Prefix // its IPv4 addresses with their networks
}

// has reports whether ip is an address of the interface.
func (i *Interface) has(ip net.IP) bool {
	a := addr(ip)
	return slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr() == a })
}

// carries reports whether the interface has one of the addresses.
func (i *Interface) carries(addrs []netip.Addr) bool {
	return slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return slices.Contains(addrs, p.Addr()) })
}

// interfacesAge is for how long the addresses of an interface are taken to be the same. To read them takes two dumps
// by netlink, longer than all else about a message.
const interfacesAge = time.Second

// interfaces caches what is known of the interfaces on which messages arrive. An interface that is made anew has
// another index. The zero value is empty.
type interfaces struct {
	since   time.Time
	byIndex map[int]Interface
}

// get returns the interface of that index as it was at most interfacesAge before now.
func (c *interfaces) get(index int, now time.Time) Interface {
	if now.Sub(c.since) >= interfacesAge {
		c.since, c.byIndex = now, make(map[int]Interface)
	}
	i, ok := c.byIndex[index]
	if !ok {
		i = interfaceOf(index)
		c.byIndex[index] = i
	}
	return i
}

// interfaceOf returns the interface of that index as it is now.
func interfaceOf(index int) Interface {
	l := Interface{Index: index}
	ifi, err := net.InterfaceByIndex(index)
	if err != nil {
		return l
	}
	l.Name = ifi.Name
	addrs, _ := ifi.Addrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil {
			ones, _ := n.Mask.Size()
			ip, _ := netip.AddrFromSlice(n.IP.To4())
			l.Addresses = append(l.Addresses, netip.PrefixFrom(ip, ones))
		}
	}
	return l
}

// handle returns the answer to a message and its destination. If there is no answer, ok is false.
func (s *Server) handle(packet []byte, from arrival) (out []byte, to destination, ok bool) {
	r, err := parse(packet, from)
	if err != nil {
		s.counters.malformed.Add(1)
		s.Log.Debug("dhcp message ignored", "interface", from.Name, "error", err)
		reason := strings.TrimPrefix(err.Error(), "parse dhcp message: ")
		s.noteRefusal(Refusal{MAC: clientOf(packet), Reason: reason})
		return nil, to, false
	}
	if s.ignored(r, from) {
		return nil, to, false
	}
	lease, err := s.Answer(r)
	if !lease.Proxy {
		s.noteTaken(r)
	}
	if err != nil {
		s.noteUnknown(r, err)
		return nil, to, false
	}
	if s.Machines != nil {
		s.Machines.forget(r.MAC)
	}
	t, ok := answerTo(r, &lease)
	s.log(r, &lease, t)
	if !ok {
		s.noteUnanswered(r, &lease)
		return nil, to, false
	}
	return encode(r, &lease, t), destinationOf(r, &lease, t), true
}

// ignored reports whether a message is ignored whoever sent it, and notes it.
func (s *Server) ignored(r *Request, from arrival) bool {
	switch {
	case r.Unprivileged && !r.Relay.IsValid():
		s.counters.port.Add(1)
		s.noteRefusal(Refusal{
			MAC: r.MAC, Expected: true,
			Reason: fmt.Sprintf("it comes from port %d, which any user may use", from.from.Port()),
		})
	case s.Addresses != nil && !r.Relay.IsValid() && !from.unicast && !from.carries(s.Addresses):
		s.counters.iface.Add(1)
		s.Log.Debug("dhcp message ignored", "interface", from.Name, "error", "none of the server's addresses is there")
		s.noteRefusal(Refusal{
			MAC: r.MAC, Reason: "it arrives on " + from.Name + ", which has none of this server's addresses",
		})
	default:
		return false
	}
	return true
}

// noteUnknown notes a message for which there is no lease.
func (s *Server) noteUnknown(r *Request, err error) {
	if _, other := errors.AsType[*NotMineError](err); other {
		s.counters.other.Add(1)
		switch {
		case r.kind == typeDiscover || r.BOOTP:
			s.noteRefusal(Refusal{MAC: r.MAC, Reason: err.Error(), Expected: true})
		case r.kind == typeRequest && r.Server.IsValid():
			s.noteRefusal(takesOther(r))
		}
		return
	}
	s.counters.unknown.Add(1)
	if !s.noteRefusal(Refusal{MAC: r.MAC, Reason: err.Error()}) && s.Machines != nil {
		s.Machines.note(r, s.now(), err.Error())
	}
}

// noteUnanswered notes a message of a client that has a lease and gets no answer.
func (s *Server) noteUnanswered(r *Request, l *Lease) {
	switch {
	case r.kind != typeRequest || l.Proxy:
		s.counters.silent.Add(1)
	case r.takesOther(l):
		s.counters.other.Add(1)
		s.noteRefusal(takesOther(r))
	default:
		s.counters.silent.Add(1)
		s.noteRefusal(Refusal{MAC: r.MAC, Reason: "it asks for no address"})
	}
}

// takesOther is the refusal of a client that takes the offer of another DHCP server.
func takesOther(r *Request) Refusal {
	return Refusal{
		MAC: r.MAC, Reason: "it takes the offer of the DHCP server " + r.Server.String(), Server: r.Server,
	}
}

// log logs an address that was given, and an address that two machines use or claim.
func (s *Server) log(r *Request, l *Lease, t messageType) {
	client := func() *slog.Logger {
		return s.Log.With("mac", r.MAC.String(), "node", l.HostName, "address", l.Address,
			"interface", r.Interface.Name)
	}
	switch {
	case r.Declined:
		client().Warn("dhcp address declined: another machine uses it")
	case r.at.bootPort || l.Proxy:
	case t == typeACK && r.kind == typeRequest || r.BOOTP:
		client().Info("dhcp address given", "file", l.BootFile)
	case t == typeNAK:
		client().Warn("dhcp request refused", "reason", "it asks for "+r.requested().String())
	}
}

func (s *Server) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// send sends an answer from the address that the answer has as the server's, on the interface on which the message
// arrived or by the routing table. If this machine does not have that address (because of address translation), the
// kernel chooses the source address.
func send(p *ipv4.PacketConn, out []byte, to destination, card Interface) error {
	cm := &ipv4.ControlMessage{Src: to.from.AsSlice()}
	if !to.routed {
		cm.IfIndex = card.Index
	}
	dst := net.UDPAddrFromAddrPort(to.addr)
	if _, err := p.WriteTo(out, cm, dst); err == nil {
		return nil
	}
	cm.Src = nil
	_, err := p.WriteTo(out, cm, dst)
	return err
}
