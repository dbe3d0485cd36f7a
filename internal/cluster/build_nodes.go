package cluster

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// nodeBuilder makes the nodes of one <nodes> or <node>.
type nodeBuilder struct {
	*builder
	item           *item
	levels         []Level // those to run over, outermost first
	nameValue      value
	namePattern    pattern
	image          *Image
	quota          *Quota
	serversValue   value
	serverPatterns []pattern // of the names of the servers
	serverOffsets  []int     // of each of them in serversValue
	cards          []*cardPattern
	dns            []netip.Addr
	values         []int64 // of the variables: the levels, index and i
}

// nodes makes the nodes of a <nodes> or <node>.
func (b *builder) nodes(it *item) {
	nb := &nodeBuilder{builder: b, item: it, image: b.imageOf(it), quota: b.quota(it, QuotaOfNode), dns: b.dns(it)}
	limit, ok := nb.choose()
	if !ok {
		b.nodesIncomplete = true
		return
	}
	variables := make([]string, 0, len(nb.levels)+2)
	for _, l := range nb.levels {
		variables = append(variables, l.Name)
		nb.values = append(nb.values, int64(l.From))
	}
	variables = append(variables, "index", "i")
	nb.values = append(nb.values, 0, 0)
	if nb.nameValue, ok = it.get("name"); ok {
		nb.namePattern, ok = b.compile(nb.nameValue, variables)
	}
	nb.compileServers(variables)
	nb.cards = b.cardPatterns(it, variables)
	b.checkForms(nb.cards)
	if !ok {
		b.nodesIncomplete = true
		return
	}
	b.hosts = withRoom(b.hosts, limit)
	b.addresses = withRoom(b.addresses, min(limit*len(nb.cards), b.budget.cards))
	for i := range limit {
		nb.values[len(nb.levels)], nb.values[len(nb.levels)+1] = int64(len(b.cluster.Nodes)), int64(i+1)
		nb.node()
		if !nb.advance() {
			break
		}
	}
}

// withRoom returns m with room for n more entries. A map that grows entry by entry is copied again and again.
func withRoom[K comparable, V any](m map[K]V, n int) map[K]V {
	if n <= len(m) {
		return m
	}
	larger := make(map[K]V, len(m)+n)
	maps.Copy(larger, m)
	return larger
}

// choose sets the levels to run over and returns the largest possible number of nodes. It is not ok if the attributes
// make no sense, which it reports.
func (nb *nodeBuilder) choose() (limit int, ok bool) {
	free := nb.budget.nodes - len(nb.cluster.Nodes)
	limit = 1
	var at value
	if nb.item.element.name == "node" {
		return limit, nb.position()
	}
	count, counted := nb.item.get("count")
	each, ranged := nb.item.get("each")
	switch {
	case nb.item.has("count") == nb.item.has("each"):
		nb.add(nb.item.at, "<nodes> needs exactly one of the attributes each and count")
		return 0, false
	case counted:
		at = count
		limit, _ = strconv.Atoi(count.text)
	case ranged:
		at = each
		if !nb.chooseLevels(each) {
			return 0, false
		}
		for _, l := range nb.levels {
			limit = min(limit*(l.To-l.From+1), nb.budget.nodes+1) // both factors below 1e9: no overflow
		}
	default:
		return 0, false
	}
	if v, ok := nb.item.get("limit"); ok {
		n, _ := strconv.Atoi(v.text)
		limit = min(limit, n)
		at = v
	}
	if limit < 1 || limit > free {
		nb.add(at.at, "must be 1 to %d nodes in all", nb.budget.nodes)
		return 0, false
	}
	return limit, true
}

// chooseLevels sets the levels that an attribute each names.
func (nb *nodeBuilder) chooseLevels(each value) bool {
	named := strings.Fields(each.text)
	for i, name := range named {
		if !nb.checkLevel(each, name) {
			return false
		}
		if slices.Contains(named[:i], name) {
			nb.add(each.at, "level %q is given twice", name)
			return false
		}
	}
	for _, l := range nb.cluster.Levels {
		if slices.Contains(named, l.Name) {
			nb.levels = append(nb.levels, l)
		}
	}
	return true
}

// checkLevel reports a level that is not defined.
func (nb *nodeBuilder) checkLevel(v value, name string) bool {
	var names []string
	for _, l := range nb.cluster.Levels {
		names = append(names, l.Name)
	}
	if slices.Contains(names, name) {
		return true
	}
	nb.add(v.at, "level %q is not defined", name).suggest(name, slices.Values(names))
	return false
}

// position parses the position of a <node>. Each of its levels runs over one number.
func (nb *nodeBuilder) position() bool {
	v, ok := nb.item.get("position")
	if !ok {
		return !nb.item.has("position")
	}
	at := map[string]int{}
	for _, text := range strings.Fields(v.text) {
		name, number, _ := splitPosition(text)
		if !nb.checkLevel(v, name) {
			return false
		}
		if _, twice := at[name]; twice {
			nb.add(v.at, "level %q is given twice", name)
			return false
		}
		at[name] = number
	}
	for _, l := range nb.cluster.Levels {
		number, ok := at[l.Name]
		if !ok {
			continue
		}
		if number < l.From || number > l.To {
			nb.add(v.at, "%s%d is outside the level's range, %d to %d", l.Name, number, l.From, l.To)
			return false
		}
		nb.levels = append(nb.levels, Level{Name: l.Name, From: number, To: number})
	}
	return true
}

// splitPosition splits "rack02" into "rack" and 2.
func splitPosition(text string) (level string, number int, ok bool) {
	n := len(text)
	for n > 0 && text[n-1] >= '0' && text[n-1] <= '9' {
		n--
	}
	number, err := strconv.Atoi(text[n:])
	return text[:n], number, n > 0 && err == nil
}

// compileServers parses the attribute servers.
func (nb *nodeBuilder) compileServers(variables []string) {
	var ok bool
	if nb.serversValue, ok = nb.item.get("servers"); !ok {
		return
	}
	texts, offsets := fields(nb.serversValue.text)
	for i, text := range texts {
		if len(nb.serverPatterns) == maxServersEach {
			nb.add(nb.serversValue.at, "more than %d servers for one node", maxServersEach)
			return
		}
		p, ok := nb.compile(value{text: text, at: nb.serversValue.at.plus(offsets[i])}, variables)
		if ok {
			nb.serverPatterns, nb.serverOffsets = append(nb.serverPatterns, p), append(nb.serverOffsets, offsets[i])
		}
	}
}

// advance moves on to the next position in taxonomy order and reports whether there is one. Without levels there always
// is: the number of nodes ends the loop.
func (nb *nodeBuilder) advance() bool {
	for i := len(nb.levels) - 1; i >= 0; i-- {
		if nb.values[i]++; nb.values[i] <= int64(nb.levels[i].To) {
			return true
		}
		nb.values[i] = int64(nb.levels[i].From)
	}
	return len(nb.levels) == 0
}

// node makes the node at the current position.
func (nb *nodeBuilder) node() {
	name, ok := nb.expand(nb.namePattern, nb.nameValue, nb.values)
	if !ok {
		nb.nodesIncomplete = true
		return
	}
	n := &Node{Name: NodeName(name), Index: len(nb.cluster.Nodes), Image: nb.image}
	if !nb.claimHost(name, claim{node: n, at: nb.nameValue.at}) {
		nb.nodesIncomplete = true
		return
	}
	if len(nb.levels) > 0 {
		n.Position = make(map[string]int, len(nb.levels))
		for i, l := range nb.levels {
			n.Position[l.Name] = int(nb.values[i])
		}
	}
	nb.nodeServers(n)
	n.Interfaces = slices.Grow(n.Interfaces, min(len(nb.cards), nb.budget.cards))
	for _, cp := range nb.cards {
		nb.nodeCard(n, cp)
	}
	n.stack(nb.cards)
	n.quota, n.DNS = nb.quota, nb.dns
	if len(n.DNS) == 0 && len(n.Interfaces) > 0 && n.Boot().Network != nil {
		n.DNS = n.Boot().Network.DNS
	}
	nb.origins[n] = nb.item
	nb.cluster.Nodes = append(nb.cluster.Nodes, n)
}

// nodeServers sets the servers of n.
func (nb *nodeBuilder) nodeServers(n *Node) {
	n.Servers = make([]*Server, 0, len(nb.serverPatterns))
	for i, p := range nb.serverPatterns {
		v := value{at: nb.serversValue.at.plus(nb.serverOffsets[i])}
		name, ok := nb.expand(p, v, nb.values)
		if !ok {
			continue
		}
		s, ok := nb.cluster.Server(ServerName(name))
		switch {
		case nb.serversIncomplete && (!ok || !s.Has(RoleImage)):
		case !ok:
			nb.add(v.at, "node %s: server %q is not defined", n.Name, shorten(name)).suggest(name, nb.serverNames())
		case !s.Has(RoleImage):
			nb.add(v.at, "node %s: server %s does not have the role \"image\"", n.Name, s.Name)
		case slices.Contains(n.Servers, s):
			nb.add(v.at, "node %s: server %s is listed twice", n.Name, s.Name)
		default:
			n.Servers = append(n.Servers, s)
		}
	}
}

// serverNames yields the names of all servers.
func (b *builder) serverNames() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, s := range b.cluster.Servers {
			if !yield(string(s.Name)) {
				return
			}
		}
	}
}
