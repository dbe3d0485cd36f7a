package dhcp

import (
	"net"
	"net/netip"
	"sync/atomic"
)

// Refusal is a message that is not answered although it asks for an answer.
type Refusal struct {
	MAC      net.HardwareAddr
	Reason   string
	Server   netip.Addr // the other DHCP server whose offer the client took, if that is the reason
	Expected bool       // the reason is no fault
}

// Stats are counters since the start. Every message that was received is either answered or counted for the reason why
// it is not. The messages for which the kernel had no room are not among them.
type Stats struct {
	Received, Answered uint64

	Port      uint64 // from a source port that any user may use
	Malformed uint64 // no DHCP or BOOTP message of a client on Ethernet or InfiniBand
	Interface uint64 // on an interface that has none of the server's addresses
	Unknown   uint64 // Answer returned an error
	Other     uint64 // for another server
	Silent    uint64 // DHCPDECLINE and DHCPRELEASE, which have no answer, and requests for no address
	Unsent    uint64 // the kernel did not send the answer
}

// counters are the Stats of a Server.
type counters struct {
	received, answered, port, malformed, iface, unknown, other, silent, unsent atomic.Uint64
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	c := &s.counters
	return Stats{
		Received: c.received.Load(), Answered: c.answered.Load(), Port: c.port.Load(), Malformed: c.malformed.Load(),
		Interface: c.iface.Load(), Unknown: c.unknown.Load(), Other: c.other.Load(), Silent: c.silent.Load(),
		Unsent: c.unsent.Load(),
	}
}

// noteRefusal tells Refused of a message that is not answered. It reports whether the client is known there.
func (s *Server) noteRefusal(r Refusal) (known bool) {
	return s.Refused != nil && r.MAC != nil && s.Refused(r)
}

// Fields of the fixed part of a message (RFC 2131 section 2).
const (
	opAt, hlenAt, macAt = 0, 2, 28
	macEnd              = macAt + 6
)

// clientOf returns the MAC of the client that sent a message, nil if there is none. The message may be malformed.
func clientOf(packet []byte) net.HardwareAddr {
	if len(packet) < macEnd || packet[opAt] != 1 || packet[hlenAt] != 6 {
		return nil
	}
	return net.HardwareAddr(packet[macAt:macEnd:macEnd])
}
