package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// Type is a DHCP message type (RFC 2132 section 9.6).
type Type uint8

// The message types. Ask is DHCPREQUEST; the word Request is taken here.
const (
	Discover Type = 1
	Offer    Type = 2
	Ask      Type = 3
	Decline  Type = 4
	ACK      Type = 5
	NAK      Type = 6
	Release  Type = 7
	Inform   Type = 8
)

// Arch is a client system architecture (option 93, RFC 4578 and the IANA registry "Processor Architecture Types").
type Arch uint16

// Request is a client's message.
type Request struct {
	Type   Type
	MAC    net.HardwareAddr // six bytes, Ethernet
	Secs   uint16           // for how long the client has been trying
	Client netip.Addr       // ciaddr: the address it has; zero: none
	Wanted netip.Addr       // option 50; zero: none
	Server netip.Addr       // option 54: the server it turns to; zero: any
	Relay  netip.Addr       // giaddr: the relay's address on the client's network; zero: none
	Link   Link             // where it arrived

	Archs       []Arch
	VendorClass string // option 60, printable part
	UserClass   string // option 77, printable part
	IPXE        bool   // option 175 is there: only iPXE sends it
	HostName    string // option 12, printable part

	packet *dhcpv4.DHCPv4
}

// Parse decodes a client's message. It refuses what is not DHCP from an Ethernet client.
func Parse(b []byte) (*Request, error) {
	p, err := dhcpv4.FromBytes(b)
	if err != nil {
		return nil, fmt.Errorf("parse dhcp message: %w", err)
	}
	if p.OpCode != dhcpv4.OpcodeBootRequest {
		return nil, fmt.Errorf("parse dhcp message: operation %d", p.OpCode)
	}
	if p.HWType != iana.HWTypeEthernet || len(p.ClientHWAddr) != 6 {
		return nil, fmt.Errorf("parse dhcp message: hardware type %d, address %x", p.HWType, p.ClientHWAddr)
	}
	r := &Request{
		Type:        Type(p.MessageType()),
		MAC:         slices.Clone(p.ClientHWAddr),
		Secs:        p.NumSeconds,
		Client:      addr(p.ClientIPAddr),
		Wanted:      addr(p.RequestedIPAddress()),
		Server:      addr(p.ServerIdentifier()),
		Relay:       addr(p.GatewayIPAddr),
		VendorClass: printable(p.Options[uint8(dhcpv4.OptionClassIdentifier)]),
		UserClass:   printable(userClass(p.Options[uint8(dhcpv4.OptionUserClassInformation)])),
		HostName:    printable(p.Options[uint8(dhcpv4.OptionHostName)]),
		packet:      p,
	}
	_, r.IPXE = p.Options[175]
	r.IPXE = r.IPXE || r.UserClass == "iPXE"
	for _, a := range p.ClientArch() {
		r.Archs = append(r.Archs, Arch(a))
	}
	switch r.Type {
	case Discover, Ask, Decline, Release, Inform:
		return r, nil
	}
	return nil, fmt.Errorf("parse dhcp message: type %d is not a client's", r.Type)
}

// Option returns the bytes of an option, nil when the client did not send it.
func (r *Request) Option(code uint8) []byte { return r.packet.Options[code] }

// Asks reports whether the client asked for an option (in option 55).
func (r *Request) Asks(code uint8) bool {
	return slices.Contains(r.packet.Options[uint8(dhcpv4.OptionParameterRequestList)], code)
}

// asked returns the address that a DHCPREQUEST is about: what it wants, or when it renews, what it has.
func (r *Request) asked() netip.Addr {
	if r.Wanted.IsValid() {
		return r.Wanted
	}
	return r.Client
}

// userClass takes off the length byte of RFC 3004, which iPXE and others leave out.
func userClass(b []byte) []byte {
	if len(b) > 1 && int(b[0]) == len(b)-1 {
		return b[1:]
	}
	return b
}

// printable returns at most 64 characters of b; what is not ASCII text is shown as a dot.
func printable(b []byte) string {
	b = b[:min(len(b), 64)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '.'
		}
		return r
	}, strings.TrimRight(string(b), "\x00"))
}

// addr converts an address; 0.0.0.0 and what is not four bytes long become the zero Addr.
func addr(ip net.IP) netip.Addr {
	a, ok := netip.AddrFromSlice(ip.To4())
	if !ok || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
