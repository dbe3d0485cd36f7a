package cluster

import (
	"slices"
	"strconv"
	"strings"
)

// cardPattern is an <interface>, ready to be expanded for each node or server.
type cardPattern struct {
	item                   *item
	name                   string
	network                *Network
	address, mac           pattern // nil: absent, or reported already
	addressValue, macValue value
}

func (b *builder) cardPatterns(it *item, slots []string) []*cardPattern {
	var cards []*cardPattern
	for _, ci := range it.all("interface") {
		cp := &cardPattern{item: ci, network: b.networkNamed(ci)}
		name, _ := ci.get("name")
		cp.name = name.text
		if cp.name != "" && slices.ContainsFunc(cards, func(other *cardPattern) bool { return other.name == cp.name }) {
			b.add(name.at, "a second interface %q", cp.name)
		}
		var ok bool
		if cp.addressValue, ok = ci.get("address"); ok {
			cp.address, _ = b.compile(cp.addressValue, slots)
		}
		if cp.macValue, ok = ci.get("mac"); ok {
			cp.mac, _ = b.compile(cp.macValue, slots)
		}
		cards = append(cards, cp)
	}
	return cards
}

// maker makes the nodes of one <nodes> or <node>.
type maker struct {
	*builder
	item    *item
	levels  []Level // that run, outermost first
	name    value
	named   pattern
	image   *Image
	quota   *Quota
	servers value
	names   []pattern // of the servers
	offsets []int     // of each of them in the attribute
	cards   []*cardPattern
	values  []int64 // of the levels, index and i
}

// nodes makes the nodes of a <nodes> or <node>.
func (b *builder) nodes(it *item) {
	m := &maker{builder: b, item: it, image: b.imageNamed(it), quota: b.quota(it)}
	limit, ok := m.size()
	if !ok {
		b.incomplete = true
		return
	}
	slots := make([]string, 0, len(m.levels)+2)
	for _, l := range m.levels {
		slots = append(slots, l.Name)
		m.values = append(m.values, int64(l.From))
	}
	slots = append(slots, "index", "i")
	m.values = append(m.values, 0, 0)
	if m.name, ok = it.get("name"); ok {
		m.named, ok = b.compile(m.name, slots)
	}
	m.serverPatterns(slots)
	m.cards = b.cardPatterns(it, slots)
	if len(m.cards) > 0 && !m.cards[0].item.has("address") {
		b.add(m.cards[0].item.at, "the first interface has no address: the node boots from it")
	}
	if !ok {
		b.incomplete = true
		return
	}
	for i := range limit {
		m.values[len(m.levels)], m.values[len(m.levels)+1] = int64(len(b.cluster.Nodes)), int64(i+1)
		m.node()
		if !m.next() {
			break
		}
	}
}

// size finds the levels that run and the number of nodes at most.
func (m *maker) size() (limit int, ok bool) {
	free := m.limits.nodes - len(m.cluster.Nodes)
	limit = 1
	var at value
	if m.item.element.name == "node" {
		return limit, m.position()
	}
	count, counted := m.item.get("count")
	each, ranged := m.item.get("each")
	switch {
	case m.item.has("count") == m.item.has("each"):
		m.add(m.item.at, "<nodes> has one of the attributes each and count")
		return 0, false
	case counted:
		at = count
		limit, _ = strconv.Atoi(count.text)
	case ranged:
		at = each
		if !m.run(each) {
			return 0, false
		}
		for _, l := range m.levels {
			limit = min(limit*(l.To-l.From+1), m.limits.nodes+1) // both factors below 1e9: no overflow
		}
	default:
		return 0, false
	}
	if v, ok := m.item.get("limit"); ok {
		n, _ := strconv.Atoi(v.text)
		limit = min(limit, n)
		at = v
	}
	if limit < 1 || limit > free {
		m.add(at.at, "want 1 to %d nodes in all", m.limits.nodes)
		return 0, false
	}
	return limit, true
}

// run chooses the levels that an each attribute names.
func (m *maker) run(each value) bool {
	named := strings.Fields(each.text)
	for i, name := range named {
		if !m.checkLevel(each, name) {
			return false
		}
		if slices.Contains(named[:i], name) {
			m.add(each.at, "level %q is given twice", name)
			return false
		}
	}
	for _, l := range m.cluster.Levels {
		if slices.Contains(named, l.Name) {
			m.levels = append(m.levels, l)
		}
	}
	return true
}

func (m *maker) checkLevel(v value, name string) bool {
	var names []string
	for _, l := range m.cluster.Levels {
		names = append(names, l.Name)
	}
	if slices.Contains(names, name) {
		return true
	}
	m.add(v.at, "level %q is not defined", name).nearest(name, slices.Values(names))
	return false
}

// position reads a <node>'s place: its levels run over one number each.
func (m *maker) position() bool {
	v, ok := m.item.get("position")
	if !ok {
		return !m.item.has("position")
	}
	at := map[string]int{}
	for _, text := range strings.Fields(v.text) {
		name, number, _ := splitPosition(text)
		if !m.checkLevel(v, name) {
			return false
		}
		if _, twice := at[name]; twice {
			m.add(v.at, "level %q is given twice", name)
			return false
		}
		at[name] = number
	}
	for _, l := range m.cluster.Levels {
		number, ok := at[l.Name]
		if !ok {
			continue
		}
		if number < l.From || number > l.To {
			m.add(v.at, "%s%d is outside the level's range, %d to %d", l.Name, number, l.From, l.To)
			return false
		}
		m.levels = append(m.levels, Level{Name: l.Name, From: number, To: number})
	}
	return true
}

// splitPosition takes "rack02" apart.
func splitPosition(text string) (level string, number int, ok bool) {
	n := len(text)
	for n > 0 && text[n-1] >= '0' && text[n-1] <= '9' {
		n--
	}
	number, err := strconv.Atoi(text[n:])
	return text[:n], number, n > 0 && err == nil
}

func (m *maker) serverPatterns(slots []string) {
	var ok bool
	if m.servers, ok = m.item.get("servers"); !ok {
		return
	}
	texts, offsets := fields(m.servers.text)
	for i, text := range texts {
		if len(m.names) == maxServersEach {
			m.add(m.servers.at, "more than %d servers for one node", maxServersEach)
			return
		}
		p, ok := m.compile(value{text: text, at: m.servers.at.plus(offsets[i])}, slots)
		if ok {
			m.names, m.offsets = append(m.names, p), append(m.offsets, offsets[i])
		}
	}
}

// next moves on to the next position in taxonomy order, and reports whether there is one. Without levels only the count ends the nodes.
func (m *maker) next() bool {
	for i := len(m.levels) - 1; i >= 0; i-- {
		if m.values[i]++; m.values[i] <= int64(m.levels[i].To) {
			return true
		}
		m.values[i] = int64(m.levels[i].From)
	}
	return len(m.levels) == 0
}

// node makes the node at the current position.
func (m *maker) node() {
	name, ok := m.expand(m.named, m.name, m.values)
	if !ok {
		m.incomplete = true
		return
	}
	n := &Node{Name: NodeName(name), Index: len(m.cluster.Nodes), Image: m.image}
	if !m.claimHost(name, claim{node: n, at: m.name.at}) {
		m.incomplete = true
		return
	}
	if len(m.levels) > 0 {
		n.Position = make(map[string]int, len(m.levels))
		for i, l := range m.levels {
			n.Position[l.Name] = int(m.values[i])
		}
	}
	m.nodeServers(n)
	for _, cp := range m.cards {
		m.nodeCard(n, cp)
	}
	n.own = m.quota
	m.origins[n] = m.item
	m.cluster.Nodes = append(m.cluster.Nodes, n)
}

func (m *maker) nodeServers(n *Node) {
	n.Servers = make([]*Server, 0, len(m.names))
	for i, p := range m.names {
		v := value{at: m.servers.at.plus(m.offsets[i])}
		name, ok := m.expand(p, v, m.values)
		if !ok {
			continue
		}
		s, ok := m.cluster.Server(ServerName(name))
		switch {
		case m.uncertain && (!ok || !s.Has(RoleImage)):
		case !ok:
			m.add(v.at, "node %s: server %q is not defined", n.Name, shorten(name)).nearest(name, m.serverNames())
		case !s.Has(RoleImage):
			m.add(v.at, "node %s: server %s does not have the role \"image\"", n.Name, s.Name)
		case slices.Contains(n.Servers, s):
			m.add(v.at, "node %s: server %s is named twice", n.Name, s.Name)
		default:
			n.Servers = append(n.Servers, s)
		}
	}
}

func (b *builder) serverNames() func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, s := range b.cluster.Servers {
			if !yield(string(s.Name)) {
				return
			}
		}
	}
}

func (m *maker) nodeCard(n *Node, cp *cardPattern) {
	if m.tooManyCards(cp) {
		return
	}
	card := &Interface{Name: cp.name, Network: cp.network}
	n.Interfaces = append(n.Interfaces, card)
	if cp.mac != nil {
		if text, ok := m.expand(cp.mac, cp.macValue, m.values); ok {
			card.MAC = m.mac(cp.macValue.at, text, claim{node: n, at: cp.macValue.at})
		}
	}
	if cp.address == nil {
		return
	}
	text, ok := m.expand(cp.address, cp.addressValue, m.values)
	if !ok {
		return
	}
	c := claim{node: n, at: cp.addressValue.at}
	a, ok := m.addressIn(c.at, text, cp.network, "node "+string(n.Name))
	if !ok {
		return
	}
	card.Address = a
	if other, taken := m.addresses[a]; taken {
		m.add(c.at, "%v: address %v is taken by %v at %v", c, a, other, other.at)
		return
	}
	if cp.network != nil && a == cp.network.Gateway {
		m.add(c.at, "%v: address %v is the gateway of network %q", c, a, cp.network.Name)
	}
	m.addresses[a] = c
}

// tooManyCards counts a card, and reports whether there are too many.
func (b *builder) tooManyCards(cp *cardPattern) bool {
	if b.limits.cards == 0 {
		b.add(cp.item.at, "too many network cards in all")
		return true
	}
	b.limits.cards--
	return false
}
