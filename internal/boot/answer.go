package boot

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"dim/internal/cluster"
)

// Client is a DHCP client, as far as its message tells what matters here.
type Client struct {
	MAC         net.HardwareAddr
	Relay       netip.Addr     // the relay's address; zero: none
	Network     netip.Addr     // an address on the client's network; zero: the relay's, or those of the card
	Link        string         // name of this server's card that received the message
	Local       []netip.Prefix // addresses of that card
	Archs       []uint16       // option 93
	VendorClass string         // option 60
	IPXE        bool           // it is iPXE
	WantsConfig bool           // it requests option 209
	BOOTP       bool           // it asks by BOOTP
	Taken       netip.Addr     // the address that it takes from another DHCP server; zero: none
	Declined    bool           // it refuses its address, because another machine uses it

	// Unprivileged: the message comes from a port of the relay's machine that any user may use.
	Unprivileged bool
}

// Answer is what a DHCP client gets.
type Answer struct {
	Node  cluster.NodeName
	Lease Lease
	Event Event // the step of the node's boot; its Stage is empty when the client does not boot
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

	Proxy bool // another DHCP server gives the address
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

// DHCP decides what a client is given. The error is ErrNotMine for a node that another server answers. Any other error
// says why the client is not answered, in words for `dim node unknown`.
func (p *Policy) DHCP(c Client) (Answer, error) {
	t, err := p.requester(c)
	if err != nil {
		return Answer{}, err
	}
	network := t.card.Network
	a := Answer{Node: t.Node.Name, Lease: Lease{
		Address:  t.card.Address,
		Subnet:   network.Subnet,
		Server:   t.addr,
		Router:   t.card.Gateway,
		DNS:      ipv4(t.Node.DNS),
		HostName: string(t.Node.Name),
		Domain:   p.Cluster().Domain,
		MTU:      t.card.MTU,
		Proxy:    network.Proxy,
	}}
	switch {
	case c.Declined:
		a.Event = Event{Stage: StageDHCP, Error: "another machine uses " + t.card.Address.String()}
	case network.Proxy && c.Taken.IsValid() && c.Taken != t.card.Address:
		a.Event = Event{Stage: StageDHCP, Error: fmt.Sprintf("the DHCP server of network %s gives %s the address %s: "+
			"declare it, or let that server give it %s", network.Name, t.card.Name, c.Taken, t.card.Address)}
	case t.card == t.Node.Boot():
		a.Event = p.addBoot(&a.Lease, c, &t)
	default:
		a.Event = otherCard(c, &t)
	}
	return a, nil
}

// ipv4 returns the IPv4 addresses of a list: DHCP has no others.
func ipv4(list []netip.Addr) (own []netip.Addr) {
	for _, a := range list {
		if a.Is4() {
			own = append(own, a)
		}
	}
	return own
}

// otherCard returns the step of a boot that a client is in that asks by a card from which its node does not boot. iPXE
// and firmware with a pxelinux configuration ask by each card, one after the other, so that it is no failure of theirs.
func otherCard(c Client, t *Target) Event {
	switch firmware, _ := identify(&c, t.Node.Image); firmware {
	case pxe, httpBoot, unsupported:
		return Event{Stage: StageDHCP, Error: fmt.Sprintf(
			"its firmware boots from %s, but the node boots from %s: set the boot order, or list that card first",
			t.card.Name, t.Node.Boot().Name)}
	}
	return Event{}
}

// requester returns the node that a client is, if this server is to answer it.
func (p *Policy) requester(c Client) (Target, error) {
	n, card, ok := p.Cluster().NodeByMAC(c.MAC)
	if !ok {
		return Target{}, ErrUnknown
	}
	if !card.Address.IsValid() {
		return Target{}, fmt.Errorf("%s's card %s has no address in the description", n.Name, card.Name)
	}
	if err := p.checkRelay(c); err != nil {
		return Target{}, fmt.Errorf("%s asks by %w", n.Name, err)
	}
	if err := checkNetwork(c, card.Network.Subnet); err != nil {
		return Target{}, fmt.Errorf("%s's card %s belongs on network %s (%s) but asks %w",
			n.Name, card.Name, card.Network.Name, card.Network.Subnet, err)
	}
	return p.Target(n, card)
}

// checkRelay checks that the message is not one of a user of a node, who could pretend to be the relay of another node.
func (p *Policy) checkRelay(c Client) error {
	if !c.Unprivileged {
		return nil
	}
	if n, _, ok := p.Cluster().NodeByAddress(c.Relay); ok {
		return fmt.Errorf("the relay %s, which is %s, from a port that any user may use", c.Relay, n.Name)
	}
	return nil
}

// checkNetwork checks that the client is on the network where it belongs: by what it or its relay says, else by the
// addresses of the card that received the message. The error says where the client is.
func checkNetwork(c Client, subnet netip.Prefix) error {
	if at := cmp.Or(c.Network, c.Relay); at.IsValid() {
		switch {
		case subnet.Contains(at):
			return nil
		case at == c.Relay:
			return errors.New("by the relay " + at.String())
		case c.Relay.IsValid():
			return fmt.Errorf("from the network of %s by the relay %s", at, c.Relay)
		}
		return errors.New("from the network of " + at.String())
	}
	inSubnet := func(l netip.Prefix) bool { return subnet.Contains(l.Addr()) }
	if len(c.Local) > 0 && !slices.ContainsFunc(c.Local, inSubnet) {
		return errors.New("on " + c.Link)
	}
	return nil
}

// addBoot adds what the client boots, and returns the step of the boot that this is.
func (p *Policy) addBoot(l *Lease, c Client, t *Target) Event {
	firmware, class := identify(&c, t.Node.Image)
	l.Options = map[uint8][]byte{}
	switch firmware {
	case ordinary:
		return Event{}
	case dimInit:
		l.Options[optWords] = []byte(strings.Join(t.words(), " "))
		return Event{}
	}
	if text := p.obstacle(firmware, &class, t); text != "" {
		if firmware == silent {
			return Event{}
		}
		return Event{Stage: StageDHCP, Error: text}
	}
	detail := firmware.String()
	switch firmware {
	case ipxe:
		l.BootFile = t.url("/boot/ipxe")
		if l.Proxy {
			// iPXE recognizes the offer of a proxy by its class. It ignores a boot file without a next server.
			l.Options[optVendorClass] = []byte("PXEClient")
			l.NextServer = t.addr
			break
		}
		// no-pxedhcp=1: do not wait (some 3 s) for the offer of a proxy DHCP server.
		l.Options[optIPXE] = []byte{0xb0, 1, 1}
	case pxelinux, silent:
		// SLOF and U-Boot take it by TFTP from siaddr, petitboot likewise.
		l.NextServer = t.addr
		l.Options[optConfigFile] = []byte(configName)
		l.Options[optPathPrefix] = []byte("/")
		detail = class.name
	case pxe, httpBoot:
		detail += ", " + class.name
		p.addLoader(l, firmware, class, t)
	}
	if firmware == silent {
		return Event{} // it may be the client of an operating system; TFTP will tell
	}
	return Event{Stage: StageDHCP, Detail: detail}
}

// obstacle returns why firmware of a class cannot boot a node now, "" if it can.
func (p *Policy) obstacle(f firmware, x *class, t *Target) string {
	if err := p.Closed(); err != nil {
		return err.Error()
	}
	if text := x.mismatch(t.Node.Image); text != "" {
		return text
	}
	if f == pxelinux && t.card.Network.Proxy {
		return fmt.Sprintf("%s takes no boot file from a proxy: let the DHCP server of network %s name %s as its "+
			"next server, and the configuration %s with option 209", x.name, t.card.Network.Name, t.addr, configName)
	}
	if f == unsupported || (f == pxe || f == httpBoot) && !slices.ContainsFunc(x.loaders, p.HasLoader) {
		return x.noLoader(f)
	}
	return ""
}

// addLoader adds the loader for firmware that boots by PXE or UEFI HTTP.
func (p *Policy) addLoader(l *Lease, f firmware, c class, t *Target) {
	name := c.loaders[max(0, slices.IndexFunc(c.loaders, p.HasLoader))]
	switch f {
	case pxe:
		l.NextServer = t.addr
		l.BootFile = name
		l.Options[optVendorClass] = []byte("PXEClient")
		// PXE_DISCOVERY_CONTROL with bit 3: load the boot file, look for no boot server, show no menu (PXE 2.1, table
		// 2-1).
		l.Options[optVendorSpecific] = []byte{6, 1, 8, 255}
	case httpBoot:
		l.BootFile = t.url("/boot/loader/" + name)
		// Without it the offer is not for HTTP Boot (UEFI 2.10 section 24.7.3.1).
		l.Options[optVendorClass] = []byte("HTTPClient")
	}
}
