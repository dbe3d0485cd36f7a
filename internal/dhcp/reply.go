package dhcp

import (
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Lease is what a client is given. Fields that are zero are not sent.
type Lease struct {
	Address    netip.Addr
	Subnet     netip.Prefix
	Server     netip.Addr // the address of this server that the client can reach
	Router     netip.Addr
	DNS        []netip.Addr
	HostName   string
	Domain     string
	MTU        int
	NextServer netip.Addr // siaddr: the server of the boot file, if BootFile is not a URL
	BootFile   string
	Options    map[uint8][]byte // further options, which take precedence over the fields above

	// Proxy: another server gives the address, and this one only adds what the client boots (PXE 2.1 section 2.2).
	Proxy bool
}

const (
	serverPort = 67
	clientPort = 68
	bootPort   = 4011 // on which clients ask the proxy alone, once they have an address (PXE 2.1 section 2.2.3)
	// firstOrdinaryPort is the first port that any user of a machine may use.
	firstOrdinaryPort = 1024
	// infinite is the lease time of a lease that does not end (RFC 2131 section 3.3).
	infinite = 0xffffffff * time.Second
)

// answerTo returns the type of the answer to r from a client that is given l. It returns false if there is no answer.
func answerTo(r *Request, l *Lease) (messageType, bool) {
	switch {
	case r.at.bootPort:
		return typeACK, l.BootFile != "" && (r.kind == typeRequest || r.kind == typeInform)
	case l.Proxy:
		return typeOffer, l.BootFile != "" && r.kind == typeDiscover
	case r.BOOTP:
		return typeNone, true
	}
	switch r.kind {
	case typeDiscover:
		return typeOffer, true
	case typeInform:
		return typeACK, true
	case typeRequest:
		if r.takesOther(l) {
			return 0, false // the client took the offer of another server
		}
		switch r.requested() {
		case l.Address:
			return typeACK, true
		case netip.Addr{}:
			return 0, false // not allowed by the protocol
		}
		return typeNAK, true
	}
	return 0, false // DHCPDECLINE and DHCPRELEASE have no answer
}

// takesOther reports whether the client takes the offer of another server.
func (r *Request) takesOther(l *Lease) bool {
	return r.Server.IsValid() && r.Server != l.Server && r.Server != r.relay.server
}

// serverID returns the identifier of this server for the client.
func (r *Request) serverID(l *Lease) netip.Addr {
	if r.relay.server.IsValid() {
		return r.relay.server
	}
	return l.Server
}

// destination says where an answer is sent.
type destination struct {
	addr   netip.AddrPort
	from   netip.Addr
	routed bool // sent by the routing table; false: on the interface on which the message arrived
}

// destinationOf returns where RFC 2131 section 4.1 has an answer sent. The package comment describes the exception.
func destinationOf(r *Request, l *Lease, t messageType) destination {
	d := destination{from: l.Server}
	switch {
	case r.at.bootPort && r.at.from.Addr().IsValid():
		d.addr, d.routed = r.at.from, true
	case r.Relay.IsValid():
		d.addr, d.routed = netip.AddrPortFrom(r.Relay, serverPort), true
		if r.relay.ownPort {
			d.addr = netip.AddrPortFrom(r.Relay, r.at.from.Port())
		}
	case r.Client == l.Address && t != typeNAK: // any other ciaddr could be the address of another machine
		d.addr, d.routed = netip.AddrPortFrom(r.Client, clientPort), true
	default:
		d.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), clientPort)
	}
	return d
}

// encode returns the message of type t that answers r.
func encode(r *Request, l *Lease, t messageType) []byte {
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
	if r.BOOTP {
		return encodeBOOTP(p, r, l)
	}
	p.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageType(t)))
	p.UpdateOption(dhcpv4.OptServerIdentifier(r.serverID(l).AsSlice()))
	// RFC 6842: the client identifier; RFC 3046: the relay's option; RFC 4578: the machine identifier; RFC 3011.
	for _, code := range []uint8{61, optRelayInfo, 97, optSubnetSelection} {
		if v, ok := q.Options[code]; ok {
			p.Options[code] = v
		}
	}
	if l.Proxy || r.at.bootPort {
		l.boot(p, r)
		l.options(p)
		addBootItem(p, q)
		return p.ToBytes()
	}
	if t == typeNAK {
		p.SetBroadcast() // RFC 2131 section 4.3.2: a relay must broadcast it
		p.UpdateOption(dhcpv4.OptMessage("that address is not yours: it is " + l.Address.String()))
		return p.ToBytes()
	}
	if t == typeACK {
		p.ClientIPAddr = q.ClientIPAddr
	}
	if r.kind != typeInform {
		p.YourIPAddr = l.Address.AsSlice()
		p.UpdateOption(dhcpv4.OptIPAddressLeaseTime(infinite))
	}
	l.fill(p, r)
	return p.ToBytes()
}

// fill adds all that a client is given but its address.
func (l *Lease) fill(p *dhcpv4.DHCPv4, r *Request) {
	l.network(p)
	l.boot(p, r)
	l.options(p)
}

// options adds the further options.
func (l *Lease) options(p *dhcpv4.DHCPv4) {
	for code, v := range l.Options {
		p.Options[code] = v
	}
}

// addBootItem repeats the item of the boot menu that a client names: it must be in the answer (PXE 2.1 section 2.2.4).
func addBootItem(p, q *dhcpv4.DHCPv4) {
	const vendor, item, length = uint8(dhcpv4.OptionVendorSpecificInformation), 71, 4
	asked, given := q.Options[vendor], p.Options[vendor]
	for len(asked) >= 2 && len(asked) >= 2+int(asked[1]) {
		if asked[0] == item && asked[1] == length && len(given) > 0 {
			end := len(given) - 1 // its end mark
			p.Options[vendor] = slices.Concat(given[:end], asked[:2+length], given[end:])
			return
		}
		asked = asked[2+int(asked[1]):]
	}
}

// bootpRoom is the space for options in an answer of BOOTP: a client need not take more than 300 bytes, of which 64 are
// for the cookie, the options and their end (RFC 951 section 3, RFC 1542 section 2.1).
const bootpRoom = 64 - len(cookie) - 1

// encodeBOOTP returns the answer p to a request of BOOTP, with the options for which there is room. What the relay sent
// does not count, because the relay takes it out.
func encodeBOOTP(p *dhcpv4.DHCPv4, r *Request, l *Lease) []byte {
	p.ClientIPAddr = r.packet.ClientIPAddr
	p.YourIPAddr = l.Address.AsSlice()
	l.fill(p, r)
	all, room := p.Options, bootpRoom
	p.Options = dhcpv4.Options{}
	first := []uint8{uint8(dhcpv4.OptionSubnetMask), uint8(dhcpv4.OptionRouter)}
	further := append(slices.Sorted(maps.Keys(l.Options)), slices.Sorted(maps.Keys(all))...)
	for _, code := range append(first, further...) {
		v, given := all[code]
		if _, done := p.Options[code]; !given || done || 2+len(v) > room {
			continue
		}
		p.Options[code] = v
		room -= 2 + len(v)
	}
	if v, ok := r.packet.Options[optRelayInfo]; ok {
		p.Options[optRelayInfo] = v
	}
	return p.ToBytes()
}

// network adds the options that a client needs to use its address.
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

// boot adds the boot file. It is in the header, which all clients read. It is an option if it does not fit there
// (127 bytes) or the client asks for the option.
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
	if len(l.BootFile) > 127 || r.wantsOption(uint8(dhcpv4.OptionBootfileName)) {
		p.UpdateOption(dhcpv4.OptBootFileName(l.BootFile))
	}
	if l.NextServer.IsValid() && r.wantsOption(uint8(dhcpv4.OptionTFTPServerName)) {
		p.UpdateOption(dhcpv4.OptTFTPServerName(l.NextServer.String()))
	}
}
