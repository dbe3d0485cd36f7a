package cluster

import (
	"net"
	"net/netip"
	"slices"
	"strconv"

	"dim/internal/cluster/inventory"
)

// network makes a <network>.
func (b *builder) network(it *item) {
	n := &Network{}
	if v, ok := it.get("name"); ok {
		n.Name = v.text
		if slices.ContainsFunc(b.cluster.Networks, func(other *Network) bool { return other.Name == n.Name }) {
			b.add(v.at, "a second network %q", n.Name)
			return
		}
	}
	if v, ok := it.get("subnet"); ok {
		n.Subnet = b.subnet(v, n.Name)
	}
	if v, ok := it.get("gateway"); ok {
		n.Gateway, _ = b.addressIn(v.at, v.text, n, "gateway")
	}
	if v, ok := it.get("subnet6"); ok {
		n.Subnet6 = b.subnet6(v, n.Name)
	}
	if v, ok := it.get("gateway6"); ok {
		n.Gateway6, _ = b.address6In(v.at, v.text, n, "gateway6")
	}
	n.DNS, n.MTU = b.dns(it), b.mtu(it)
	v, _ := it.get("dhcp")
	n.Proxy = v.text == "proxy"
	v, _ = it.get("admin")
	n.Admin = v.text == "yes"
	v, _ = it.get("insecure")
	n.Insecure = v.text == "yes"
	b.cluster.Networks = append(b.cluster.Networks, n)
}

// subnet parses the subnet of the network with that name.
func (b *builder) subnet(v value, name string) netip.Prefix {
	p, err := netip.ParsePrefix(v.text)
	if err != nil || p.Bits() == 0 {
		b.add(v.at, "subnet=%q: must be an IPv4 subnet such as 10.77.0.0/24", v.text)
		return netip.Prefix{}
	}
	return b.ownSubnet(v, name, p, func(n *Network) netip.Prefix { return n.Subnet })
}

// subnet6 parses the IPv6 subnet of the network with that name.
func (b *builder) subnet6(v value, name string) netip.Prefix {
	p, err := netip.ParsePrefix(v.text)
	if err != nil || p.Bits() == 0 || !p.Addr().Is6() || p.Addr().Is4In6() {
		b.add(v.at, "subnet6=%q: must be an IPv6 subnet such as 2001:db8:0:77::/64", v.text)
		return netip.Prefix{}
	}
	return b.ownSubnet(v, name, p, func(n *Network) netip.Prefix { return n.Subnet6 })
}

// ownSubnet checks that a subnet is well-formed and does not overlap those of other networks.
func (b *builder) ownSubnet(v value, name string, p netip.Prefix, of func(*Network) netip.Prefix) netip.Prefix {
	if p.Masked() != p {
		b.add(v.at, "%s=%q has bits set beyond its prefix", v.name, v.text).withHint("did you mean %q?", p.Masked())
		return p.Masked()
	}
	for _, other := range b.cluster.Networks {
		if has := of(other); has.IsValid() && has.Overlaps(p) {
			b.add(v.at, "network %q (%v) overlaps network %q (%v)", name, p, other.Name, has)
		}
	}
	return p
}

// addressIn parses an address and checks that a host on network n may have it. A nil network is not checked. Messages
// begin with the subject.
func (b *builder) addressIn(at location, text string, n *Network, subject string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil || !a.Is4() {
		finding := b.add(at, "%s: %q is not an IPv4 address", subject, shorten(text))
		if err == nil {
			finding.withHint("nodes boot by IPv4; an IPv6 address is in addition: address6")
		}
		return netip.Addr{}, false
	}
	if n == nil || !n.Subnet.IsValid() {
		return a, true
	}
	switch {
	case !n.Subnet.Contains(a):
		b.add(at, "%s: address %v is outside network %q (%v)", subject, a, n.Name, n.Subnet)
	case n.Subnet.Bits() < 31 && a == n.Subnet.Addr():
		b.add(at, "%s: address %v is the network address of network %q (%v)", subject, a, n.Name, n.Subnet)
	case n.Subnet.Bits() < 31 && a == broadcast(n.Subnet):
		b.add(at, "%s: address %v is the broadcast address of network %q (%v)", subject, a, n.Name, n.Subnet)
	default:
		return a, true
	}
	return netip.Addr{}, false
}

// address6In is addressIn for IPv6.
func (b *builder) address6In(at location, text string, n *Network, subject string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	switch {
	case err != nil || !a.Is6() || a.Is4In6() || a.Zone() != "":
		b.add(at, "%s: %q is not an IPv6 address", subject, shorten(text))
	case !n.Subnet6.IsValid():
		b.add(at, "%s: network %q has no IPv6 addresses", subject, n.Name).
			withHint("write subnet6=\"…/64\" of <network name=%q>", n.Name)
	case !n.Subnet6.Contains(a):
		b.add(at, "%s: address %v is outside network %q (%v)", subject, a, n.Name, n.Subnet6)
	case n.Subnet6.Bits() < 127 && a == n.Subnet6.Addr():
		b.add(at, "%s: address %v is that of all routers of network %q (%v)", subject, a, n.Name, n.Subnet6)
	default:
		return a, true
	}
	return netip.Addr{}, false
}

// broadcast returns the last address of an IPv4 subnet.
func broadcast(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}

// mac parses a hardware address and records that c uses it.
func (b *builder) mac(at location, text string, c claim) net.HardwareAddr {
	mac, ok := inventory.ParseMAC(text)
	if !ok { // of InfiniBand: 20 bytes, or the eight of a GUID
		long, err := net.ParseMAC(text)
		mac, ok = long, err == nil
	}
	switch {
	case !ok:
		b.add(at, "%v: %q is not a hardware address", c, shorten(text)).
			withHint("%s", macHint(text))
		return nil
	case len(mac) == 6 && mac[0]&1 != 0 || slices.Max(mac) == 0:
		b.add(at, "%v: hardware address %v is a multicast address or zero", c, mac)
		return nil
	}
	if other, taken := b.macs[hardwareKey(mac)]; taken {
		b.add(at, "%v: hardware address %v is already used by %v at %v", c, mac, other, other.at)
		return nil
	}
	b.macs[hardwareKey(mac)] = c
	return mac
}

// macHint tells how to write a hardware address.
func macHint(text string) string {
	if len(text) > 3 && (text[:3] == "01-" || text[:3] == "01:") {
		if mac, err := net.ParseMAC(text[3:]); err == nil && len(mac) == 6 {
			return "write " + mac.String() + ": 01 is the type of the card, as in names of pxelinux files"
		}
	}
	return "write six bytes, such as 52:54:00:4d:00:01, or eight or 20 of InfiniBand"
}

// taxonomy makes the levels.
func (b *builder) taxonomy(it *item) {
	for _, l := range it.all("level") {
		name, named := l.get("name")
		level := Level{Name: name.text, From: 1}
		if v, ok := l.get("from"); ok {
			level.From, _ = strconv.Atoi(v.text)
		}
		to, bounded := l.get("to")
		if !named || !bounded {
			continue
		}
		level.To, _ = strconv.Atoi(to.text)
		switch {
		case level.Name == "index" || level.Name == "i":
			b.add(name.at, "a level cannot be named %q: that is the variable that counts nodes", level.Name)
		case slices.ContainsFunc(b.cluster.Levels, func(other Level) bool { return other.Name == level.Name }):
			b.add(name.at, "a second level %q", level.Name)
		case level.From > level.To:
			b.add(to.at, "level %q runs backwards, from %d to %d", level.Name, level.From, level.To)
			b.nodesIncomplete = true
			level.To = level.From
			b.cluster.Levels = append(b.cluster.Levels, level)
		default:
			b.cluster.Levels = append(b.cluster.Levels, level)
		}
	}
}
