package describe

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/xml"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"dim/internal/cluster"
	"dim/internal/cluster/nodeset"
)

// Result is a description, and what differs from its input.
type Result struct {
	XML       []byte
	Inventory []byte // the file of hardware addresses that XML names; nil: it names none
	Notes     []Note
	Nodes     int // how many there are
	Rules     int // how many <nodes> elements there are
	Ruled     int // how many nodes are in them: the others are <node> elements
}

// Describe writes the description of a site, which it changes. inventory is the name of a file beside the description
// for hardware addresses that follow no rule; if it is "", they are in the elements of their nodes. The result of an
// error has the notes.
func Describe(s *Site, inventory string) (*Result, error) {
	st := newSettle(s)
	if err := st.run(); err != nil {
		return &Result{Notes: s.Notes}, err
	}
	servers, err := st.serverCards()
	if err != nil {
		return &Result{Notes: s.Notes}, err
	}
	w := &writer{settle: st, inventory: inventory}
	w.chooseImages()
	w.chooseBoxes()
	w.printf("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")
	w.printf("<cluster%s>\n", attributes("name", s.Name, "domain", s.Domain))
	w.head(servers)
	w.body()
	w.printf("</cluster>\n")
	r := &Result{XML: w.text.Bytes(), Nodes: len(s.Nodes), Rules: w.rules, Ruled: w.ruled}
	if len(w.macs) > 0 {
		var b bytes.Buffer
		c := csv.NewWriter(&b)
		_ = c.WriteAll(append([][]string{{"node", "interface", "mac"}}, w.macs...)) // a buffer takes everything
		r.Inventory = b.Bytes()
	}
	r.Notes = s.Notes
	return r, w.verify(r)
}

// writer writes a description.
type writer struct {
	*settle
	inventory string
	text      bytes.Buffer
	images    []image
	boxes     []*box
	levels    []string // of the taxonomy, which counts the first box
	macs      [][]string
	rules     int
	ruled     int
}

// image is an image with its kernel arguments.
type image struct {
	name, arch, append, master string
}

func (w *writer) printf(format string, args ...any) { fmt.Fprintf(&w.text, format, args...) }

// attributes writes names and values that are not "".
func attributes(pairs ...string) string {
	var b bytes.Buffer
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		b.WriteString(" " + pairs[i] + `="`)
		_ = xml.EscapeText(&b, []byte(pairs[i+1])) // a buffer takes everything
		b.WriteByte('"')
	}
	return b.String()
}

// chooseImages makes an image for each image and kernel arguments that nodes have, and gives the nodes its name.
func (w *writer) chooseImages() {
	known := map[string]Image{}
	for _, im := range w.Images {
		known[im.Name] = im
	}
	type key struct{ name, append string }
	names, taken := map[key]string{}, map[string]int{}
	for i := range w.Nodes {
		n := &w.Nodes[i]
		n.Append = strings.Join(strings.Fields(badArgument.ReplaceAllString(n.Append, " ")), " ")
		k := key{n.Image, n.Append}
		if names[k] == "" {
			base := word(n.Image, "compute")
			names[k] = unique(base, taken)
			master, arch := known[n.Image].Master, cmp.Or(known[n.Image].Arch, w.Arch, "amd64")
			if master == "" {
				master = "dir:/srv/dim/masters/" + base
				w.Note(Place{}, "the root of image %s is not in the input: put one into %s",
					names[k], strings.TrimPrefix(master, "dir:"))
			}
			if names[k] != base {
				w.Note(n.Place, "image %s is %s with other kernel arguments: they belong to an image", names[k], base)
			}
			w.images = append(w.images, image{names[k], arch, n.Append, master})
		}
		n.Image = names[k]
	}
}

// chooseBoxes finds the rules, and the taxonomy, which counts the largest box.
func (w *writer) chooseBoxes() {
	nodes := make([]*Node, len(w.Nodes))
	for i := range w.Nodes {
		nodes[i] = &w.Nodes[i]
	}
	for _, f := range families(nodes, w.signature) {
		w.boxes = append(w.boxes, f.boxes()...)
	}
	w.boxes = slices.Collect(func(yield func(*box) bool) { w.onlyRuled(yield) })
	slices.SortStableFunc(w.boxes, func(a, b *box) int { return len(b.members) - len(a.members) })
	if b := w.boxes[0]; len(b.members) > 1 {
		w.levels = levelNames(b.family)
	}
}

// onlyRuled splits boxes in which IPv6 addresses follow no rule, or hardware addresses if there is no inventory.
func (w *writer) onlyRuled(yield func(*box) bool) {
	for _, b := range w.boxes {
		terms, _ := b.variables(nil)
		ruled := true
		for i, c := range b.members[0].Cards {
			ruled = ruled && (len(c.MAC) == 0 || w.inventory != "" || b.hardwareAddress(terms, i) != "") &&
				(!c.Address6.IsValid() || b.address6(terms, i) != "")
		}
		if ruled || len(b.members) == 1 {
			yield(b)
			continue
		}
		for _, m := range b.members {
			yield(&box{b.family, []*member{m}, nil})
		}
	}
}

// signature is equal for nodes that one <nodes> element can have.
func (w *writer) signature(n *Node) string {
	var b strings.Builder
	b.WriteString(n.Image)
	for _, c := range n.Cards {
		fmt.Fprintf(&b, " %s %s %t %v", c.Name, w.networkOf(c), w.inventory == "" && len(c.MAC) > 0, c.form())
		if !c.Address.IsValid() {
			b.WriteString(" none")
		}
		if c.Address6.IsValid() {
			b.WriteString(netip.PrefixFrom(c.Address6, 64).Masked().String())
		}
	}
	return b.String()
}

// form returns the attributes of a card that is InfiniBand or a VLAN.
func (c *Card) form() []string {
	switch {
	case c.InfiniBand:
		return []string{"type", "infiniband"}
	case c.VLAN != 0:
		return []string{"vlan", strconv.Itoa(c.VLAN), "on", c.On}
	}
	return nil
}

// networkOf returns the network of a card: one without an address is on the first one.
func (w *writer) networkOf(c Card) string {
	if k := w.network(&c); k != nil {
		return k.Name
	}
	return w.Networks[0].Name
}

// levelNames names the levels that the numbers in a name count, or none if there are none or too many.
func levelNames(f *family) []string {
	switch len(f.widths) {
	case 1:
		return []string{"node"}
	case 2:
		return []string{"rack", "node"}
	case 3:
		return []string{"rack", "chassis", "blade"}
	}
	return nil
}

// head writes everything that stands before the nodes.
func (w *writer) head(servers []Card) {
	for _, k := range w.Networks {
		mtu, subnet6 := "", ""
		if k.v6.Prefix.IsValid() {
			subnet6 = k.v6.Prefix.String()
		}
		if k.MTU > 0 {
			mtu = strconv.Itoa(k.MTU)
		}
		w.printf("  <network%s/>\n", attributes("name", k.Name, "subnet", k.Subnet.String(), "gateway",
			orNone(k.Gateway), "subnet6", subnet6, "gateway6", orNone(k.v6.Gateway),
			"mtu", mtu, "dns", joinAddresses(k.DNS)))
	}
	if len(w.levels) > 0 {
		w.printf("  <taxonomy>\n")
		b := w.boxes[0]
		for d, level := range w.levels {
			from, to := b.members[0].numbers[d], b.members[0].numbers[d]
			for _, m := range b.members {
				to = max(to, m.numbers[d])
			}
			w.printf("    <level%s/>\n", attributes("name", level, "from", fmt.Sprint(from), "to", fmt.Sprint(to)))
		}
		w.printf("  </taxonomy>\n")
	}
	w.printf("  <server%s>\n", attributes("name", w.Server.Name, "roles", "head image"))
	for _, c := range servers {
		w.printf("    <interface%s/>\n", attributes("network", c.Name, "address", c.Address.String()))
	}
	w.printf("  </server>\n")
	for _, im := range w.images {
		w.printf("  <image%s", attributes("name", im.name, "arch", im.arch, "master", im.master))
		if im.append == "" {
			w.printf("/>\n")
			continue
		}
		w.printf(">\n    <kernel%s/>\n  </image>\n", attributes("append", im.append))
	}
}

// orNone returns an address as a text, "" if there is none.
func orNone(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func joinAddresses(list []netip.Addr) string {
	texts := make([]string, len(list))
	for i, a := range list {
		texts[i] = a.String()
	}
	return strings.Join(texts, " ")
}

// body writes the nodes, the groups and the name of the inventory.
func (w *writer) body() {
	for i, b := range w.boxes {
		switch {
		case len(b.members) == 1:
			w.node(b.members[0])
		case i == 0:
			w.nodes(b, w.levels)
		default:
			w.nodes(b, nil)
		}
	}
	w.groups()
	if len(w.macs) > 0 {
		w.printf("  <inventory%s/>\n", attributes("file", w.inventory))
	}
}

// nodes writes a box as one element. levels count it if there are any.
func (w *writer) nodes(b *box, levels []string) {
	w.rules++
	w.ruled += len(b.members)
	terms, names := b.variables(levels)
	pairs := []string{"name", b.name(names)}
	switch {
	case len(levels) == 0:
		pairs = append(pairs, "count", fmt.Sprint(len(b.members)))
	case b.full() || len(levels) == 1:
		pairs = append(pairs, "each", strings.Join(levels, " "))
	default:
		pairs = append(pairs, "each", strings.Join(levels, " "), "limit", fmt.Sprint(len(b.members)))
	}
	pairs = append(pairs, "image", b.members[0].Image, "servers", w.Server.Name)
	w.printf("  <nodes%s>\n", attributes(pairs...))
	for i, c := range b.members[0].Cards {
		pairs := []string{"name", c.Name, "network", w.networkOf(c), "address", "", "mac", b.hardwareAddress(terms, i)}
		if c.Address.IsValid() {
			pairs[5] = b.address(terms, i)
		}
		pairs = append(pairs, "address6", b.address6(terms, i))
		w.printf("    <interface%s/>\n", attributes(append(pairs, c.form()...)...))
		if pairs[7] == "" {
			w.listMACs(b, i)
		}
	}
	w.printf("  </nodes>\n")
}

// listMACs adds the hardware addresses of one card of each member to the inventory.
func (w *writer) listMACs(b *box, card int) {
	for _, m := range b.members {
		if c := m.Cards[card]; len(c.MAC) > 0 {
			w.macs = append(w.macs, []string{m.Name, c.Name, c.MAC.String()})
		}
	}
}

// node writes a node that follows no rule.
func (w *writer) node(m *member) {
	w.printf("  <node%s>\n", attributes("name", m.Name, "image", m.Image, "servers", w.Server.Name))
	for _, c := range m.Cards {
		pairs := []string{"name", c.Name, "network", w.networkOf(c), "address", orNone(c.Address),
			"mac", c.MAC.String(), "address6", orNone(c.Address6)}
		w.printf("    <interface%s/>\n", attributes(append(pairs, c.form()...)...))
	}
	w.printf("  </node>\n")
}

// groups writes the groups of the nodes, by name.
func (w *writer) groups() {
	members := map[string][]string{}
	for _, n := range w.Nodes {
		for _, g := range n.Groups {
			members[g] = append(members[g], n.Name)
		}
	}
	var names []string
	for name := range members {
		names = append(names, name)
	}
	slices.Sort(names)
	taken := map[string]int{}
	for _, name := range names {
		list := members[name]
		slices.Sort(list)
		set := nodeset.Fold(slices.Compact(list))
		given := unique(word(name, "group"), taken)
		if given != name {
			w.Note(Place{}, "the group %q gets the name %s", name, given)
		}
		w.printf("  <group%s/>\n", attributes("name", given, "nodes", set))
	}
}

// verify parses the result and compares it with the site.
func (w *writer) verify(r *Result) error {
	c, err := cluster.Parse(cluster.Source{Name: "cluster.xml", XML: r.XML, Open: func(string) ([]byte, error) {
		return r.Inventory, nil
	}})
	if err != nil {
		return fmt.Errorf("check the description: %w", err)
	}
	if len(c.Nodes) != len(w.Nodes) {
		return fmt.Errorf("compare the description: %d nodes instead of %d", len(c.Nodes), len(w.Nodes))
	}
	for _, want := range w.Nodes {
		got, ok := c.Node(cluster.NodeName(want.Name))
		if !ok || len(got.Interfaces) != len(want.Cards) {
			return fmt.Errorf("compare the description: node %s differs", want.Name)
		}
		for i, card := range want.Cards {
			has := got.Interfaces[i]
			if has.Name != card.Name || has.Address != card.Address || has.VLAN != card.VLAN ||
				has.Address6 != card.Address6 || has.InfiniBand != card.InfiniBand || !bytes.Equal(has.MAC, card.MAC) {
				return fmt.Errorf("compare the description: node %s, card %s differs", want.Name, card.Name)
			}
		}
	}
	return nil
}
