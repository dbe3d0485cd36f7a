package dhcp

import (
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
	MAC       net.HardwareAddr // six bytes, Ethernet
	Client    netip.Addr       // ciaddr: the address that the client has
	Wanted    netip.Addr       // option 50: the address that it asks for
	Server    netip.Addr       // option 54: the server that it asks; zero: all
	Relay     netip.Addr       // giaddr: the address of the relay on the network of the client
	Declined  bool             // DHCPDECLINE: it refuses its address, because another machine uses it
	Interface Interface        // on which the message arrived

	Archs       []Arch
	VendorClass string // option 60, printable part
	UserClass   string // option 77, printable part
	IPXE        bool   // the client is iPXE: it sent option 175, which others do not, or that user class
	HostName    string // option 12, printable part

	kind   messageType
	packet *dhcpv4.DHCPv4
}

// cookie is the beginning of the options of DHCP (RFC 2131 section 3).
const (
	cookie   = "\x63\x82\x53\x63"
	cookieAt = 236
)

// errBOOTP is the error of parse for messages of BOOTP, which have no options or no message type.
var errBOOTP = errors.New("parse dhcp message: it asks by BOOTP, not by DHCP")

// parse decodes a message of a client. Messages that are not DHCP over Ethernet are errors.
func parse(b []byte) (*Request, error) {
	if len(b) >= macEnd && (len(b) < cookieAt+len(cookie) || string(b[cookieAt:cookieAt+len(cookie)]) != cookie) {
		return nil, errBOOTP
	}
	p, err := dhcpv4.FromBytes(b)
	if err != nil {
		return nil, fmt.Errorf("parse dhcp message: %w", err)
	}
	if p.OpCode != dhcpv4.OpcodeBootRequest {
		return nil, fmt.Errorf("parse dhcp message: operation %d", p.OpCode)
	}
	if p.HWType != iana.HWTypeEthernet || len(p.ClientHWAddr) != 6 {
		return nil, fmt.Errorf("parse dhcp message: hardware type %d with an address of %d bytes is not Ethernet",
			p.HWType, len(p.ClientHWAddr))
	}
	r := &Request{
		kind:        messageType(p.MessageType()),
		MAC:         slices.Clone(p.ClientHWAddr),
		Client:      addr(p.ClientIPAddr),
		Wanted:      addr(p.RequestedIPAddress()),
		Server:      addr(p.ServerIdentifier()),
		Relay:       addr(p.GatewayIPAddr),
		VendorClass: printable(p.Options[uint8(dhcpv4.OptionClassIdentifier)]),
		UserClass:   printable(userClass(p.Options[uint8(dhcpv4.OptionUserClassInformation)])),
		HostName:    printable(p.Options[uint8(dhcpv4.OptionHostName)]),
		packet:      p,
	}
	r.Declined = r.kind == typeDecline
	_, r.IPXE = p.Options[175]
	r.IPXE = r.IPXE || r.UserClass == "iPXE"
	for _, a := range p.ClientArch() {
		r.Archs = append(r.Archs, Arch(a))
	}
	switch r.kind {
	case typeDiscover, typeRequest, typeDecline, typeRelease, typeInform:
		return r, nil
	}
	if r.kind == 0 {
		return nil, errBOOTP
	}
	return nil, fmt.Errorf("parse dhcp message: clients do not send type %d", r.kind)
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
func addr(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
