package cluster

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// cardPattern is an <interface> whose attributes are parsed. It is expanded for each node or server.
type cardPattern struct {
	item    *item
	name    string
	network *Network

	address, address6, gateway, gateway6, mac cardText

	mtu        int // 0: the network's
	vlan       int // 0: it is none
	bond       string
	infiniband bool
	on         []*cardPattern
	carries    []*cardPattern // those that are on it
}

// cardText is an attribute with expressions.
type cardText struct {
	value   value
	pattern pattern // nil: absent, or reported as malformed
}

// cardPatterns parses the <interface> elements of an item.
func (b *builder) cardPatterns(it *item, variables []string) []*cardPattern {
	var cards []*cardPattern
	for _, ci := range it.all("interface") {
		cp := &cardPattern{item: ci, network: b.networkOf(ci)}
		name, _ := ci.get("name")
		cp.name = name.text
		if cp.name != "" && slices.ContainsFunc(cards, func(other *cardPattern) bool { return other.name == cp.name }) {
			b.add(name.at, "a second interface %q", cp.name)
		}
		for attribute, to := range map[string]*cardText{
			"address": &cp.address, "address6": &cp.address6, "gateway": &cp.gateway, "gateway6": &cp.gateway6,
			"mac": &cp.mac,
		} {
			var ok bool
			if to.value, ok = ci.get(attribute); ok {
				to.pattern, _ = b.compile(to.value, variables)
			}
		}
		cp.mtu = b.mtu(ci)
		if v, ok := ci.get("vlan"); ok {
			if cp.vlan, _ = strconv.Atoi(v.text); cp.vlan > 4094 {
				b.add(v.at, "vlan=%q: must be 1 to 4094", v.text)
			}
		}
		bond, _ := ci.get("bond")
		kind, _ := ci.get("type")
		cp.bond, cp.infiniband = bond.text, kind.text == "infiniband"
		cards = append(cards, cp)
	}
	for _, cp := range cards {
		b.findCarriers(cp, cards)
	}
	return cards
}

// mtu returns the attribute mtu of an item, 0 if it has none.
func (b *builder) mtu(it *item) int {
	v, ok := it.get("mtu")
	if !ok {
		return 0
	}
	n, _ := strconv.Atoi(v.text)
	if n < 576 || n > 65535 {
		b.add(v.at, "mtu=%q: must be 576 to 65535", v.text)
	}
	return n
}

// findCarriers resolves the attribute on.
func (b *builder) findCarriers(cp *cardPattern, cards []*cardPattern) {
	v, ok := cp.item.get("on")
	if !ok {
		return
	}
	names, offsets := fields(v.text)
	for i, name := range names {
		at := v.at.plus(offsets[i])
		j := slices.IndexFunc(cards, func(other *cardPattern) bool { return other.name == name })
		switch {
		case j < 0:
			b.add(at, "on: interface %q is not declared here", name).
				withHint("a card of a bond is an <interface> with a name, and nothing else has to be known of it")
		case cards[j] == cp || slices.Contains(cp.on, cards[j]):
			b.add(at, "on: interface %s is on %q twice, or on itself", cp.name, name)
		default:
			cp.on, cards[j].carries = append(cp.on, cards[j]), append(cards[j].carries, cp)
		}
	}
}

// expandText returns the value of an attribute for the node at hand.
func (nb *nodeBuilder) expandText(t *cardText) (string, bool) {
	if t.pattern == nil {
		return "", false
	}
	return nb.expand(t.pattern, t.value, nb.values)
}

// nodeCard adds an interface to n.
func (nb *nodeBuilder) nodeCard(n *Node, cp *cardPattern) {
	if nb.tooManyCards(cp) {
		return
	}
	card := &Interface{
		Name: cp.name, Network: cp.network, MTU: cp.mtu, InfiniBand: cp.infiniband, VLAN: cp.vlan, Bond: cp.bond,
	}
	if card.MTU == 0 && cp.network != nil {
		card.MTU = cp.network.MTU
	}
	n.Interfaces = append(n.Interfaces, card)
	if text, ok := nb.expandText(&cp.mac); ok {
		card.MAC = nb.mac(cp.mac.value.at, text, claim{node: n, at: cp.mac.value.at})
	}
	if cp.network == nil {
		return // which has been reported if it has an address
	}
	card.Address = nb.cardAddress(n, cp, &cp.address, nb.addressIn)
	card.Address6 = nb.cardAddress(n, cp, &cp.address6, nb.address6In)
	boot := len(n.Interfaces) == 1
	card.Gateway = nb.cardGateway(n, cp, &cp.gateway, nb.addressIn)
	card.Gateway6 = nb.cardGateway(n, cp, &cp.gateway6, nb.address6In)
	if boot && !cp.item.has("gateway") {
		card.Gateway = cp.network.Gateway
	}
	if boot && !cp.item.has("gateway6") && card.Address6.IsValid() {
		card.Gateway6 = cp.network.Gateway6
	}
}

// addressParser parses an address and checks that a host on a network may have it.
type addressParser func(at location, text string, n *Network, subject string) (netip.Addr, bool)

// cardAddress returns an address of a card, and records that the node uses it.
func (nb *nodeBuilder) cardAddress(n *Node, cp *cardPattern, t *cardText, parse addressParser) netip.Addr {
	text, ok := nb.expandText(t)
	if !ok {
		return netip.Addr{}
	}
	c := claim{node: n, at: t.value.at}
	a, ok := parse(c.at, text, cp.network, "node "+string(n.Name))
	if !ok {
		return netip.Addr{}
	}
	if other, taken := nb.addresses[a]; taken {
		nb.add(c.at, "%v: address %v is already used by %v at %v", c, a, other, other.at)
		return a
	}
	if a == cp.network.Gateway || a == cp.network.Gateway6 {
		nb.add(c.at, "%v: address %v is the gateway of network %q", c, a, cp.network.Name)
	}
	nb.addresses[a] = c
	return a
}

// cardGateway returns the router of a card; zero: none.
func (nb *nodeBuilder) cardGateway(n *Node, cp *cardPattern, t *cardText, parse addressParser) netip.Addr {
	text, ok := nb.expandText(t)
	if !ok || text == "none" {
		return netip.Addr{}
	}
	a, _ := parse(t.value.at, text, cp.network, "node "+string(n.Name)+": "+t.value.name)
	return a
}

// tooManyCards counts an interface and reports whether there are too many.
func (b *builder) tooManyCards(cp *cardPattern) bool {
	if b.budget.cards == 0 {
		b.add(cp.item.at, "too many network cards in all")
		return true
	}
	b.budget.cards--
	return false
}

// stack sets what the interfaces of n are on, which are made of the patterns.
func (n *Node) stack(patterns []*cardPattern) {
	if len(n.Interfaces) != len(patterns) {
		return // too many cards, which has been reported
	}
	for i, cp := range patterns {
		for _, below := range cp.on {
			n.Interfaces[i].On = append(n.Interfaces[i].On, n.Interfaces[slices.Index(patterns, below)])
		}
	}
}

// dns returns the name servers that an item declares.
func (b *builder) dns(it *item) (list []netip.Addr) {
	v, ok := it.get("dns")
	if !ok {
		return nil
	}
	for _, text := range strings.Fields(v.text) {
		a, err := netip.ParseAddr(text)
		if err != nil {
			b.add(v.at, "dns: %q is not an address", shorten(text))
			continue
		}
		list = append(list, a)
	}
	return list
}

// hardwareKey is what is unique of a hardware address. The first twelve bytes of an InfiniBand address change; the last
// eight are the GUID of the port (RFC 4391 section 9.1.1).
func hardwareKey(mac net.HardwareAddr) string {
	if len(mac) > 8 {
		mac = mac[len(mac)-8:]
	}
	return string(mac)
}
