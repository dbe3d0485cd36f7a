package migrate

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"dim/internal/migrate/describe"
)

// hostLine is a line of hosts(5): an address and its first name.
type hostLine struct {
	name    string // without the domain
	address netip.Addr
	at      describe.Place
}

// etherLine is a line of ethers(5).
type etherLine struct {
	name string
	card describe.Card
}

// hostsOrEthers reads a file of either kind: a line of ethers begins with a hardware address.
func (r *reader) hostsOrEthers(f File) error {
	n := 0
	for line := range strings.Lines(strings.TrimPrefix(string(f.Data), "\ufeff")) {
		n++
		text, _, _ := strings.Cut(line, "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		mac, isMAC := parseMAC(fields[0])
		address, err := netip.ParseAddr(fields[0])
		switch {
		case len(fields) < 2 || err != nil && !isMAC:
			r.note(n, "the line is not carried over: it has no address and name")
		case err == nil:
			r.hostLine(n, address.Unmap(), fields[1:])
		default:
			name := fields[1]
			if _, err := netip.ParseAddr(name); err != nil {
				name = r.short(name)
			}
			r.ethers = append(r.ethers, etherLine{name, describe.Card{MAC: mac, Place: r.at(n)}})
		}
	}
	return nil
}

func (r *reader) hostLine(n int, a netip.Addr, names []string) {
	if a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
		return
	}
	first := r.short(names[0])
	for _, alias := range names[1:] {
		if r.short(alias) != first {
			r.note(n, "the name %s of %s is not carried over: a card has one name", alias, first)
		}
	}
	r.hosts = append(r.hosts, hostLine{first, a, r.at(n)})
}

// short returns a name without its domain. The first domain becomes that of the cluster.
func (r *reader) short(name string) string {
	host, domain, found := strings.Cut(name, ".")
	switch {
	case !found || domain == r.site.Domain:
		return host
	case r.site.Domain == "":
		r.site.Domain = domain
		return host
	}
	return name
}

var digits = regexp.MustCompile(`[0-9]+`)

// shape returns a name without its numbers.
func shape(name string) string { return digits.ReplaceAllString(name, "#") }

// hostsDone makes nodes of all lines. A host is a node if its hardware address is known, or if its name is like that of
// such a host but for the numbers. NAME-CARD is a card of NAME.
func (r *reader) hostsDone() {
	known, shapes := r.hostNames()
	nodes := map[string]int{}
	for _, h := range r.hosts {
		name, card := splitCard(h.name, known)
		if isPower(card) {
			r.site.Note(h.at, "the host %s is not carried over: power is not managed here", h.name)
			continue
		}
		if card == "" && !shapes[shape(name)] {
			r.otherHost(h)
			continue
		}
		i, ok := nodes[name]
		if !ok {
			i = len(r.site.Nodes)
			nodes[name] = i
			r.site.Nodes = append(r.site.Nodes, describe.Node{Name: name, Place: h.at})
		}
		r.addCard(i, h.card(card))
	}
	r.addEthers(nodes, known)
}

// card makes a card of that name with the address of the line.
func (h *hostLine) card(name string) describe.Card {
	if h.address.Is6() {
		return describe.Card{Name: name, Address6: h.address, Place: h.at}
	}
	return describe.Card{Name: name, Address: h.address, Place: h.at}
}

// hostNames returns the names of hosts, and the shapes of the names of nodes.
func (r *reader) hostNames() (known, shapes map[string]bool) {
	known, shapes = map[string]bool{}, map[string]bool{}
	for _, h := range r.hosts {
		known[h.name] = true
	}
	for _, e := range r.ethers {
		if name, _ := splitCard(e.name, known); known[name] {
			shapes[shape(name)] = true
		}
	}
	if len(r.ethers) > 0 {
		return known, shapes
	}
	for _, h := range r.hosts { // without ethers, names with numbers are nodes
		if name, _ := splitCard(h.name, known); digits.MatchString(name) {
			shapes[shape(name)] = true
		}
	}
	return known, shapes
}

// otherHost is for a host that is not a node. It may be the server.
func (r *reader) otherHost(h hostLine) {
	if h.name == r.site.Server.Name && !r.site.Server.Address.IsValid() && h.address.Is4() {
		r.site.Server.Address, r.site.Server.Place = h.address, h.at
		return
	}
	if h.address == r.site.Server.Address {
		return
	}
	r.site.Note(h.at, "the host %s is not carried over: no node with a hardware address is named like it", h.name)
}

// splitCard splits NAME-CARD if NAME is a host.
func splitCard(name string, known map[string]bool) (host, card string) {
	for i := len(name) - 1; i > 0; i-- {
		if name[i] == '-' && known[name[:i]] && isCard(name[i+1:]) {
			return name[:i], name[i+1:]
		}
	}
	return name, ""
}

var cardPattern = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.]{0,14}$`)

func isCard(text string) bool { return cardPattern.MatchString(text) }

// isPower reports whether the card NAME of a host NAME-CARD is that of its power management, not one of the machine.
func isPower(card string) bool {
	return slices.Contains([]string{"bmc", "ipmi", "ilo", "drac", "idrac", "imm", "xcc", "sp"}, strings.ToLower(card))
}

// addCard adds a card to a node. A second address of one family and card is left out.
func (r *reader) addCard(node int, c describe.Card) {
	const another = "its card has another one"
	n := &r.site.Nodes[node]
	for i := range n.Cards {
		k := &n.Cards[i]
		if k.Name != c.Name {
			continue
		}
		switch {
		case c.Address.IsValid() && k.Address.IsValid():
			r.site.Note(c.Place, "the address %s of node %s is not carried over: %s", c.Address, n.Name, another)
		case c.Address.IsValid():
			k.Address, k.Place = c.Address, c.Place
		case c.Address6.IsValid() && k.Address6.IsValid():
			r.site.Note(c.Place, "the address %s of node %s is not carried over: %s", c.Address6, n.Name, another)
		case c.Address6.IsValid():
			k.Address6 = c.Address6
		case k.MAC != nil:
			r.site.Note(c.Place, "the hardware address %s of node %s is not carried over: %s", c.MAC, n.Name, another)
		default:
			k.MAC = c.MAC
		}
		return
	}
	if c.Name == "" { // the card with the machine's name is the first one
		n.Cards = append([]describe.Card{c}, n.Cards...)
		return
	}
	n.Cards = append(n.Cards, c)
}

// addEthers gives the cards their hardware addresses. Ethers may name a host by its address.
func (r *reader) addEthers(nodes map[string]int, known map[string]bool) {
	byAddress := map[string]string{}
	for _, h := range r.hosts {
		byAddress[h.address.String()] = h.name
	}
	for _, e := range r.ethers {
		if named := byAddress[e.name]; named != "" {
			e.name = named
		}
		name, card := splitCard(e.name, known)
		i, ok := nodes[name]
		if isPower(card) {
			continue // its line of hosts has the note
		}
		if !ok {
			r.site.Note(e.card.Place, "the hardware address of %s is not carried over: no address is known", e.name)
			continue
		}
		e.card.Name = card
		r.addCard(i, e.card)
	}
}

// isHostLine reports whether a line is one of hosts(5) or ethers(5): an address and a name.
func isHostLine(line string) bool {
	f := strings.Fields(line)
	if len(f) < 2 || strings.Contains(f[1], "=") {
		return false
	}
	_, err := netip.ParseAddr(f[0])
	_, isMAC := parseMAC(f[0])
	return err == nil || isMAC
}

// hostIndex is what hosts and ethers say of names, for formats that may leave that to them.
type hostIndex struct {
	addresses map[string]describe.Card
	macs      map[string]describe.Card
}

func (r *reader) index() hostIndex {
	x := hostIndex{map[string]describe.Card{}, map[string]describe.Card{}}
	byAddress := map[string]string{}
	for _, h := range r.hosts {
		c := x.addresses[h.name]
		if a := &c.Address; h.address.Is4() && !a.IsValid() {
			*a, c.Place = h.address, h.at
		}
		if h.address.Is6() && !c.Address6.IsValid() {
			c.Address6 = h.address
		}
		x.addresses[h.name] = c
		byAddress[h.address.String()] = h.name
	}
	for _, e := range r.ethers {
		if named := byAddress[e.name]; named != "" {
			e.name = named
		}
		x.macs[e.name] = e.card
	}
	return x
}

// complete adds to the cards of a node the addresses that they lack. The names of cards but the first are NODE-CARD.
func (x hostIndex) complete(n *describe.Node) {
	if len(n.Cards) == 0 {
		n.Cards = []describe.Card{{Place: n.Place}}
	}
	short, _, _ := strings.Cut(n.Name, ".")
	for i := range n.Cards {
		c, name := &n.Cards[i], short
		if i > 0 {
			name += "-" + c.Name
		}
		if a := x.addresses[name]; !c.Address.IsValid() && a.Address.IsValid() {
			c.Address, c.Place = a.Address, a.Place
		}
		if a := x.addresses[name].Address6; !c.Address6.IsValid() && !c.Address.Is6() {
			c.Address6 = a
		}
		if len(c.MAC) == 0 {
			c.MAC = x.macs[name].MAC
		}
	}
}
