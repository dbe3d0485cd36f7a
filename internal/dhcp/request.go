package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// messageType is a DHCP message type (RFC 2132 section 9.6).
type messageType uint8

const (
	typeNone     messageType = 0 // of BOOTP
	typeDiscover messageType = 1
	typeOffer    messageType = 2
	typeRequest  messageType = 3
	typeDecline  messageType = 4
	typeACK      messageType = 5
	typeNAK      messageType = 6
	typeRelease  messageType = 7
	typeInform   messageType = 8
)

// Arch is a client system architecture (option 93, RFC 4578 and the IANA registry "Processor Architecture Types").
type Arch uint16

// Request is a message of a client. Addresses that it does not hold are zero.
type Request struct {
	MAC       net.HardwareAddr // six bytes; of InfiniBand the eight bytes of the port's GUID
	Client    netip.Addr       // ciaddr: the address that the client has
	Wanted    netip.Addr       // option 50: the address that it asks for
	Server    netip.Addr       // option 54: the server that it asks; zero: all
	Relay     netip.Addr       // giaddr: the address of the relay to which the answer goes
	Network   netip.Addr       // an address on the network of the client; zero: it is on the network of Interface
	Declined  bool             // DHCPDECLINE: it refuses its address, because another machine uses it
	Interface Interface        // on which the message arrived

	BOOTP        bool // it is a request of BOOTP, which knows neither message types nor lease times
	Unprivileged bool // any user of the relay's machine can send from the source port of the message

	Archs       []Arch
	VendorClass string // option 60, printable part
	UserClass   string // option 77, printable part
	IPXE        bool   // the client is iPXE: it sent option 175, which others do not, or that user class
	WantsConfig bool   // it requests option 209, the name of its pxelinux configuration (RFC 5071)
	HostName    string // option 12, printable part

	kind   messageType
	relay  relayInfo
	at     arrival
	packet *dhcpv4.DHCPv4
}

// Options and suboptions that say where a client is and where its answer goes.
const (
	optRelayInfo       = 82  // RFC 3046
	optSubnetSelection = 118 // RFC 3011
	optConfigFile      = 209 // RFC 5071
	optEnd             = 255

	subCircuitID      = 1  // RFC 3046
	subRemoteID       = 2  // RFC 3046
	subLinkSelection  = 5  // RFC 3527
	subServerOverride = 11 // RFC 5107
	subRelayPort      = 19 // RFC 8357
)

// relayInfo is what a relay says in option 82, as far as it matters here.
type relayInfo struct {
	link    netip.Addr // an address on the network of the client; zero: giaddr is one
	server  netip.Addr // the server identifier that the client gets: messages to the server pass the relay; zero: none
	ownPort bool       // the relay receives answers on its source port
	port    string     // the circuit identifier and the remote identifier: the port of a switch, and the switch
}

// parseRelayInfo decodes option 82. What is malformed or not known is left out: it is echoed all the same.
func parseRelayInfo(b []byte) (info relayInfo) {
	var circuit, remote string
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		code, value := b[0], b[2:2+int(b[1])]
		b = b[2+len(value):]
		switch code {
		case subCircuitID:
			circuit = identifier(value)
		case subRemoteID:
			remote = identifier(value)
		case subLinkSelection:
			info.link = addr(value)
		case subServerOverride:
			info.server = addr(value)
		case subRelayPort:
			info.ownPort = true
		}
	}
	info.port = strings.Join(slices.DeleteFunc([]string{circuit, remote}, isEmpty), " of ")
	return info
}

func isEmpty(s string) bool { return s == "" }

// identifier returns an identifier of a relay or a switch: most are texts, the others are shown as hexadecimal digits.
func identifier(b []byte) string {
	if text := printable(b); text == string(b) {
		return text
	}
	return fmt.Sprintf("%x", b)
}

// uuid returns the identifier of the client's machine, "" if it sends none. It is option 97 (RFC 4578 section 2.3): a
// type, which is 0, and 16 bytes. Firmware such as EDK II sends them in the order of the text, not in that of SMBIOS.
func (r *Request) uuid() string {
	b := r.packet.Options[uint8(dhcpv4.OptionClientMachineIdentifier)]
	if len(b) != 17 || b[0] != 0 {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[1:5], b[5:7], b[7:9], b[9:11], b[11:])
}

// The options of DHCP begin behind the fixed part of a message, with a cookie (RFC 2131 section 3).
const (
	cookie   = "\x63\x82\x53\x63"
	cookieAt = 236
)

// arrival is how a message arrived.
type arrival struct {
	Interface
	from     netip.AddrPort // its source
	unicast  bool           // it was sent to an address of this server
	bootPort bool           // on bootPort, not on serverPort
}

// parse decodes a message of a client. Messages that are neither DHCP nor BOOTP are errors, and so are those of other
// hardware than Ethernet and InfiniBand.
func parse(b []byte, from arrival) (*Request, error) {
	p, err := dhcpv4.FromBytes(withOptions(b))
	if err != nil {
		return nil, fmt.Errorf("parse dhcp message: %w", err)
	}
	if p.OpCode != dhcpv4.OpcodeBootRequest {
		return nil, fmt.Errorf("parse dhcp message: operation %d", p.OpCode)
	}
	mac, err := hardwareAddress(p)
	if err != nil {
		return nil, err
	}
	r := newRequest(p, from)
	r.MAC = mac
	_, typed := p.Options[uint8(dhcpv4.OptionDHCPMessageType)]
	r.BOOTP = !typed
	switch r.kind {
	case typeDiscover, typeRequest, typeDecline, typeRelease, typeInform:
		return r, nil
	}
	if r.BOOTP {
		return r, nil
	}
	return nil, fmt.Errorf("parse dhcp message: clients do not send type %d", r.kind)
}

// hardwareAddress returns the hardware address of a client. The one of InfiniBand has 20 bytes, which do not fit into
// the message. Its last eight are the GUID of the port, and they are also the last of the client identifier, which such
// a client must send (RFC 4390 section 2.1, RFC 4361 section 6.1).
func hardwareAddress(p *dhcpv4.DHCPv4) (net.HardwareAddr, error) {
	const identifier, guid = uint8(dhcpv4.OptionClientIdentifier), 8
	id := p.Options[identifier]
	switch {
	case p.HWType == iana.HWTypeEthernet && len(p.ClientHWAddr) == 6:
		return slices.Clone(p.ClientHWAddr), nil
	case p.HWType == iana.HWTypeInfiniband && len(id) > guid && id[0] == 255:
		return net.HardwareAddr(id[len(id)-guid:]), nil
	case p.HWType == iana.HWTypeInfiniband:
		return nil, errors.New("parse dhcp message: a client on InfiniBand sends no identifier by RFC 4390")
	}
	return nil, fmt.Errorf("parse dhcp message: hardware type %d with an address of %d bytes is neither Ethernet nor "+
		"InfiniBand", p.HWType, len(p.ClientHWAddr))
}

// withOptions returns a message with options: BOOTP as it was first defined (RFC 951) has none, and some firmware
// leaves out their end.
func withOptions(b []byte) []byte {
	switch {
	case len(b) < cookieAt: // malformed
		return b
	case len(b) < cookieAt+len(cookie) || string(b[cookieAt:cookieAt+len(cookie)]) != cookie:
		return append(slices.Concat(b[:cookieAt], []byte(cookie)), optEnd)
	}
	return append(slices.Clip(b), optEnd)
}

// newRequest returns the request in a decoded message.
func newRequest(p *dhcpv4.DHCPv4, from arrival) *Request {
	r := &Request{
		kind:         messageType(p.MessageType()),
		Client:       addr(p.ClientIPAddr),
		Wanted:       addr(p.RequestedIPAddress()),
		Server:       addr(p.ServerIdentifier()),
		Relay:        addr(p.GatewayIPAddr),
		Interface:    from.Interface,
		Unprivileged: from.from.Port() >= firstOrdinaryPort && !from.bootPort,
		Archs:        parseArchs(p.Options[uint8(dhcpv4.OptionClientSystemArchitectureType)]),
		VendorClass:  printable(p.Options[uint8(dhcpv4.OptionClassIdentifier)]),
		UserClass:    printable(userClass(p.Options[uint8(dhcpv4.OptionUserClassInformation)])),
		HostName:     printable(p.Options[uint8(dhcpv4.OptionHostName)]),
		packet:       p,
		at:           from,
	}
	r.Declined = r.kind == typeDecline
	_, r.IPXE = p.Options[175]
	r.IPXE = r.IPXE || r.UserClass == "iPXE"
	r.WantsConfig = r.wantsOption(optConfigFile)
	r.relay = parseRelayInfo(p.Options[optRelayInfo])
	if !r.Relay.IsValid() { // a switch that snoops adds the option without being a relay
		r.relay = relayInfo{port: r.relay.port}
	}
	r.Network = r.network(from.unicast)
	return r
}

// network returns an address on the client's network, zero if it is on that of the interface: what the relay says of
// the link (RFC 3527), else what the client selects (RFC 3011), else the relay's address, else the address from which
// the client sends to this server alone.
func (r *Request) network(unicast bool) netip.Addr {
	selected := addr(r.packet.Options[optSubnetSelection])
	switch {
	case r.relay.link.IsValid():
		return r.relay.link
	case selected.IsValid():
		return selected
	case r.Relay.IsValid():
		return r.Relay
	case unicast && r.Client.IsValid():
		return r.Client
	case unicast:
		return r.at.from.Addr()
	}
	return netip.Addr{}
}

// parseArchs decodes option 93. Some firmware sends one byte for each value, or an odd number of them.
func parseArchs(b []byte) []Arch {
	if len(b) == 1 {
		return []Arch{Arch(b[0])}
	}
	var list []Arch
	for ; len(b) >= 2; b = b[2:] {
		list = append(list, Arch(binary.BigEndian.Uint16(b)))
	}
	return list
}

// wantsOption reports whether the client asked for an option with option 55.
func (r *Request) wantsOption(code uint8) bool {
	return slices.Contains(r.packet.Options[uint8(dhcpv4.OptionParameterRequestList)], code)
}

// requested returns the address that a DHCPREQUEST asks for: the wanted one, or the present one when the client
// renews it.
func (r *Request) requested() netip.Addr {
	if r.Wanted.IsValid() {
		return r.Wanted
	}
	return r.Client
}

// Taken returns the address that the client takes from another server than the one that it names here; it is zero if it
// takes none. On port 4011 it is the address that the client has.
func (r *Request) Taken() netip.Addr {
	switch {
	case r.at.bootPort:
		return r.Client
	case r.kind == typeRequest:
		return r.requested()
	}
	return netip.Addr{}
}

// userClass removes the length byte of RFC 3004, which iPXE and others leave out.
func userClass(b []byte) []byte {
	if len(b) > 1 && int(b[0]) == len(b)-1 {
		return b[1:]
	}
	return b
}

// printable returns at most 64 characters of b, with a dot for each that is not printable ASCII.
func printable(b []byte) string {
	b = b[:min(len(b), 64)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '.'
		}
		return r
	}, strings.TrimRight(string(b), "\x00"))
}

// addr converts an address. 0.0.0.0, and any that is not four bytes long, is the zero Addr.
func addr(ip []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(net.IP(ip).To4())
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
