package dhcp

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Lease is all that a client is given. What is zero is not sent.
type Lease struct {
	Address    netip.Addr
	Subnet     netip.Prefix
	Server     netip.Addr // who gives it: this server's address, as the client can reach it
	Router     netip.Addr
	DNS        []netip.Addr
	HostName   string
	Domain     string
	MTU        int
	NextServer netip.Addr // siaddr: where the boot file is, if it is not a URL
	BootFile   string
	Options    map[uint8][]byte // any others; they win over those above
}

const (
	serverPort = 67
	clientPort = 68
	// infinite is the lease time that never ends (RFC 2131 section 3.3).
	infinite = 0xffffffff * time.Second
)

// answerTo returns which message answers r, given that l is what the client is to have.
func answerTo(r *Request, l *Lease) (Type, bool) {
	switch r.Type {
	case Discover:
		return Offer, true
	case Inform:
		return ACK, true
	case Ask:
		if r.Server.IsValid() && r.Server != l.Server {
			return 0, false // it took another server's offer
		}
		switch r.asked() {
		case l.Address:
			return ACK, true
		case netip.Addr{}:
			return 0, false // against the protocol
		}
		return NAK, true
	}
	return 0, false // DHCPDECLINE, DHCPRELEASE: there is nothing to change
}

// destination is where an answer goes.
type destination struct {
	addr   netip.AddrPort
	from   netip.Addr
	routed bool // by the routing table, rather than out of the card on which the question came
}

// destinationOf follows RFC 2131 section 4.1; see the package comment for broadcasts.
func destinationOf(r *Request, l *Lease, t Type) destination {
	d := destination{from: l.Server}
	switch {
	case r.Relay.IsValid():
		d.addr, d.routed = netip.AddrPortFrom(r.Relay, serverPort), true
	case r.Client == l.Address && t != NAK: // no other ciaddr is believed: it could be anybody's
		d.addr, d.routed = netip.AddrPortFrom(r.Client, clientPort), true
	default:
		d.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), clientPort)
	}
	return d
}

// encode makes the message t that answers r.
func encode(r *Request, l *Lease, t Type) []byte {
	q := r.packet
	p := &dhcpv4.DHCPv4{
		OpCode:        dhcpv4.OpcodeBootReply,
		HWType:        q.HWType,
		TransactionID: q.TransactionID,
		Flags:         q.Flags,
		GatewayIPAddr: q.GatewayIPAddr,
		ClientHWAddr:  q.ClientHWAddr,
		Options:       dhcpv4.Options{},
	}
	p.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageType(t)))
	p.UpdateOption(dhcpv4.OptServerIdentifier(l.Server.AsSlice()))
	// RFC 6842: the client identifier; RFC 3046: the relay's option; RFC 4578: the machine identifier.
	for _, code := range []uint8{61, 82, 97} {
		if v, ok := q.Options[code]; ok {
			p.Options[code] = v
		}
	}
	if t == NAK {
		p.SetBroadcast() // RFC 2131 section 4.3.2: so that a relay broadcasts it
		p.UpdateOption(dhcpv4.OptMessage("that address is not yours: it is " + l.Address.String()))
		return p.ToBytes()
	}
	if t == ACK {
		p.ClientIPAddr = q.ClientIPAddr
	}
	if r.Type != Inform {
		p.YourIPAddr = l.Address.AsSlice()
		p.UpdateOption(dhcpv4.OptIPAddressLeaseTime(infinite))
	}
	l.network(p)
	l.boot(p, r)
	for code, v := range l.Options {
		p.Options[code] = v
	}
	return p.ToBytes()
}

// network adds what a client needs to use its address.
func (l *Lease) network(p *dhcpv4.DHCPv4) {
	if l.Subnet.IsValid() {
		p.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(l.Subnet.Bits(), 32)))
	}
	if l.Router.IsValid() {
		p.UpdateOption(dhcpv4.OptRouter(l.Router.AsSlice()))
	}
	if len(l.DNS) > 0 {
		var ips []net.IP
		for _, a := range l.DNS {
			ips = append(ips, a.AsSlice())
		}
		p.UpdateOption(dhcpv4.OptDNS(ips...))
	}
	if l.HostName != "" {
		p.UpdateOption(dhcpv4.OptHostName(l.HostName))
	}
	if l.Domain != "" {
		p.UpdateOption(dhcpv4.OptDomainName(l.Domain))
	}
	if l.MTU != 0 {
		p.Options[uint8(dhcpv4.OptionInterfaceMTU)] = binary.BigEndian.AppendUint16(nil, uint16(l.MTU))
	}
}

// boot adds the boot file: in the header field, which everybody reads; as an option too, when it does not fit there
// (127 bytes) or the client asks for it.
func (l *Lease) boot(p *dhcpv4.DHCPv4, r *Request) {
	if l.NextServer.IsValid() {
		p.ServerIPAddr = l.NextServer.AsSlice()
	}
	if l.BootFile == "" {
		return
	}
	if len(l.BootFile) <= 127 {
		p.BootFileName = l.BootFile
	}
	if len(l.BootFile) > 127 || r.Asks(uint8(dhcpv4.OptionBootfileName)) {
		p.UpdateOption(dhcpv4.OptBootFileName(l.BootFile))
	}
	if l.NextServer.IsValid() && r.Asks(uint8(dhcpv4.OptionTFTPServerName)) {
		p.UpdateOption(dhcpv4.OptTFTPServerName(l.NextServer.String()))
	}
}
