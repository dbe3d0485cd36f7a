package describe

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"dim/internal/cluster/nodeset"
)

// settle removes from a site what a description cannot express, with a note for each.
type settle struct {
	*Site
	hosts     map[string]bool
	addresses map[netip.Addr]bool
	macs      map[string]bool
}

const label = `[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?` // of a domain

var (
	hostName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)
	cardName   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,14}$`)
	wordName   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,63}$`)
	domainName = regexp.MustCompile(`^` + label + `(\.` + label + `){0,6}$`)
	notInName  = regexp.MustCompile(`[^A-Za-z0-9_.-]+`)
	// infinibandName is a name that the kernel or udev gives a card of InfiniBand: ib0, ibp94s0, ibs1.
	infinibandName = regexp.MustCompile(`^ib[ps]?[0-9][a-z0-9]*$`)
	badArgument    = regexp.MustCompile(`[^\x20-\x7e]`)
)

// maxNodes and maxCards are limits of package cluster.
const (
	maxNodes = 100_000
	maxCards = 64
)

// MaxNetworks is the number of networks above which a site is refused.
const MaxNetworks = 1000

func newSettle(s *Site) *settle {
	return &settle{s, map[string]bool{}, map[netip.Addr]bool{}, map[string]bool{}}
}

func (s *settle) run() error {
	if !wordName.MatchString(s.Name) {
		s.Name = word(s.Name, "cluster")
	}
	if s.Domain != "" && !domainName.MatchString(s.Domain) {
		s.Note(Place{}, "the domain %q is not carried over: it is not a DNS domain", s.Domain)
		s.Domain = ""
	}
	if !hostName.MatchString(s.Server.Name) {
		s.Server.Name = "head"
	}
	s.hosts[strings.ToLower(s.Server.Name)] = true
	if len(s.Networks) > MaxNetworks {
		return fmt.Errorf("the input has more than %d networks", MaxNetworks)
	}
	if len(s.Nodes) > maxNodes {
		return fmt.Errorf("the input has %d nodes, more than %d", len(s.Nodes), maxNodes)
	}
	s.networks()
	s.nodes()
	if len(s.Nodes) == 0 {
		return fmt.Errorf("the input has no node that can be carried over")
	}
	s.server()
	s.unknownMACs()
	return nil
}

// unknownMACs notes the nodes whose boot card has no hardware address.
func (s *settle) unknownMACs() {
	var names []string
	for _, n := range s.Nodes {
		if len(n.Cards[0].MAC) == 0 {
			names = append(names, n.Name)
		}
	}
	if len(names) > 0 {
		s.Note(Place{}, "no hardware address is in the input for %s: add them to an <inventory>, or see dim node learn",
			nodeset.Fold(names))
	}
}

// word makes a name for an image, a group or a network of any text.
func word(text, fallback string) string {
	text = notInName.ReplaceAllString(text, "-")
	if text == "" {
		return fallback
	}
	if !wordName.MatchString(text) {
		text = fallback + "-" + text
	}
	return text[:min(len(text), 60)]
}

// unique returns name, or with a number if it is taken, and takes it.
func unique(name string, taken map[string]int) string {
	try := name
	for i := max(taken[name], 1); taken[try] > 0; {
		i++
		try, taken[name] = fmt.Sprintf("%s-%d", name, i), i
	}
	taken[try] = max(taken[try], 1)
	return try
}

// networks keeps the networks that a description can have. Of networks that overlap, the first is kept.
func (s *settle) networks() {
	var kept []Network
	names := map[string]int{}
	for _, n := range s.Networks {
		n.Subnet = n.Subnet.Masked()
		switch {
		case !n.Subnet.IsValid() || !n.Subnet.Addr().Is4() || n.Subnet.Bits() == 0:
			s.Note(n.Place, "the network %s is not carried over: it is not an IPv4 subnet", n.Name)
			continue
		case slices.ContainsFunc(kept, func(k Network) bool { return k.Subnet == n.Subnet }):
			continue
		case slices.ContainsFunc(kept, func(k Network) bool { return k.Subnet.Overlaps(n.Subnet) }):
			s.Note(n.Place, "the network %s is not carried over: it overlaps another one", n.Subnet)
			continue
		}
		if n.Gateway.IsValid() && !usable(n.Gateway, n.Subnet) {
			s.Note(n.Place, "the gateway %s is not carried over: it is not an address of %s", n.Gateway, n.Subnet)
			n.Gateway = netip.Addr{}
		}
		if n.MTU != 0 && (n.MTU < 576 || n.MTU > 65535) {
			s.Note(n.Place, "the MTU %d is not carried over: it is not from 576 to 65535", n.MTU)
			n.MTU = 0
		}
		n.DNS = slices.DeleteFunc(n.DNS, func(a netip.Addr) bool { return !a.Is4() })
		n.Name = unique(word(n.Name, "net"), names)
		kept = append(kept, n)
	}
	s.Networks = kept
}

// usable reports whether a host of a network may have the address.
func usable(a netip.Addr, p netip.Prefix) bool {
	if !a.Is4() || !p.Contains(a) {
		return false
	}
	return p.Bits() >= 31 || a != p.Addr() && a != last(p)
}

// last returns the last address of an IPv4 subnet.
func last(p netip.Prefix) netip.Addr {
	a := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}

// nodes keeps the nodes that a description can have.
func (s *settle) nodes() {
	s.splitFamilies()
	s.deriveNetworks()
	s.subnets6()
	var kept []Node
	for _, n := range s.Nodes {
		if s.host(&n) {
			s.cards(&n)
			if at := bootCard(n.Cards); at < 0 {
				s.Note(n.Place, "the node %s is not carried over: no address of it is known", n.Name)
				continue
			} else if at > 0 {
				s.Note(n.Place, "the node %s boots from %s, its first card with an address", n.Name, n.Cards[at].Name)
				boot := n.Cards[at]
				n.Cards = slices.Insert(slices.Delete(n.Cards, at, at+1), 0, boot)
			}
			s.forms(&n)
			kept = append(kept, n)
		}
	}
	s.Nodes = kept
}

// bootCard returns the first card that a node can boot from, or else the first one with an address, or -1.
func bootCard(cards []Card) int {
	plain := func(c Card) bool { return c.Address.IsValid() && c.VLAN == 0 && !c.InfiniBand }
	if at := slices.IndexFunc(cards, plain); at >= 0 {
		return at
	}
	return slices.IndexFunc(cards, func(c Card) bool { return c.Address.IsValid() })
}

// forms keeps VLANs and InfiniBand where a description can have them.
func (s *settle) forms(n *Node) {
	taken := map[string]bool{}
	for i := range n.Cards {
		c := &n.Cards[i]
		if c.VLAN == 0 {
			continue
		}
		below := slices.IndexFunc(n.Cards, func(o Card) bool { return o.Name == c.On })
		key := fmt.Sprint(c.On, " ", c.VLAN)
		if i == 0 || below < 0 || below == i || n.Cards[below].VLAN != 0 || n.Cards[below].InfiniBand || taken[key] ||
			c.VLAN < 0 || c.VLAN > 4094 || !c.Address.IsValid() {
			s.Note(c.Place, "card %s of node %s is not carried over as a VLAN: that needs an address, a number, and a "+
				"card that carries it", c.Name, n.Name)
			c.VLAN, c.On, c.InfiniBand = 0, "", len(c.MAC) > 6
			continue
		}
		taken[key], c.MAC = true, nil
	}
	for i := range n.Cards {
		c := &n.Cards[i]
		if c.InfiniBand && (i == 0 || len(c.MAC) == 6) {
			why := "its hardware address is one of Ethernet"
			if i == 0 {
				why = "nodes boot from Ethernet"
			}
			s.Note(c.Place, "card %s of node %s is not carried over as InfiniBand: %s", c.Name, n.Name, why)
			if c.InfiniBand = false; len(c.MAC) != 6 {
				c.MAC = nil
			}
		}
	}
}

// host checks the name of a node. A domain that is the cluster's is cut off.
func (s *settle) host(n *Node) bool {
	if host, domain, found := strings.Cut(n.Name, "."); found {
		if s.Domain == "" && domainName.MatchString(domain) {
			s.Domain = domain
		}
		if domain != s.Domain {
			s.Note(n.Place, "the node %s gets the name %s: its domain is not that of the cluster", n.Name, host)
		}
		n.Name = host
	}
	key := strings.ToLower(n.Name)
	switch {
	case !hostName.MatchString(n.Name):
		s.Note(n.Place, "the node %q is not carried over: it is not a host name", n.Name)
		return false
	case s.hosts[key]:
		s.Note(n.Place, "the node %s is not carried over: the name is already used", n.Name)
		return false
	}
	s.hosts[key] = true
	return true
}

// cards keeps the cards of a node that a description can have, and gives each a name.
func (s *settle) cards(n *Node) {
	var kept []Card
	names := map[string]bool{}
	for _, c := range n.Cards {
		if len(kept) == maxCards {
			s.Note(c.Place, "further cards of node %s are not carried over: there are more than %d", n.Name, maxCards)
			break
		}
		s.cardAddress(n, &c)
		s.cardAddress6(n, &c)
		s.cardMAC(n, &c)
		if !c.Address.IsValid() && !c.Address6.IsValid() && len(c.MAC) == 0 {
			continue
		}
		if !cardName.MatchString(c.Name) || names[c.Name] {
			given := c.Name
			for i := len(kept); given == c.Name || names[c.Name]; i++ {
				c.Name = fmt.Sprintf("eth%d", i)
			}
			if given != "" {
				s.Note(c.Place, "card %q of node %s gets the name %s: its own cannot be used", given, n.Name, c.Name)
			}
		}
		names[c.Name] = true
		named := len(c.MAC) == 0 && infinibandName.MatchString(c.Name)
		c.InfiniBand = c.VLAN == 0 && (c.InfiniBand || named || len(c.MAC) > 6)
		kept = append(kept, c)
	}
	n.Cards = kept
}

func (s *settle) cardAddress(n *Node, c *Card) {
	drop := func(why string) {
		s.Note(c.Place, "the address %s of node %s is not carried over: %s", c.Address, n.Name, why)
		c.Address = netip.Addr{}
	}
	if !c.Address.IsValid() {
		return
	}
	at := slices.IndexFunc(s.Networks, func(k Network) bool { return k.Subnet.Contains(c.Address) })
	switch {
	case s.addresses[c.Address]:
		drop("it is already used")
	case at < 0 || !usable(c.Address, s.Networks[at].Subnet):
		drop("no host of its network can have it")
	default:
		s.addresses[c.Address] = true
	}
}

func (s *settle) cardMAC(n *Node, c *Card) {
	drop := func(why string) {
		s.Note(c.Place, "the hardware address %s of node %s is not carried over: %s", c.MAC, n.Name, why)
		c.MAC = nil
	}
	switch {
	case len(c.MAC) == 0:
	case !slices.Contains([]int{6, 8, 20}, len(c.MAC)):
		drop("it is neither one of Ethernet nor one of InfiniBand")
	case len(c.MAC) == 6 && c.MAC[0]&1 != 0 || slices.Max(c.MAC) == 0:
		drop("it is a multicast address or zero")
	case s.macs[portOf(c.MAC)]:
		drop("it is already used")
	default:
		s.macs[portOf(c.MAC)] = true
	}
}

// portOf returns what is unique of a hardware address: the GUID of an InfiniBand port is in its last eight bytes.
func portOf(mac net.HardwareAddr) string { return string(mac[max(0, len(mac)-8):]) }

// deriveNetworks adds networks for the addresses that are in none: a /24 for each, or one /16 if there are several.
func (s *settle) deriveNetworks() {
	wide := map[netip.Prefix]map[netip.Prefix]bool{}
	var order []netip.Prefix
	for _, n := range s.Nodes {
		for _, c := range n.Cards {
			within := func(k Network) bool { return k.Subnet.Contains(c.Address) }
			if !c.Address.Is4() || slices.ContainsFunc(s.Networks, within) {
				continue
			}
			p16, p24 := netip.PrefixFrom(c.Address, 16).Masked(), netip.PrefixFrom(c.Address, 24).Masked()
			if wide[p16] == nil {
				wide[p16], order = map[netip.Prefix]bool{}, append(order, p16)
			}
			wide[p16][p24] = true
		}
	}
	for _, p16 := range order {
		if len(wide[p16]) > 1 && s.deriveNetwork(p16) {
			continue
		}
		for _, p24 := range slices.SortedFunc(maps.Keys(wide[p16]), netip.Prefix.Compare) {
			s.deriveNetwork(p24)
		}
	}
	slices.SortStableFunc(s.Networks, func(a, b Network) int { return a.Subnet.Addr().Compare(b.Subnet.Addr()) })
}

func (s *settle) deriveNetwork(p netip.Prefix) bool {
	if len(s.Networks) >= MaxNetworks {
		return false
	}
	taken := map[string]int{}
	for _, k := range s.Networks {
		if k.Subnet.Overlaps(p) {
			return false
		}
		taken[k.Name] = 1
	}
	name := unique(fmt.Sprintf("net%d", len(s.Networks)+1), taken)
	s.Networks = append(s.Networks, Network{Name: name, Subnet: p})
	s.Note(Place{}, "the network of the addresses in %s is not in the input: check its subnet, and add its gateway", p)
	return true
}

// server takes from the server an address that a node has.
func (s *settle) server() {
	if s.Server.Address.IsValid() && s.addresses[s.Server.Address] {
		s.Note(s.Server.Place, "the server's address %s is that of a node: another one is used", s.Server.Address)
		s.Server.Address = netip.Addr{}
	}
}

// serverCards returns the addresses of the server by network, the first one first.
func (s *settle) serverCards() (cards []Card, err error) {
	for _, k := range s.Networks {
		boots := slices.ContainsFunc(s.Nodes, func(n Node) bool { return k.Subnet.Contains(n.Cards[0].Address) })
		own := usable(s.Server.Address, k.Subnet)
		if !boots && !own {
			continue
		}
		card := Card{Name: k.Name, Address: s.Server.Address}
		if !own {
			if card.Address = s.free(k); !card.Address.IsValid() {
				return nil, fmt.Errorf("network %s has no address left for the server", k.Subnet)
			}
			s.Note(Place{}, "the address of server %s in network %s is not in the input: %s was chosen",
				s.Server.Name, k.Subnet, card.Address)
		}
		if own {
			cards = slices.Insert(cards, 0, card)
		} else {
			cards = append(cards, card)
		}
	}
	return cards, nil
}

// free returns the last address of a network that nobody is known to have.
func (s *settle) free(k Network) netip.Addr {
	for a := last(k.Subnet); k.Subnet.Contains(a); a = a.Prev() {
		if usable(a, k.Subnet) && !s.addresses[a] && a != k.Gateway && !slices.Contains(k.DNS, a) {
			return a
		}
	}
	return netip.Addr{}
}
