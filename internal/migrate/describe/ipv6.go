package describe

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// splitFamilies makes the addresses of cards that are of IPv6 those beside one of IPv4.
func (s *settle) splitFamilies() {
	for _, n := range s.Nodes {
		for i := range n.Cards {
			c := &n.Cards[i]
			c.Address, c.Address6 = c.Address.Unmap(), c.Address6.Unmap()
			if !c.Address.Is6() {
				continue
			}
			if c.Address6.IsValid() && c.Address6 != c.Address {
				s.Note(c.Place, "the address %s of node %s is not carried over: its card has another one",
					c.Address6, n.Name)
			}
			c.Address, c.Address6 = netip.Addr{}, c.Address
		}
	}
}

// subnets6 gives each network the IPv6 subnet of the cards that are in it: one of the input, or the /64 of an address.
func (s *settle) subnets6() {
	used := map[netip.Prefix]bool{}
	for _, n := range s.Nodes {
		for _, c := range n.Cards {
			at := slices.IndexFunc(s.Networks, func(k Network) bool { return k.Subnet.Contains(c.Address) })
			if at >= 0 && !s.Networks[at].v6.Prefix.IsValid() && plain6(c.Address6) {
				s.Networks[at].v6 = s.subnet6Of(c.Address6, &s.Networks[at])
				used[s.Networks[at].v6.Prefix] = true
			}
		}
	}
	for _, k := range s.Subnets6 {
		if !used[k.Prefix] {
			s.Note(k.Place, "the IPv6 subnet %s is not carried over: no card has an address in it and one of IPv4",
				k.Prefix)
		}
	}
}

// plain6 reports whether a card can be declared with an IPv6 address.
func plain6(a netip.Addr) bool { return a.Is6() && a.Zone() == "" && a.IsGlobalUnicast() }

// subnet6Of returns the subnet of an address, which is to be that of a network; zero if another network has it.
func (s *settle) subnet6Of(a netip.Addr, of *Network) (found Subnet6) {
	for _, k := range s.Subnets6 {
		if k.Prefix.Contains(a) && k.Prefix.Bits() > found.Prefix.Bits() {
			found = k
		}
	}
	derived := !found.Prefix.IsValid()
	if derived {
		found.Prefix = netip.PrefixFrom(a, 64).Masked()
	}
	if slices.ContainsFunc(s.Networks, func(k Network) bool { return k.v6.Prefix.Overlaps(found.Prefix) }) {
		return Subnet6{}
	}
	if derived {
		s.Note(Place{}, "the IPv6 subnet of network %s is not in the input: check %s, and add its gateway6",
			of.Name, found.Prefix)
	}
	if g := found.Gateway; g.IsValid() && (!plain6(g) || !found.Prefix.Contains(g) || g == found.Prefix.Addr()) {
		s.Note(found.Place, "the gateway %s is not carried over: it is not an address of %s", g, found.Prefix)
		found.Gateway = netip.Addr{}
	}
	return found
}

func (s *settle) cardAddress6(n *Node, c *Card) {
	drop := func(why string) {
		s.Note(c.Place, "the address %s of node %s is not carried over: %s", c.Address6, n.Name, why)
		c.Address6 = netip.Addr{}
	}
	if !c.Address6.IsValid() {
		return
	}
	k := s.network(c)
	switch {
	case !plain6(c.Address6):
		drop("it is not one that a card can be declared with")
	case s.addresses[c.Address6]:
		drop("it is already used")
	case k == nil || !k.v6.Prefix.Contains(c.Address6):
		drop("the network of its card does not have its IPv6 subnet")
	case c.Address6 == k.v6.Gateway || c.Address6 == k.v6.Prefix.Addr() && k.v6.Prefix.Bits() < 127:
		drop("it is that of a router")
	default:
		s.addresses[c.Address6] = true
	}
}

// network returns the network of a card, nil if it has no address in any.
func (s *settle) network(c *Card) *Network {
	of := func(p func(*Network) netip.Prefix, a netip.Addr) *Network {
		for i := range s.Networks {
			if p(&s.Networks[i]).Contains(a) {
				return &s.Networks[i]
			}
		}
		return nil
	}
	if k := of(func(k *Network) netip.Prefix { return k.Subnet }, c.Address); k != nil {
		return k
	}
	return of(func(k *Network) netip.Prefix { return k.v6.Prefix }, c.Address6)
}

// hextet returns one of the eight numbers of an address.
func hextet(a netip.Addr, i int) int64 {
	b := a.As16()
	return int64(b[2*i])<<8 | int64(b[2*i+1])
}

// asDecimal reads the digits of a hextet as a decimal number: hosts 9 and 10 are often ::9 and ::10.
func asDecimal(h int64) (n int64, ok bool) {
	n, err := strconv.ParseInt(strconv.FormatInt(h, 16), 10, 64)
	return n, err == nil
}

// setValues sets the values of the addresses of all members.
func (f *family) setValues() {
	f.decimal = true
	for _, m := range f.members {
		for _, c := range m.Cards {
			for i := 4; i < 8 && c.Address6.IsValid(); i++ {
				_, ok := asDecimal(hextet(c.Address6, i))
				f.decimal = f.decimal && ok
			}
		}
	}
	for _, m := range f.members {
		for _, c := range m.Cards {
			m.values = append(m.values, addressValue(c))
		}
		for _, c := range m.Cards {
			m.values = append(m.values, f.value6(c))
		}
	}
}

// value6 returns the last four hextets of an IPv6 address.
func (f *family) value6(c Card) (v int64) {
	for i := 4; i < 8 && c.Address6.IsValid(); i++ {
		h := hextet(c.Address6, i)
		if f.decimal {
			h, _ = asDecimal(h)
		}
		v = v<<16 | h
	}
	return v
}

// address6 returns the pattern of the IPv6 addresses of a card, or "" if they follow no rule, or if it has none.
func (b *box) address6(terms []term, card int) string {
	first := b.members[0].Cards
	if !first[card].Address6.IsValid() {
		return ""
	}
	var parts [8]string
	for i := range parts {
		if parts[i] = fmt.Sprintf("%x", hextet(first[card].Address6, i)); i < 4 {
			continue // the same for all members
		}
		text, constant, ok := b.fit(terms, func(m *member) int64 {
			return m.values[len(first)+card] >> (16 * (7 - i)) & 0xffff
		})
		switch {
		case !ok:
			return ""
		case !constant && b.family.decimal:
			parts[i] = "{" + text + "}"
		case !constant:
			parts[i] = "{" + text + ":x}"
		}
	}
	if text := shorten6(parts[:]); len(text) <= maxPattern {
		return text
	}
	return ""
}

// shorten6 joins hextets, with :: for the longest run of zeros.
func shorten6(parts []string) string {
	from, length := 0, 0
	for i := range parts {
		n := 0
		for i+n < len(parts) && parts[i+n] == "0" {
			n++
		}
		if n > length {
			from, length = i, n
		}
	}
	if length < 2 {
		return strings.Join(parts, ":")
	}
	return strings.Join(parts[:from], ":") + "::" + strings.Join(parts[from+length:], ":")
}
