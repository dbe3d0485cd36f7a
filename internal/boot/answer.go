package boot

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Asker is what a DHCP client says, as far as it matters here.
type Asker struct {
	MAC         net.HardwareAddr
	Secs        uint16         // for how long it has been trying
	Server      netip.Addr     // the server it turns to; zero: any
	Relay       netip.Addr     // the relay's address on the client's network; zero: none
	Link        string         // name of the card on which it was heard
	Local       []netip.Prefix // addresses of that card
	Archs       []uint16       // option 93
	VendorClass string         // option 60
	IPXE        bool           // it is iPXE
}

// Lease is what the client is given. What is zero is not sent.
type Lease struct {
	Address    netip.Addr
	Subnet     netip.Prefix
	Server     netip.Addr
	Router     netip.Addr
	DNS        []netip.Addr
	HostName   string
	Domain     string
	MTU        int
	NextServer netip.Addr
	BootFile   string
	Options    map[uint8][]byte
}

// DHCP options that boot decisions set.
const (
	optVendorSpecific = 43
	optVendorClass    = 60
	optIPXE           = 175 // iPXE's encapsulated options
	optConfigFile     = 209 // RFC 5071
	optPathPrefix     = 210 // RFC 5071
	optWords          = 224 // private use: the words of the command line for dim-init
)

// DHCP decides what a client is given. The error is ErrNotMine for a node that another server answers; any other says why
// the client is nobody that could be answered, in words for `dim node unknown`.
func (b *Boot) DHCP(a Asker) (Lease, error) {
	p, err := b.find(a)
	if err != nil {
		return Lease{}, err
	}
	c := b.Cluster()
	l := Lease{
		Address:  p.card.Address,
		Subnet:   p.card.Network.Subnet,
		Server:   p.addr,
		Router:   p.card.Network.Gateway,
		DNS:      slices.Clone(p.card.Network.DNS),
		HostName: string(p.node.Name),
		Domain:   c.Domain,
		MTU:      p.card.Network.MTU,
	}
	if p.card == p.node.Boot() {
		b.addBoot(&l, a, p)
	}
	return l, nil
}

// find returns the node that asks, if it is this server that is to answer.
func (b *Boot) find(a Asker) (place, error) {
	c := b.Cluster()
	n, card, ok := c.NodeByMAC(a.MAC)
	if !ok {
		return place{}, ErrUnknown
	}
	if err := inPlace(a, card.Network.Subnet); err != nil {
		return place{}, fmt.Errorf("%s's card %s belongs on network %s (%s) but asks %w",
			n.Name, card.Name, card.Network.Name, card.Network.Subnet, err)
	}
	p, err := b.at(n, card)
	if err != nil {
		return p, err
	}
	if a.Server != p.addr && a.trying() < time.Duration(p.rank)*b.StandIn {
		return p, fmt.Errorf("%s: %w", n.Name, ErrNotMine)
	}
	return p, nil
}

// trying returns for how long the client has been trying in vain.
//
// iPXE puts other things into the field: four times the number of the try, plus 2 once it has an offer (net/udp/dhcp.c,
// dhcp_tx: "(Ab)use the secs field"). Its tries come after 0, 1, 3 and 7 s.
func (a Asker) trying() time.Duration {
	if !a.IPXE {
		return time.Duration(a.Secs) * time.Second
	}
	try := min(int(a.Secs>>2), 8)
	if a.Secs&2 != 0 || try == 0 {
		return 0
	}
	return time.Duration(1<<(try-1)-1) * time.Second
}

// inPlace checks that the client is on the network where it belongs: by the relay's address, else by those of the card on
// which it was heard. The error tells where it is.
func inPlace(a Asker, subnet netip.Prefix) error {
	if a.Relay.IsValid() {
		if !subnet.Contains(a.Relay) {
			return errors.New("by the relay " + a.Relay.String())
		}
		return nil
	}
	if len(a.Local) > 0 && !slices.ContainsFunc(a.Local, func(l netip.Prefix) bool { return subnet.Contains(l.Addr()) }) {
		return errors.New("on " + a.Link)
	}
	return nil
}

// addBoot adds what the client boots, and notes that the node boots.
func (b *Boot) addBoot(l *Lease, a Asker, p place) {
	kind, line := identify(a)
	detail := kind.String()
	l.Options = map[uint8][]byte{}
	switch kind {
	case ordinary:
		return
	case dimInit:
		l.Options[optWords] = []byte(strings.Join(p.words(), " "))
		return
	case ipxe:
		l.BootFile = p.url("/boot/ipxe")
		// no-pxedhcp=1: do not wait (some 3 s) for the offer of a proxy DHCP server.
		l.Options[optIPXE] = []byte{0xb0, 1, 1}
	case pxelinux:
		// SLOF and U-Boot take it by TFTP from siaddr, petitboot likewise.
		l.NextServer = p.addr
		l.Options[optConfigFile] = []byte(configName)
		l.Options[optPathPrefix] = []byte("/")
		detail = line.name
	case pxe, httpBoot, nothingTo:
		detail += ", " + line.name
		b.addLoader(l, kind, line, p)
		if l.BootFile == "" {
			b.stuck(p, StageDHCP, "there is no loader for "+detail)
			return
		}
	}
	b.reached(p, StageDHCP, detail)
}

// addLoader adds the loader for firmware that boots by PXE or UEFI HTTP, if there is one.
func (b *Boot) addLoader(l *Lease, kind firmware, line arch, p place) {
	name := b.loader(line)
	if name == "" {
		return
	}
	switch kind {
	case pxe:
		l.NextServer = p.addr
		l.BootFile = name
		l.Options[optVendorClass] = []byte("PXEClient")
		// PXE_DISCOVERY_CONTROL with bit 3: load the boot file, look for no boot server, show no menu (PXE 2.1, table 2-1).
		l.Options[optVendorSpecific] = []byte{6, 1, 8, 255}
	case httpBoot:
		l.BootFile = p.url("/boot/loader/" + name)
		l.Options[optVendorClass] = []byte("HTTPClient") // UEFI 2.10 section 24.7.3.1: or the offer is not for HTTP Boot
	}
}
