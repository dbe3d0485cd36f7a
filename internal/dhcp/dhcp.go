// Package dhcp answers DHCPv4 (RFC 2131, 2132, 3046, 4578) for machines whose addresses are fixed.
//
// # Concepts
//
// What a client is given is a Lease, and who decides is the function Answer; this package decodes, does what the
// protocol demands (which message answers which, where it goes), encodes. There are no pools, no lease files, and nothing expires: the
// lease time is always infinite, because addresses belong to a description and not to this server.
//
// # Silence
//
// A machine that Answer does not know gets no answer, so that another DHCP server may live on the same network; it is remembered in
// Machines. A DHCPNAK is sent only when it is sure: the client is one that this server answers, and asks for an address that is not its own.
//
// # Where answers go
//
// RFC 2131 section 4.1: to the relay if there is one, else to the address that the client has, else to the whole link. Section 4.1
// would have a client that has no address and does not set the broadcast bit be sent a unicast frame, to an address that it does
// not answer ARP for yet. That takes a packet socket or an ARP entry made by hand, and the RFC allows the broadcast in its place. Every
// firmware and loader takes it; so a plain UDP socket is enough.
//
// # Concurrency
//
// One Server may Serve any number of sockets at once, one for each interface or one for all. Answer is called from each
// of these goroutines. Each socket handles one message after the other.
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
	"time"

	"golang.org/x/net/ipv4"
)

// ErrNotMine is what an Answer returns for a known client that another server is to answer.
var ErrNotMine = errors.New("another server answers this client")

// Server answers clients. Answer and Log must be set.
type Server struct {
	// Answer decides. It returns what the client is given; or an error that is ErrNotMine, then the client is not answered;
	// or another error, then it is not answered either but remembered in Machines, with the error's text.
	// It must not block.
	Answer func(*Request) (Lease, error)
	// Machines remembers the clients that are not known; nil: nobody wants to know.
	Machines *Machines
	Log      *slog.Logger
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Serve answers what arrives on conn, a UDP socket on port 67 of the unspecified address, until ctx ends. It does
// not close conn. The error is nil when ctx ended.
func (s *Server) Serve(ctx context.Context, conn net.PacketConn) error {
	p := ipv4.NewPacketConn(conn)
	if err := p.SetControlMessage(ipv4.FlagInterface|ipv4.FlagDst, true); err != nil {
		return fmt.Errorf("serve dhcp: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
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
			// It came before SetControlMessage: nobody can tell from where. The client will ask again.
			continue
		}
		if a, ok := from.(*net.UDPAddr); !ok || a.Port >= 1024 {
			continue // clients ask from port 68, relays from 67; other ports any user of a machine has
		}
		link := linkOf(cm.IfIndex)
		out, to, ok := s.handle(buf[:n], link)
		if !ok {
			continue
		}
		if err := send(p, out, to, link); err != nil {
			s.Log.Warn("dhcp answer not sent", "to", to.addr, "link", link.Name, "err", err)
		}
	}
}

// Link is the network card on which a message arrived.
type Link struct {
	Name  string
	Index int
	// Addresses are the card's IPv4 addresses with their networks.
	Addresses []netip.Prefix
}

// linkOf finds out about the card. It is asked for anew each time: addresses come and go, and boots are rare.
func linkOf(index int) Link {
	l := Link{Index: index}
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

// handle turns one message into its answer and where that goes; ok is false when there is none.
func (s *Server) handle(packet []byte, link Link) (out []byte, to destination, ok bool) {
	r, err := Parse(packet)
	if err != nil {
		s.Log.Debug("dhcp message ignored", "link", link.Name, "err", err)
		return nil, to, false
	}
	r.Link = link
	lease, err := s.Answer(r)
	if err != nil {
		if s.Machines != nil && !errors.Is(err, ErrNotMine) {
			s.Machines.Note(r, s.now(), err.Error())
		}
		return nil, to, false
	}
	if s.Machines != nil {
		s.Machines.Forget(r.MAC)
	}
	t, ok := answerTo(r, &lease)
	s.log(r, &lease, t)
	if !ok {
		return nil, to, false
	}
	return encode(r, &lease, t), destinationOf(r, &lease, t), true
}

// log writes a line for what an operator should know: an address given, an address in dispute.
func (s *Server) log(r *Request, l *Lease, t Type) {
	log := s.Log.With("mac", r.MAC.String(), "node", l.HostName, "address", l.Address, "link", r.Link.Name)
	switch {
	case r.Type == Decline:
		log.Warn("dhcp address declined: another machine uses it")
	case t == ACK && r.Type == Ask:
		log.Info("dhcp address given", "boot_file", l.BootFile)
	case t == NAK:
		log.Warn("dhcp client asked for an address that is not its own", "asked", r.asked())
	}
}

func (s *Server) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// send writes the answer out of the card on which the question came, from the address that the answer names as the server's. Where
// that is not an address of this machine (behind address translation), the kernel chooses.
func send(p *ipv4.PacketConn, out []byte, to destination, link Link) error {
	cm := &ipv4.ControlMessage{Src: to.from.AsSlice()}
	if !to.routed {
		cm.IfIndex = link.Index
	}
	dst := net.UDPAddrFromAddrPort(to.addr)
	if _, err := p.WriteTo(out, cm, dst); err == nil {
		return nil
	}
	cm.Src = nil
	_, err := p.WriteTo(out, cm, dst)
	return err
}
