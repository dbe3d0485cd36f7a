package cluster

import (
	"slices"
	"strings"
)

// checkForms reports interfaces of a node that cannot be what they are declared to be.
func (b *builder) checkForms(cards []*cardPattern) {
	for i, cp := range cards {
		if slices.Contains(reservedCards(), cp.name) {
			b.add(cp.item.at, "no interface can be called %s", cp.name).
				withHint("the kernel uses this name for something else; write another one, such as eth0")
		}
		if i == 0 {
			b.checkBootCard(cp)
		}
		b.checkForm(cp)
		b.checkNetworkless(cp)
	}
}

// reservedCards are the names that the kernel gives to no other interface: the loopback's, those that stand for
// interfaces in /proc/sys/net/ipv4/conf, and that of a file in /sys/class/net.
func reservedCards() []string { return []string{"lo", "all", "default", "bonding_masters"} }

// checkBootCard reports a first interface that no node can boot from.
func (b *builder) checkBootCard(cp *cardPattern) {
	at := cp.item.at
	switch {
	case cp.vlan != 0:
		b.add(at, "the first interface is a VLAN: firmware and kernel boot without a VLAN tag").
			withHint("make the boot network the untagged one of the switch port, and put VLANs on the boot card")
	case cp.bond != "":
		b.add(at, "the first interface is a bond: the root comes through one card, which must not change").
			withHint("list one card with an address first; bond the others")
	case cp.infiniband:
		b.add(at, "the first interface is InfiniBand: nodes boot from Ethernet").
			withHint("list the Ethernet card first; ib0 can have an address, too")
	case !cp.item.has("address"):
		b.add(at, "the first interface has no address: the node boots from it").
			withHint("nodes boot by IPv4; address6 is in addition")
	case cp.network == nil && !cp.item.has("network"):
		b.add(at, "<interface> has no attribute network")
	}
	if slices.ContainsFunc(cp.carries, func(on *cardPattern) bool { return on.bond != "" }) {
		b.add(at, "the node boots from %s, which cannot be in a bond: the root comes through it", cp.name).
			withHint("bond other cards; a switch with LACP needs its fallback on the port of the boot card")
	}
}

// checkForm reports a VLAN or a bond that cannot be made.
func (b *builder) checkForm(cp *cardPattern) {
	at := cp.item.at
	switch {
	case cp.vlan != 0 && cp.bond != "":
		b.add(at, "interface %s is both a VLAN and a bond", cp.name).withHint("a VLAN can be on a bond: declare both")
		return
	case cp.vlan == 0 && cp.bond == "":
		if cp.item.has("on") && !cp.item.has("vlan") && !cp.item.has("bond") {
			b.add(at, "interface %s is on others, and is neither a VLAN nor a bond", cp.name).
				withHint(`write vlan="902" or bond="active-backup"`)
		}
		return
	case cp.item.has("mac"):
		b.add(at, "interface %s has the hardware address of the card below: mac is of that card", cp.name)
	case cp.item.has("type"):
		b.add(at, "interface %s is what its cards are: type is of the card below", cp.name)
	}
	if cp.vlan != 0 {
		b.checkVLAN(cp)
		return
	}
	if !cp.item.has("on") {
		b.add(at, "bond %s has no cards", cp.name).withHint(`write on="eth1 eth2", and an <interface> for each`)
	}
	for _, card := range cp.on {
		b.checkMember(cp, card)
	}
}

// checkMember reports a card that cannot be in a bond.
func (b *builder) checkMember(bond, card *cardPattern) {
	at := card.item.at
	switch {
	case card.vlan != 0 || card.bond != "":
		b.add(at, "interface %s cannot be in bond %s: it is no card", card.name, bond.name)
	case len(card.carries) > 1:
		b.add(at, "interface %s is in a bond, and something else is on it, too", card.name).
			withHint(`a VLAN is on the bond: on=%q`, bond.name)
	case slices.ContainsFunc(addressAttributes(), card.item.has):
		b.add(at, "interface %s is in bond %s: network and addresses are of the bond", card.name, bond.name)
	case card.infiniband && bond.bond != "active-backup":
		b.add(bond.item.at, "bond %s has InfiniBand cards: its mode can only be active-backup", bond.name)
	}
}

// addressAttributes are the attributes that only an interface with addresses may have.
func addressAttributes() []string {
	return []string{"network", "address", "address6", "gateway", "gateway6"}
}

// checkVLAN reports a VLAN that cannot be made.
func (b *builder) checkVLAN(cp *cardPattern) {
	at := cp.item.at
	if len(cp.on) != 1 {
		if !cp.item.has("on") || len(cp.on) > 1 {
			b.add(at, "VLAN %s must be on one interface", cp.name).withHint(`write on="eth0"`)
		}
		return
	}
	below := cp.on[0]
	switch {
	case below.vlan != 0:
		b.add(at, "VLAN %s is on the VLAN %s: VLANs in VLANs cannot be declared", cp.name, below.name)
	case below.infiniband:
		b.add(at, "VLAN %s is on InfiniBand, which has partitions instead: they cannot be declared", cp.name)
	case slices.ContainsFunc(below.carries, func(o *cardPattern) bool { return o != cp && o.vlan == cp.vlan }):
		b.add(at, "VLAN %d is on %s twice", cp.vlan, below.name)
	case cp.mtu > 0 && below.mtu > 0 && cp.mtu > below.mtu:
		b.add(at, "VLAN %s has the MTU %d, and %s below has %d", cp.name, cp.mtu, below.name, below.mtu)
	}
}

// checkNetworkless reports an interface without a network that has addresses, or nothing on it.
func (b *builder) checkNetworkless(cp *cardPattern) {
	if cp.item.has("network") || cp.name == "" {
		return
	}
	for _, attribute := range addressAttributes() {
		if cp.item.has(attribute) {
			b.add(cp.item.at, "<interface> has no attribute network")
			return
		}
	}
	if len(cp.carries) == 0 {
		b.add(cp.item.at, "<interface> has no attribute network").
			withHint("only an interface that a VLAN or a bond is on needs none")
	}
}

// checkHardware reports cards whose hardware address is not of their kind. An InfiniBand card is often known only by
// its address, which may be in an inventory.
func (b *builder) checkHardware(at location, n *Node) {
	for i, card := range n.Interfaces {
		if len(card.MAC) == 6 && card.InfiniBand {
			b.add(at, "node %s: interface %s is InfiniBand, and %v is an address of Ethernet",
				n.Name, card.Name, card.MAC).
				withHint("write the GUID of the port, as ibstat shows it: eight bytes, 00:02:c9:03:00:4d:00:01")
		}
		if len(card.MAC) <= 6 {
			continue
		}
		card.InfiniBand = true
		if i == 0 {
			b.add(at, "node %s boots from %s, which is InfiniBand: nodes boot from Ethernet", n.Name, card.Name).
				withHint("list the Ethernet card first")
		}
	}
	for _, card := range n.Interfaces {
		for _, below := range card.On {
			if below.InfiniBand && card.VLAN != 0 {
				b.add(at, "node %s: VLAN %s is on InfiniBand, which has partitions instead", n.Name, card.Name)
			}
			card.InfiniBand = card.InfiniBand || below.InfiniBand
		}
		if card.Bond != "" && card.Bond != "active-backup" && card.InfiniBand {
			b.add(at, "node %s: bond %s has InfiniBand cards: its mode can only be active-backup", n.Name, card.Name)
		}
	}
}

// warnOfName warns of cards whose name in DNS and hosts(5) is that of another machine.
func (b *builder) warnOfName(at location, n *Node) {
	for name, card := range HostNames(string(n.Name), n.Interfaces) {
		if card == n.Interfaces[0] || !card.Address.IsValid() && !card.Address6.IsValid() {
			continue
		}
		if other, taken := b.hosts[string(lowerBytes(name))]; taken {
			b.warnings.add(at, "node %s: its card %s has the name %s, as %v at %v has",
				n.Name, card.Name, name, other, other.at).
				withHint("that name has the addresses of both: give the card or the machine another name")
		}
	}
}

// warnOfCards warns of cards that will not work as they are probably meant.
func (b *builder) warnOfCards(at location, n *Node) {
	b.warnOfName(at, n)
	known := false
	on := map[*Network]*Interface{}
	for _, card := range n.Interfaces {
		known = known || card.MAC != nil
		if parent, number, ok := strings.Cut(card.Name, "."); ok && card.VLAN == 0 && n.Interface(parent) != nil {
			b.warnings.add(at, "node %s: interface %s has the name of a VLAN of %s, and is declared as a card",
				n.Name, card.Name, parent).withHint("write vlan=%q on=%q", number, parent)
			continue
		}
		if other := on[card.Network]; other != nil && card.Network != nil && card.Address.IsValid() {
			b.warnings.add(at, "node %s: interfaces %s and %s are on one network, %q",
				n.Name, other.Name, card.Name, card.Network.Name).
				withHint("connections that the node makes go by %s; %s only answers what is sent to its own address",
					other.Name, card.Name)
			continue
		}
		on[card.Network] = card
	}
	if !known {
		b.warnings.add(at, "node %s has no MAC: nothing is answered when it boots", n.Name).
			withHint("write mac=\"…\" of <interface>, or an <inventory>; " +
				"or dim node learn, when the machine has asked")
	}
}
