package migrate

import (
	"net/netip"
	"path"
	"slices"
	"strings"

	"dim/internal/cluster/nodeset"
	"dim/internal/migrate/describe"
	"dim/internal/migrate/xcatvalue"
)

// xcatDone makes nodes of all tables.
func (r *reader) xcatDone() {
	x := r.xcats
	if d := x.site["domain"]; d.text != "" {
		r.site.Domain = d.text
	}
	r.xcatNetworks()
	if m := x.site["master"]; m.text != "" {
		r.xcatMaster(m)
	}
	hosts := r.index()
	masters := map[string]bool{}
	for _, name := range x.nodes.order {
		if !x.isNode[name] {
			continue
		}
		n, ok := r.xcatNode(name)
		if !ok {
			continue
		}
		hosts.complete(&n)
		if !masters[n.Image] {
			masters[n.Image] = true
			r.site.Images = append(r.site.Images, r.xcatImage(name, n.Image))
		}
		r.site.Nodes = append(r.site.Nodes, n)
	}
	if len(x.passive) > 0 {
		var names []string
		for _, p := range x.passive {
			names = append(names, p.text)
		}
		r.site.Note(x.passive[0].at, "the nodes %s are not carried over: xCAT boots only what is of type osi, or of "+
			"none, and has a mac, netboot, provmethod or profile", nodeset.Fold(names))
	}
	if len(x.isNode) == 0 {
		r.site.Note(describe.Place{}, "the input has no table nodelist, which has the names of all nodes")
	}
}

// xcatNetworks makes networks of the table networks.
func (r *reader) xcatNetworks() {
	for _, name := range r.xcats.networks.order {
		o := r.xcats.networks.byName[name]
		at := o[""].at
		a, _ := netip.ParseAddr(o["net"].text)
		k, ok := subnet(a, strings.TrimPrefix(o["mask"].text, "/"))
		if !ok {
			r.leave(at, "it is not a subnet", "the network %s", name)
			continue
		}
		n := describe.Network{Name: name, Subnet: k, Place: at}
		n.Gateway, _ = netip.ParseAddr(o["gateway"].text) // <xcatmaster> is none
		n.MTU = wholeNumber(o["mtu"].text)
		dns := o["nameservers"]
		if dns.text == "" {
			dns = r.xcats.site["nameservers"]
		}
		n.DNS = addresses(strings.FieldsFunc(dns.text, isSeparator))
		if d := o["domain"].text; d != "" && r.site.Domain == "" {
			r.site.Domain = d
		}
		r.addNetwork(n)
	}
}

// isSeparator reports whether a character separates the elements of a list in a table.
func isSeparator(c rune) bool { return c == ',' || c == ' ' || c == ';' }

// xcatMaster takes the management node, by its address or its name, for the server.
func (r *reader) xcatMaster(m xcatCell) {
	a, err := netip.ParseAddr(m.text)
	switch {
	case r.site.Server.Address.IsValid():
	case err == nil:
		r.site.Server.Address, r.site.Server.Place = a, m.at
	case r.site.Server.Name == "":
		r.site.Server.Name, _, _ = strings.Cut(m.text, ".")
		r.site.Server.Place = m.at
	}
}

// xcatValue returns an attribute of a node: its own, or that of the first of its groups that has one.
func (r *reader) xcatValue(node, attribute string) xcatCell {
	nodes := r.xcats.nodes.byName
	c := nodes[node][attribute]
	if c.text == "" && attribute != "groups" {
		for group := range strings.SplitSeq(nodes[node]["groups"].text, ",") {
			if c = nodes[strings.TrimSpace(group)][attribute]; c.text != "" {
				break
			}
		}
	}
	return r.xcatExpand(node, attribute, c)
}

// xcatExpand returns what a value is for a node.
func (r *reader) xcatExpand(node, attribute string, c xcatCell) xcatCell {
	text, err := xcatvalue.Expand(c.text, node)
	if err != nil {
		r.site.Note(c.at, "%s %s of node %s is not carried over: %v", attribute, c.text, node, err)
		return xcatCell{at: c.at}
	}
	return xcatCell{text, c.at}
}

// xcatNode makes a node, unless it is an object that does not boot.
func (r *reader) xcatNode(name string) (n describe.Node, ok bool) {
	n = describe.Node{Name: name, Place: r.xcats.nodes.byName[name][""].at}
	get := func(attribute string) string { return r.xcatValue(name, attribute).text }
	kind := get("nodetype")
	if kind != "" && !slices.Contains(strings.Split(kind, ","), "osi") ||
		get("mac")+get("netboot")+get("provmethod")+get("profile") == "" {
		r.xcats.passive = append(r.xcats.passive, xcatCell{name, n.Place})
		return n, false
	}
	for group := range strings.SplitSeq(get("groups"), ",") {
		if group = strings.TrimSpace(group); group != "" {
			n.Groups = append(n.Groups, group)
		}
	}
	n.Image = r.xcatImageName(name)
	args := []string{r.xcats.images.byName[n.Image]["addkcmdline"].text, get("addkcmdline")}
	if port := get("serialport"); port != "" {
		console := "console=tty0 console=ttyS" + port
		if speed := get("serialspeed"); speed != "" {
			console += "," + speed
			if strings.HasPrefix(get("serialflow"), "hard") {
				console += "n8r"
			}
		}
		args = append(args, console)
	}
	n.Append = strings.TrimSpace(strings.Join(args, " "))
	r.xcatCards(&n)
	return n, true
}

// xcatImageName returns the osimage that a node boots, "" if it is not known. A provmethod may be the name of an
// osimage; an older one is netboot, statelite or install, and the name is made of it.
func (r *reader) xcatImageName(node string) string {
	method := r.xcatValue(node, "provmethod").text
	if !slices.Contains([]string{"", "netboot", "statelite", "install", "osimage"}, method) {
		return method
	}
	os, profile := r.xcatValue(node, "os").text, r.xcatValue(node, "profile").text
	if os == "" || profile == "" {
		return ""
	}
	if method == "" || method == "osimage" {
		method = "netboot"
	}
	return strings.Join([]string{os, r.xcatValue(node, "arch").text, method, profile}, "-")
}

// xcatImage makes an image of an osimage. Its root is where genimage puts it.
func (r *reader) xcatImage(node, name string) describe.Image {
	o := r.xcats.images.byName[name]
	value := func(ofImage, ofNode string) string {
		if t := o[ofImage].text; t != "" {
			return t
		}
		return r.xcatValue(node, ofNode).text
	}
	arch := value("osarch", "arch")
	im := describe.Image{Name: name, Arch: goArch(arch)}
	if im.Arch == "" && arch != "" {
		r.leave(o["osarch"].at, "nodes are amd64, arm64 or ppc64le", "the architecture %s of image %s", arch, name)
	}
	if r.xcatInstalls(node, name) {
		r.site.Note(o[""].at, "image %s is one that xCAT installs on disks: make a root of it", name)
		return im
	}
	dir := o["rootimgdir"].text
	if os, profile := value("osvers", "os"), value("profile", "profile"); dir == "" && os != "" && profile != "" {
		dir = path.Join("/install/netboot", os, arch, profile)
	}
	if strings.HasPrefix(dir, "/") {
		im.Master = "dir:" + path.Join(dir, "rootimg")
	}
	return im
}

// xcatInstalls reports whether an image is installed on the disks of nodes.
func (r *reader) xcatInstalls(node, image string) bool {
	method := r.xcats.images.byName[image]["provmethod"].text
	return method == "install" || method == "" && r.xcatValue(node, "provmethod").text == "install"
}

// goArch returns our name of an architecture, "" if there is none.
func goArch(name string) string {
	return map[string]string{
		"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64",
		"ppc64le": "ppc64le", "ppc64el": "ppc64le",
	}[name]
}

// xcatCards adds the cards of a node, the one that boots first.
func (r *reader) xcatCards(n *describe.Node) {
	boot := describe.Card{Place: n.Place}
	for _, attribute := range []string{"installnic", "interface", "primarynic"} {
		name := r.xcatValue(n.Name, attribute).text
		if _, isMAC := parseMAC(name); boot.Name == "" && name != "mac" && !isMAC {
			boot.Name = name
		}
	}
	if c := r.xcatValue(n.Name, "ip"); c.text != "" {
		boot.Place = c.at
		var problem string
		if boot.Address, boot.Address6, problem = xcatAddresses(c.text); problem != "" {
			r.leave(c.at, problem, "an address in %q of node %s", c.text, n.Name)
		}
	}
	cards := []describe.Card{boot}
	r.xcatNICs(n.Name, &cards)
	r.xcatMACs(n.Name, cards[0].Name, &cards)
	n.Cards = cards
}

// xcatAddresses returns the first address of each family in "A|B", and why another one is left out.
func xcatAddresses(text string) (a, a6 netip.Addr, problem string) {
	for part := range strings.SplitSeq(text, "|") {
		next, err := netip.ParseAddr(strings.TrimSpace(part))
		switch {
		case err != nil:
			problem = "it is not one"
		case next.Is6() && !a6.IsValid():
			a6 = next
		case next.Is4() && !a.IsValid():
			a = next
		default:
			problem = "a card has one of IPv4 and one of IPv6"
		}
	}
	return a, a6, problem
}

// addressOf adds an address to the card of that name. The boot card takes one that is its own, or the first one if its
// name or its address is not known.
func addressOf(cards *[]describe.Card, add describe.Card) bool {
	for i := range *cards {
		c := &(*cards)[i]
		if c.Name == add.Name || i == 0 && c.Name == "" && c.Address == add.Address {
			c.Name = add.Name
			if !c.Address6.IsValid() {
				c.Address6 = add.Address6
			}
			switch {
			case !add.Address.IsValid():
				return c.Address6 == add.Address6
			case c.Address.IsValid() && c.Address != add.Address:
				return false
			}
			c.Address, c.Place = add.Address, add.Place
			return true
		}
	}
	if add.Address.IsValid() || add.Address6.IsValid() {
		*cards = append(*cards, add)
	}
	return true
}

// xcatNICs adds the addresses of nicips and otherinterfaces.
func (r *reader) xcatNICs(node string, cards *[]describe.Card) {
	add := func(name, address string, at describe.Place) {
		if isPower(name) {
			r.leave(at, "power is not managed here", "the card %s of node %s", name, node)
			return
		}
		a, a6, problem := xcatAddresses(address)
		if problem != "" {
			r.leave(at, problem, "an address in %q of card %s of node %s", address, name, node)
		}
		if !addressOf(cards, describe.Card{Name: name, Address: a, Address6: a6, Place: at}) {
			r.leave(at, "its card has another one", "the address %s of card %s of node %s", address, name, node)
		}
	}
	types, below := r.xcatPerNIC(node, "nictypes"), r.xcatPerNIC(node, "nicdevices")
	addresses := r.xcatPerNIC(node, "nicips")
	for _, nic := range addresses.order {
		c := addresses.byName[nic]
		kind := strings.ToLower(types.byName[nic].text)
		switch kind {
		case "bmc":
			r.leave(c.at, "power is not managed here", "the card %s of node %s", nic, node)
			continue
		case "", "ethernet", "infiniband", "omnipath", "vlan":
		default:
			r.leave(c.at, "configure it in the master", "the type %s of card %s of node %s", kind, nic, node)
		}
		add(nic, c.text, c.at)
		if i := slices.IndexFunc(*cards, func(k describe.Card) bool { return k.Name == nic }); i >= 0 {
			k := &(*cards)[i]
			if k.InfiniBand = kind == "infiniband"; kind == "vlan" {
				k.On, k.VLAN = vlanOf(nic, below.byName[nic].text, "")
			}
		}
	}
	c := r.xcatValue(node, "otherinterfaces")
	for part := range strings.SplitSeq(c.text, ",") {
		host, address, found := strings.Cut(strings.TrimSpace(part), ":")
		name, ofNode := strings.CutPrefix(strings.TrimPrefix(host, node), "-")
		if found && ofNode {
			add(name, address, c.at)
		} else if part != "" {
			r.leave(c.at, "its name is not that of the node, - and a card", "the interface %s of node %s", host, node)
		}
	}
}

// perNIC is an attribute with a value for each card.
type perNIC struct {
	byName map[string]xcatCell
	order  []string
}

// xcatPerNIC splits "eth1!A,ib0!B". Both the whole and a part may be a regular expression.
func (r *reader) xcatPerNIC(node, attribute string) (p perNIC) {
	p.byName = map[string]xcatCell{}
	c := r.xcatValue(node, attribute)
	for _, part := range splitOutside(c.text) {
		name, value, found := strings.Cut(part, "!")
		if name = strings.TrimSpace(name); !found || name == "" || p.byName[name].text != "" {
			continue
		}
		value = strings.TrimSpace(value)
		if xcatvalue.IsExpression(value) {
			value = r.xcatExpand(node, attribute, xcatCell{value, c.at}).text
		}
		if p.order = append(p.order, name); len(p.order) > maxKeys {
			r.site.Note(c.at, "further cards of node %s are not carried over: there are more than %d", node, maxKeys)
			return p
		}
		p.byName[name] = xcatCell{value, c.at}
	}
	return p
}

// splitOutside splits at commas that are not in parentheses.
func splitOutside(text string) (parts []string) {
	depth, start := 0, 0
	for i := range len(text) {
		switch {
		case text[i] == '(':
			depth++
		case text[i] == ')':
			depth--
		case text[i] == ',' && depth == 0:
			parts, start = append(parts, text[start:i]), i+1
		}
	}
	return append(parts, text[start:])
}

// xcatMACs adds hardware addresses: "MAC|MAC!NAME|…". The first one is that of the card that boots; the name of another
// one is NODE-CARD.
func (r *reader) xcatMACs(node, boot string, cards *[]describe.Card) {
	c := r.xcatValue(node, "mac")
	if c.text == "" {
		return
	}
	for i, part := range strings.Split(c.text, "|") {
		text, name, _ := strings.Cut(part, "!")
		mac, ok := parseMAC(strings.TrimSpace(text))
		card, ofNode := strings.CutPrefix(name, node+"-")
		at := slices.IndexFunc(*cards, func(k describe.Card) bool { return k.Name == card })
		switch {
		case !ok:
			r.leave(c.at, "it is not one", "the hardware address %q of node %s", text, node)
		case i == 0 || name == node:
			at = 0
		case name == "*NOIP*" || name == "":
			r.leave(c.at, "its card has no address and no name", "the hardware address %s of node %s", mac, node)
			continue
		case ofNode && at < 0:
			*cards = append(*cards, describe.Card{Name: card, Place: c.at})
			at = len(*cards) - 1
		case !ofNode:
			r.leave(c.at, "its name is not that of the node, - and a card", "the hardware address %s of %s", mac, name)
			continue
		}
		if !ok || at < 0 {
			continue
		}
		if k := &(*cards)[at]; k.MAC == nil {
			k.MAC = mac
		} else {
			r.leave(c.at, "its card has another one", "the hardware address %s of node %s", mac, node)
		}
	}
}
