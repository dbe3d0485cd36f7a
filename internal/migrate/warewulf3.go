package migrate

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"dim/internal/migrate/describe"
)

// warewulf3State is what is known of a Warewulf 3 cluster.
type warewulf3State struct {
	nodes   []*warewulf3Node
	byName  map[string]*warewulf3Node
	listed  []*warewulf3Node // by node list, which says less than node print
	chroots map[string]describe.Image
	noted   map[string]bool // keys that have a note
}

// warewulf3Node is the values of a node by their keys, those of cards by "eth0.HWADDR".
type warewulf3Node struct {
	name    string
	at      describe.Place
	values  map[string]string
	places  map[string]describe.Place
	devices []string
}

func newWarewulf3State() *warewulf3State {
	return &warewulf3State{
		byName: map[string]*warewulf3Node{}, chroots: map[string]describe.Image{}, noted: map[string]bool{},
	}
}

// value returns a value, "" if it is not set.
func (n *warewulf3Node) value(key string) string {
	v := strings.Trim(n.values[key], `"`)
	if v == "UNDEF" || v == "ERROR" {
		return ""
	}
	return v
}

var (
	warewulf3Head  = regexp.MustCompile(`^#### (?:([a-z]+) )?(\S+) #+$`)
	warewulf3Value = regexp.MustCompile(`^\s*(?:(\S+):\s+)?([A-Za-z0-9_.-]+)\s+= ?(.*)$`)
)

// warewulf3 reads what wwsh prints: node print, provision print, object print -p :all, node list and vnfs list.
func (r *reader) warewulf3(f File) error {
	var node *warewulf3Node
	list, n := "", 0
	for line := range strings.Lines(strings.TrimPrefix(string(f.Data), "\ufeff")) {
		n++
		line = strings.TrimRight(line, " \t\r\n")
		head := warewulf3Head.FindStringSubmatch(line)
		value := warewulf3Value.FindStringSubmatch(line)
		fields := strings.Fields(line)
		switch {
		case line == "" || strings.Trim(line, "=") == "":
		case head != nil && (head[1] == "" || head[1] == "node"):
			node, list = r.warewulf3Node(head[2], n), ""
		case head != nil:
			node, list = nil, "another type"
		case fields[0] == "NAME" && slices.Contains(fields, "HWADDR"), strings.HasPrefix(line, "VNFS NAME"):
			node, list = nil, fields[0]
		case node != nil && value != nil:
			node.set(strings.TrimPrefix(value[2], "NETDEVS."), value[3], r.at(n))
		case list == "NAME" && len(fields) >= 3:
			r.warewulf3Row(fields, n)
		case list == "VNFS" && len(fields) == 4:
			r.warewulf3Chroot(fields)
		case list == "another type":
		default:
			return fmt.Errorf("read %s:%d: it is not what wwsh node print, provision print, object print -p :all, "+
				"node list or vnfs list prints", f.Name, n)
		}
	}
	return nil
}

func (r *reader) warewulf3Node(name string, line int) *warewulf3Node {
	n := r.warewulf3s.byName[name]
	if n == nil {
		n = newWarewulf3Node(name, r.at(line))
		r.warewulf3s.byName[name] = n
		r.warewulf3s.nodes = append(r.warewulf3s.nodes, n)
	}
	return n
}

func newWarewulf3Node(name string, at describe.Place) *warewulf3Node {
	return &warewulf3Node{name: name, at: at, values: map[string]string{}, places: map[string]describe.Place{}}
}

func (n *warewulf3Node) set(key, value string, at describe.Place) {
	if i := strings.LastIndexByte(key, '.'); i > 0 && len(n.devices) < maxKeys && !slices.Contains(n.devices, key[:i]) {
		n.devices = append(n.devices, key[:i])
	}
	if len(n.values) < 10*maxKeys {
		n.values[key], n.places[key] = value, at
	}
}

// warewulf3Row reads a line of node list, which has no names of cards: NAME, GROUPS, IPADDR, HWADDR.
func (r *reader) warewulf3Row(fields []string, line int) {
	if strings.Contains(fields[0], "...") {
		r.note(line, "the node %s is not carried over: its name is cut off: give wwsh node print, too", fields[0])
		return
	}
	n := newWarewulf3Node(fields[0], r.at(line))
	r.warewulf3s.listed = append(r.warewulf3s.listed, n)
	if !strings.Contains(fields[1], "...") {
		n.set("GROUPS", fields[1], n.at)
	}
	for _, part := range fields[2:] {
		for i, text := range strings.Split(part, ",") {
			key := fmt.Sprintf("eth%d.HWADDR", i)
			if _, err := netip.ParseAddr(text); err == nil {
				key = fmt.Sprintf("eth%d.IPADDR", i)
			}
			n.set(key, text, n.at)
		}
	}
}

// warewulf3Chroot reads a line of vnfs list: name, size, architecture, chroot.
func (r *reader) warewulf3Chroot(fields []string) {
	im := describe.Image{Name: fields[0], Arch: goArch(fields[2])}
	if strings.HasPrefix(fields[3], "/") {
		im.Master = "dir:" + fields[3]
	}
	r.warewulf3s.chroots[im.Name] = im
}

// warewulf3Done makes nodes of what was read.
func (r *reader) warewulf3Done() {
	hosts := r.index()
	for _, n := range r.warewulf3s.listed {
		if known := r.warewulf3s.byName[n.name]; known == nil {
			r.warewulf3s.nodes = append(r.warewulf3s.nodes, n)
		} else if len(known.devices) == 0 { // of provision print
			known.devices = n.devices
			maps.Copy(known.values, n.values)
			maps.Copy(known.places, n.places)
		}
	}
	images := map[string]bool{}
	for _, from := range r.warewulf3s.nodes {
		n := r.warewulf3Settled(from)
		hosts.complete(&n)
		if n.Image != "" && !images[n.Image] {
			images[n.Image] = true
			im := r.warewulf3s.chroots[n.Image]
			im.Name = n.Image
			if im.Arch == "" {
				im.Arch = goArch(from.value("ARCH"))
			}
			r.site.Images = append(r.site.Images, im)
		}
		r.warewulf3LeftOut(from)
		r.site.Nodes = append(r.site.Nodes, n)
	}
}

// warewulf3Settled makes a node of the values of one.
func (r *reader) warewulf3Settled(from *warewulf3Node) describe.Node {
	n := describe.Node{Name: from.name, Place: from.at, Image: from.value("VNFS")}
	if short, domain := from.value("NODENAME"), from.value("DOMAIN"); short != "" {
		n.Name = short
		if r.site.Domain == "" {
			r.site.Domain = domain
		}
	}
	for group := range strings.SplitSeq(from.value("GROUPS"), ",") {
		if group != "" {
			n.Groups = append(n.Groups, group)
		}
	}
	n.Append = from.value("KARGS")
	if console := from.value("CONSOLE"); console != "" {
		n.Append = strings.TrimSpace(n.Append + " console=tty0 console=" + console)
	}
	for _, device := range from.devices {
		if c, ok := r.warewulf3Card(from, device); ok {
			n.Cards = append(n.Cards, c)
		}
	}
	return n
}

func (r *reader) warewulf3Card(n *warewulf3Node, device string) (c describe.Card, ok bool) {
	get := func(key string) (string, describe.Place) {
		return n.value(device + "." + key), n.places[device+"."+key]
	}
	c = describe.Card{Name: device, Place: n.at}
	if text, at := get("HWADDR"); text != "" {
		c.Place = at
		if c.MAC, ok = parseMAC(text); !ok {
			r.leave(at, "it is not one", "the hardware address %q of node %s", text, n.name)
		}
	}
	text, at := get("IPADDR")
	if text == "" {
		return c, c.MAC != nil
	}
	mask, _ := get("NETMASK")
	a, k, inNetwork := addressAndNetwork(text, mask)
	c.Address, c.Place = a, at
	switch {
	case !a.IsValid():
		r.leave(at, "it is not one", "the address %q of node %s", text, n.name)
	case inNetwork:
		network := describe.Network{Subnet: k, Place: at}
		gateway, _ := get("GATEWAY")
		network.Gateway, _ = netip.ParseAddr(gateway)
		mtu, _ := get("MTU")
		network.MTU = wholeNumber(mtu)
		r.addNetwork(network)
	}
	return c, true
}

// warewulf3LeftOut notes what of a node is not carried over, once for each key.
func (r *reader) warewulf3LeftOut(n *warewulf3Node) {
	const file = "write a <file> in <image> for each file, or put it into the master"
	for _, why := range [][2]string{
		{"FILES", file}, {"FILEIDS", file}, {"FS", "nodes have no local disks here"},
		{"BOOTLOADER", "nodes have no local disks here"}, {"BOOTSTRAP", "the kernel is the newest one of the image"},
		{"MASTER", `write servers="…" of <nodes>`}, {"HWPREFIX", "such addresses are made of the card's"},
		{"FQDN", "the name of a card is NODE-CARD"}, {"IPMI_IPADDR", "power is not managed here"},
	} {
		keys := []string{why[0]}
		for _, device := range n.devices {
			keys = append(keys, device+"."+why[0])
		}
		for _, key := range keys {
			if n.value(key) != "" && !r.warewulf3s.noted[why[0]] {
				r.warewulf3s.noted[why[0]] = true
				r.site.Note(n.places[key], "%s of %s is not carried over, nor of others: %s", key, n.name, why[1])
			}
		}
	}
}
