package nodefile

import (
	"fmt"
	"net/netip"

	"dim/internal/cluster"
)

// The root is mounted over the boot card. dim-init has configured the card before the distribution starts, and the card
// must stay as it is until the machine is off: a program that takes it down, or gives it another address or name, stops
// the node.

// link is an interface of a node with what depends on its other interfaces.
type link struct {
	*cluster.Interface
	addresses []netip.Prefix
	bond      *cluster.Interface   // that it is in; nil: none
	vlans     []*cluster.Interface // on it

	default4, default6 bool // the node's default route goes through its gateway
	table              int  // of the routes for what is sent from its addresses; 0: the main one
}

// firstTable is the number of the routing table of a node's second interface. Those of further ones follow. The kernel
// itself uses 253 to 255.
const firstTable = 1001

// rulePriority is that of the rules that choose these tables. Rules of higher priority have lower numbers; that of the
// main table is 32766.
const rulePriority = 1000

// linksOf returns the interfaces of a node: the boot card, the other cards, bonds, and VLANs, each after what it is on.
//
// An interface has a routing table of its own if it has a gateway, or if an earlier one is on its network. What is sent
// from its addresses then leaves by it. By the main table it would leave by the earlier one, where switches and the
// other side may drop it.
func linksOf(n *cluster.Node) []link {
	all := make([]link, len(n.Interfaces))
	seen := map[*cluster.Network]bool{}
	var has4, has6 bool
	for i, card := range n.Interfaces {
		l := &all[i]
		l.Interface = card
		if card.Address.IsValid() {
			l.addresses = append(l.addresses, netip.PrefixFrom(card.Address, card.Network.Subnet.Bits()))
		}
		if card.Address6.IsValid() {
			l.addresses = append(l.addresses, netip.PrefixFrom(card.Address6, card.Network.Subnet6.Bits()))
		}
		l.default4, l.default6 = card.Gateway.IsValid() && !has4, card.Gateway6.IsValid() && !has6
		has4, has6 = has4 || card.Gateway.IsValid(), has6 || card.Gateway6.IsValid()
		if i > 0 && len(l.addresses) > 0 && (card.Gateway.IsValid() || card.Gateway6.IsValid() || seen[card.Network]) {
			l.table = firstTable + i - 1
		}
		if len(l.addresses) > 0 {
			seen[card.Network] = true
		}
		for j, other := range n.Interfaces {
			for _, below := range other.On {
				switch {
				case below != card:
				case other.Bond != "":
					l.bond = n.Interfaces[j]
				default:
					l.vlans = append(l.vlans, other)
				}
			}
		}
	}
	return sorted(all)
}

// sorted returns links, each after what it is on.
func sorted(all []link) []link {
	list := make([]link, 0, len(all))
	for _, wanted := range []func(*link) bool{
		func(l *link) bool { return l.VLAN == 0 && l.Bond == "" },
		func(l *link) bool { return l.Bond != "" },
		func(l *link) bool { return l.VLAN != 0 },
	} {
		for _, l := range all {
			if wanted(&l) {
				list = append(list, l)
			}
		}
	}
	return list
}

// bondMonitor is the interval in milliseconds at which a bond checks the links of its cards. The kernel's default is
// never (Documentation/networking/bonding.rst, miimon).
const bondMonitor = 100

// connected reports whether l is an InfiniBand card that must be in connected mode: a datagram has up to 4,092 bytes
// (RFC 4391 section 7, RFC 4755).
func (l *link) connected() bool { return l.InfiniBand && l.Bond == "" && l.MTU > 4092 }

// isUnused reports whether there is nothing to configure of l: it has no address, and is neither a bond, nor in one,
// nor carries a VLAN.
func (l *link) isUnused() bool {
	return len(l.addresses) == 0 && l.bond == nil && l.Bond == "" && len(l.vlans) == 0
}

// create returns the commands of ip(8) that make a VLAN or a bond.
func (l *link) create() (list []string) {
	switch {
	case l.VLAN != 0:
		below := l.On[0].Name
		list = append(list, fmt.Sprintf("ip link set %s up", below),
			fmt.Sprintf("ip link add link %s name %s type vlan id %d", below, l.Name, l.VLAN))
	case l.Bond != "":
		// Without max_bonds=0 the module makes a bond0 in another mode.
		for _, verb := range []string{"add", "set"} {
			list = append(list,
				fmt.Sprintf("ip link %s %s type bond mode %s miimon %d", verb, l.Name, l.Bond, bondMonitor))
		}
		for _, card := range l.On {
			// A card that is up cannot be put into a bond.
			list = append(list, fmt.Sprintf("ip link set %s down", card.Name),
				fmt.Sprintf("ip link set %s master %s", card.Name, l.Name))
		}
	}
	return list
}

// own returns the addresses that have a routing table of their own.
func (l *link) own() (list []netip.Addr) {
	for _, a := range l.addresses {
		if l.table != 0 {
			list = append(list, a.Addr())
		}
	}
	return list
}

// gateway returns the router for packets from an address; zero: none.
func (l *link) gateway(a netip.Addr) netip.Addr {
	if a.Is4() {
		return l.Gateway
	}
	return l.Gateway6
}

// isDefault reports whether the node's default route for the family of an address goes through the gateway of l.
func (l *link) isDefault(a netip.Addr) bool {
	if a.Is4() {
		return l.default4
	}
	return l.default6
}

// family returns the option of ip(8) for the family of an address.
func family(a netip.Addr) string {
	if a.Is6() {
		return "-6 "
	}
	return ""
}

// routes returns the commands of ip(8) that set the routes of l beyond those to its networks.
func (l *link) routes() (list []string) {
	for _, p := range l.addresses {
		ip, gateway := "ip "+family(p.Addr()), l.gateway(p.Addr())
		if l.isDefault(p.Addr()) {
			list = append(list, fmt.Sprintf("%sroute replace default via %v dev %s", ip, gateway, l.Name))
		}
		if l.table == 0 {
			continue
		}
		list = append(list, fmt.Sprintf("%sroute replace %v dev %s table %d", ip, p.Masked(), l.Name, l.table))
		if gateway.IsValid() {
			list = append(list,
				fmt.Sprintf("%sroute replace default via %v dev %s table %d", ip, gateway, l.Name, l.table))
		}
		list = append(list,
			fmt.Sprintf("%srule add from %v lookup %d priority %d", ip, p.Addr(), l.table, rulePriority))
	}
	return list
}
