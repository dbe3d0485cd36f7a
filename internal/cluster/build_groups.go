package cluster

import (
	"errors"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"dim/internal/cluster/inventory"
	"dim/internal/cluster/nodeset"
)

// group makes a <group>. Its node set may use the groups above it, which have been made already.
func (b *builder) group(it *item) {
	name, ok := it.get("name")
	g := &Group{Image: b.imageOf(it), Quota: b.quota(it, "group "+name.text)}
	if !ok {
		return
	}
	g.Name = name.text
	if _, taken := b.cluster.index.groups[g.Name]; taken {
		b.add(name.at, "a second group %q", g.Name)
		return
	}
	if set, ok := it.get("nodes"); ok {
		g.Nodes = b.nodeSet(set)
	}
	for _, n := range g.Nodes {
		if g.Image != nil {
			b.groupImage(it, n, g)
		}
		n.Groups = append(n.Groups, g)
	}
	b.cluster.Groups = append(b.cluster.Groups, g)
	b.cluster.index.groups[g.Name] = g
}

// groupImage gives n the image of its group g, or reports that another group has a different one.
func (b *builder) groupImage(it *item, n *Node, g *Group) {
	for _, other := range n.Groups {
		if other.Image != nil && other.Image != g.Image {
			b.add(it.at, "node %s is in group %q with image %q, and in group %q with image %q",
				n.Name, other.Name, other.Image.Name, g.Name, g.Image.Name)
			return
		}
	}
	n.Image = g.Image
}

// nodeSet returns the nodes in a node set, in order of index.
func (b *builder) nodeSet(set value) []*Node {
	if b.budget.members <= 0 {
		b.add(location{set.at.file, 0}, "the node sets of all groups together name too many nodes")
		return nil
	}
	options := b.cluster.nodesetOptions()
	options.Budget = &b.budget.members
	options.Limit = 2 * b.budget.nodes
	hint := func() string { return b.cluster.setHint(set.text) }
	names, err := nodeset.Expand(set.text, options)
	if err != nil {
		var se *nodeset.SyntaxError
		if errors.As(err, &se) {
			b.add(set.at.plus(se.Offset), "node set: %s", se.Reason).advise(hint, "", nil)
		}
		return nil
	}
	var nodes []*Node
	for _, name := range names {
		n, ok := b.cluster.Node(NodeName(name))
		if ok {
			nodes = append(nodes, n)
		} else if !b.nodesIncomplete {
			b.add(set.at, "node %q is not defined", shorten(name)).advise(hint, name, b.cluster.nodeNames())
		}
	}
	slices.SortFunc(nodes, byIndex)
	return nodes
}

// inventory reads a list of hardware addresses.
func (b *builder) inventory(it *item) {
	v, ok := it.get("file")
	if !ok {
		return
	}
	f, ok := b.file(v)
	if !ok {
		return
	}
	rows, problems := inventory.Parse(f.data, func(name string) bool {
		n, _ := b.listedCard(name)
		return n != nil
	})
	for _, p := range problems {
		found := b.add(f.locate(p.Line, p.Column), "%s", p.Message)
		if p.Hint != "" {
			found.withHint("%s", p.Hint)
		}
	}
	b.macs = withRoom(b.macs, len(rows))
	for i := range rows {
		b.inventoryRow(f, &rows[i])
	}
	if len(rows)+len(problems) == 0 {
		b.warnings.add(location{f, 0}, "the inventory is empty: no node has its MAC from it")
	}
}

// listedCard returns the node and the card that an inventory calls by a name: that of the node, with or without the
// cluster's domain, NODE-CARD, or an address. Without a card in the name it is the one from which the node boots.
func (b *builder) listedCard(name string) (*Node, *Interface) {
	if strings.ContainsAny(name, ".:") {
		if a, err := netip.ParseAddr(name); err == nil {
			at := b.cluster.index.addresses[a.Unmap()]
			return at.node, at.card
		}
	}
	for _, name := range []string{name, strings.TrimSuffix(name, "."+b.cluster.Domain)} {
		if n, ok := b.cluster.Node(NodeName(name)); ok && len(n.Interfaces) > 0 {
			return n, n.Boot()
		}
		for i := range len(name) {
			if name[i] != '-' {
				continue
			}
			if n, ok := b.cluster.Node(NodeName(name[:i])); ok && n.Interface(name[i+1:]) != nil {
				return n, n.Interface(name[i+1:])
			}
		}
	}
	return nil, nil
}

// inventoryRow sets the hardware address of one interface.
func (b *builder) inventoryRow(f *file, r *inventory.Row) {
	at := func(x inventory.Field) location { return f.locate(x.Line, x.Column) }
	n, c := b.listedCard(r.Node.Text)
	if n == nil {
		if !b.nodesIncomplete {
			name := r.Node.Text
			b.add(at(r.Node), "node %q is not defined", shorten(name)).suggest(name, b.cluster.nodeNames())
		}
		return
	}
	if card := r.Interface.Text; card != "" {
		if c = n.Interface(card); c == nil {
			b.add(at(r.Interface), "node %s has no interface %q", n.Name, shorten(card)).suggest(card, n.cardNames())
			return
		}
	}
	if c.MAC != nil {
		b.add(at(r.MAC), "node %s: interface %s already has the hardware address %v", n.Name, c.Name, c.MAC)
		return
	}
	if c.MAC = b.mac(at(r.MAC), r.MAC.Text, claim{node: n, at: at(r.MAC)}); c.MAC != nil {
		b.cluster.index.macs[hardwareKey(c.MAC)] = nodeInterface{n, c}
	}
}

// cardNames yields the names of the node's interfaces.
func (n *Node) cardNames() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, c := range n.Interfaces {
			if !yield(c.Name) {
				return
			}
		}
	}
}

// checkNodes reports nodes that cannot boot, and nodes whose names are ambiguous.
func (b *builder) checkNodes() {
	for _, n := range b.cluster.Nodes {
		it := b.origins[n]
		at := it.at
		if n.Image == nil && !it.has("image") { // otherwise the image is not defined, which has been reported
			b.add(at, "node %s has no image, neither its own nor a group's", n.Name)
		}
		if v, _ := it.get("servers"); strings.TrimSpace(v.text) == "" {
			b.add(at, "node %s has no server with the role \"image\"", n.Name)
		}
		b.checkReachable(at, n)
		b.checkHardware(at, n)
		b.warnOfCards(at, n)
		if _, ok := b.cluster.index.groups[string(n.Name)]; ok {
			b.warnings.add(at, "node %s and a group have the same name", n.Name).
				withHint("in node sets %s is the node and @%[1]s the group", n.Name)
		}
		if level, number, ok := splitPosition(string(n.Name)); ok && b.isPosition(level, number) {
			b.add(at, "node %s has the name of a position in the taxonomy, which is ambiguous in node sets", n.Name)
		}
	}
}

// checkReachable reports servers that the node cannot reach while it boots: they are on other networks, and there is no
// router.
func (b *builder) checkReachable(at location, n *Node) {
	if len(n.Interfaces) == 0 || n.Boot().Network == nil || n.Boot().Gateway.IsValid() {
		return
	}
	boot := n.Boot().Network
	for _, s := range n.Servers {
		if !slices.ContainsFunc(s.Interfaces, func(card *Interface) bool { return card.Network == boot }) {
			b.add(at, "node %s cannot reach server %s: it has no card on network %q, which has no gateway",
				n.Name, s.Name, boot.Name).withHint("a node boots from its first <interface>")
		}
	}
}

// isPosition reports whether the taxonomy has that level with that number.
func (b *builder) isPosition(level string, number int) bool {
	return slices.ContainsFunc(b.cluster.Levels, func(l Level) bool {
		return l.Name == level && number >= l.From && number <= l.To
	})
}
