package migrate

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"dim/internal/migrate/describe"
)

// warewulfState is what is known of a Warewulf cluster before profiles are applied.
type warewulfState struct {
	profiles map[string]entry
	nodes    []entry
}

// entry is one node or profile.
type entry struct {
	name string
	file string
	line int
	body *yaml.Node
}

// warewulf reads nodes.conf or warewulf.conf: the first one has nodes or profiles.
func (r *reader) warewulf(f File) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(f.Data, &doc); err != nil {
		return fmt.Errorf("read %s: %w", f.Name, err)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	if err := bounded(&doc); err != nil {
		return fmt.Errorf("read %s:%w", f.Name, err)
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("read %s:%d: it is not a list of keys and values", f.Name, root.Line)
	}
	nodes, profiles := value(root, "nodes"), value(root, "nodeprofiles")
	if nodes == nil && profiles == nil {
		r.warewulfServer(root)
		return nil
	}
	if r.warewulfs.profiles == nil {
		r.warewulfs.profiles = map[string]entry{}
	}
	each(profiles, func(key, body *yaml.Node) {
		r.warewulfs.profiles[key.Value] = entry{key.Value, f.Name, key.Line, body}
	})
	each(nodes, func(key, body *yaml.Node) {
		r.warewulfs.nodes = append(r.warewulfs.nodes, entry{key.Value, f.Name, key.Line, body})
	})
	return nil
}

// maxKeys is the number of keys that a node, a profile or something in it may have, and of profiles of a node.
const maxKeys = 200

// bounded refuses what would make the work grow faster than the file: aliases, and mappings with very many keys.
func bounded(doc *yaml.Node) error {
	type part struct {
		*yaml.Node
		depth int
	}
	for list := []part{{doc, 0}}; len(list) > 0; {
		n := list[len(list)-1]
		list = list[:len(list)-1]
		switch {
		case n.Kind == yaml.AliasNode:
			return fmt.Errorf("%d: aliases are not read: write the value instead", n.Line)
		case n.depth > 2 && len(n.Content) > 2*maxKeys:
			return fmt.Errorf("%d: more than %d keys or values", n.Line, maxKeys)
		}
		for _, c := range n.Content {
			list = append(list, part{c, n.depth + 1})
		}
	}
	return nil
}

// each calls do with the keys and values of a mapping. Anything else has none.
func each(n *yaml.Node, do func(key, value *yaml.Node)) {
	if n == nil || n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		do(n.Content[i], n.Content[i+1])
	}
}

// value returns the value of a key of a mapping, or nil.
func value(n *yaml.Node, keys ...string) (found *yaml.Node) {
	each(n, func(key, v *yaml.Node) {
		if slices.Contains(keys, key.Value) {
			found = v
		}
	})
	return found
}

// text returns a scalar; anything else is "".
func text(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || n.Value == "UNDEF" || n.Tag == "!!null" {
		return ""
	}
	return n.Value
}

// texts returns the elements of a list, or the only one.
func texts(n *yaml.Node) (list []string) {
	if n == nil || n.Kind != yaml.SequenceNode {
		if t := text(n); t != "" {
			list = strings.Fields(t)
		}
		return list
	}
	for _, e := range n.Content {
		if t := text(e); t != "" {
			list = append(list, t)
		}
	}
	return list
}

// warewulfServer reads warewulf.conf.
func (r *reader) warewulfServer(root *yaml.Node) {
	if at := value(root, "ipaddr"); text(at) != "" {
		address, mask := text(at), text(value(root, "netmask"))
		a, k, ok := addressAndNetwork(address, mask)
		if !ok {
			r.note(at.Line, "the address %s of the server is not carried over: it has no valid network", address)
		} else {
			r.addNetwork(describe.Network{Subnet: k, Place: r.at(at.Line)})
		}
		if !r.site.Server.Address.IsValid() {
			r.site.Server.Address, r.site.Server.Place = a, r.at(at.Line)
		}
	}
	if d := value(root, "dhcp"); value(d, "range start") != nil {
		r.note(value(d, "range start").Line,
			"the range of addresses is not carried over: only declared nodes get addresses")
	}
	if n := value(root, "nfs"); value(n, "export paths", "exports") != nil {
		r.note(value(n, "export paths", "exports").Line,
			"the NFS exports are not carried over: export them as before, and mount them in the master")
	}
}

// addressAndNetwork parses an address with a mask, or with a length such as 10.0.0.1/22.
func addressAndNetwork(address, mask string) (a netip.Addr, k netip.Prefix, ok bool) {
	if p, err := netip.ParsePrefix(address); err == nil {
		return p.Addr(), p.Masked(), true
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Addr{}, k, false
	}
	k, ok = subnet(a, mask)
	return a, k, ok
}

// warewulfDone applies the profiles to the nodes.
func (r *reader) warewulfDone() {
	for _, name := range slices.Sorted(maps.Keys(r.warewulfs.profiles)) {
		p := r.warewulfs.profiles[name]
		r.file = p.file
		r.leftOut(p, "profile")
	}
	images := map[string]bool{}
	for _, e := range r.warewulfs.nodes {
		r.file = e.file
		r.leftOut(e, "node")
		n := r.warewulfNode(e)
		if n.Image != "" && !images[n.Image] {
			images[n.Image] = true
			r.site.Images = append(r.site.Images,
				describe.Image{Name: n.Image, Master: "dir:/var/lib/warewulf/chroots/" + n.Image + "/rootfs"})
		}
		r.site.Nodes = append(r.site.Nodes, n)
	}
}

// bodies returns what applies to a node: its own keys, then those of its profiles, the last one first.
func (r *reader) bodies(e entry) (list []*yaml.Node, groups []string) {
	list = []*yaml.Node{e.body}
	profiles := []string{"default"}
	if p := value(e.body, "profiles"); p != nil {
		profiles = texts(p)
	}
	for _, name := range slices.Backward(profiles) {
		p, ok := r.warewulfs.profiles[name]
		if !ok {
			if name != "default" {
				r.note(e.line, "the profile %s of node %s is not carried over: it is not in the input", name, e.name)
			}
			continue
		}
		list = append(list, p.body)
		if name != "default" {
			groups = append(groups, name)
		}
	}
	return list, groups
}

func (r *reader) warewulfNode(e entry) describe.Node {
	bodies, groups := r.bodies(e)
	n := describe.Node{Name: e.name, Groups: groups, Place: r.at(e.line)}
	devices := map[string][]*yaml.Node{}
	var order []string
	primary := ""
	for _, body := range bodies {
		if n.Image == "" {
			n.Image = text(value(body, "image name", "container name"))
		}
		if n.Append == "" {
			n.Append = strings.Join(texts(value(value(body, "kernel"), "args")), " ")
		}
		if n.Append == "" {
			n.Append = text(value(body, "kernel args"))
		}
		if primary == "" {
			primary = text(value(body, "primary network"))
		}
		each(value(body, "network devices"), func(key, device *yaml.Node) {
			if devices[key.Value] == nil {
				order = append(order, key.Value)
			}
			devices[key.Value] = append(devices[key.Value], device)
		})
	}
	if primary == "" {
		primary = "default"
	}
	slices.SortStableFunc(order, func(a, b string) int {
		switch {
		case a == primary && b != primary:
			return -1
		case b == primary && a != primary:
			return 1
		}
		return 0
	})
	for _, name := range order {
		n.Cards = append(n.Cards, r.warewulfCard(n.Name, devices[name]))
	}
	return n
}

// warewulfCard makes a card of the keys of a network device, those of the node before those of profiles.
func (r *reader) warewulfCard(node string, bodies []*yaml.Node) describe.Card {
	get := func(keys ...string) (found *yaml.Node) {
		for _, body := range bodies {
			if v := value(body, keys...); found == nil && text(v) != "" {
				found = v
			}
		}
		return found
	}
	c := describe.Card{Name: text(get("device")), Place: r.at(bodies[0].Line)}
	c.InfiniBand = strings.EqualFold(text(get("type")), "infiniband")
	if strings.EqualFold(text(get("type")), "vlan") {
		tag := func(key string) (t string) {
			for _, body := range bodies {
				if t == "" {
					t = text(value(value(body, "tags"), key))
				}
			}
			return t
		}
		c.On, c.VLAN = vlanOf(c.Name, tag("parent_device"), tag("vlan_id"))
	}
	if at := get("hwaddr"); at != nil {
		mac, ok := parseMAC(at.Value)
		if !ok {
			r.note(at.Line, "the hardware address %q of node %s is not carried over: it is not one", at.Value, node)
		}
		c.MAC, c.Place = mac, r.at(at.Line)
	}
	c.Address6 = r.warewulfAddress6(node, get)
	at := get("ipaddr")
	if at == nil {
		return c
	}
	a, k, ok := addressAndNetwork(at.Value, text(get("netmask")))
	c.Address, c.Place = a, r.at(at.Line)
	switch {
	case !a.IsValid():
		r.note(at.Line, "the address %q of node %s is not carried over: it is not one", at.Value, node)
	case ok:
		network := describe.Network{Subnet: k, Place: r.at(at.Line)}
		network.Gateway, _ = netip.ParseAddr(text(get("gateway")))
		r.addNetwork(network)
	}
	return c
}

// warewulfAddress6 returns the IPv6 address of a network device, and adds its subnet.
func (r *reader) warewulfAddress6(node string, get func(...string) *yaml.Node) (a netip.Addr) {
	at := get("ipaddr6")
	if at == nil {
		return a
	}
	a, k, ok := addressAndNetwork(at.Value, text(get("prefixlen6")))
	if !a.Is6() {
		r.note(at.Line, "the address %q of node %s is not carried over: it is not one of IPv6", at.Value, node)
		return netip.Addr{}
	}
	if ok {
		network := describe.Network{Subnet: k, Place: r.at(at.Line)}
		network.Gateway, _ = netip.ParseAddr(text(get("gateway6")))
		r.addNetwork(network)
	}
	return a
}

// vlanOf returns the card and the number of a VLAN. A name such as eth0.902 has both.
func vlanOf(name, parent, number string) (on string, vlan int) {
	if first, last, found := strings.Cut(name, "."); found {
		parent, number = cmp.Or(parent, first), cmp.Or(number, last)
	}
	return parent, wholeNumber(number)
}

// carriedTypes reports whether a type of network device is carried over.
func carriedTypes(kind string) bool {
	return slices.Contains([]string{"ethernet", "infiniband", "vlan"}, strings.ToLower(kind))
}

// onlyVLAN reports whether the tags of a network device are those of a VLAN.
func onlyVLAN(tags *yaml.Node) bool {
	only := tags.Kind == yaml.MappingNode
	each(tags, func(key, _ *yaml.Node) { only = only && (key.Value == "vlan_id" || key.Value == "parent_device") })
	return only
}

// leftOut adds notes about the keys of a node or profile that are not carried over.
func (r *reader) leftOut(e entry, kind string) {
	why := warewulfKeys()
	each(e.body, func(key, v *yaml.Node) {
		reason, known := why[key.Value]
		if !known {
			reason = "there is nothing like it here"
		}
		if reason != "" && (v.Kind != yaml.ScalarNode || text(v) != "") {
			r.note(key.Line, "%q of %s %s is not carried over: %s", key.Value, kind, e.name, reason)
		}
	})
	if v := value(value(e.body, "kernel"), "version", "override"); text(v) != "" {
		r.note(v.Line, "the kernel %s of %s %s is not carried over: write version=\"…\" of <kernel>",
			v.Value, kind, e.name)
	}
	each(value(e.body, "network devices"), func(_, device *yaml.Node) {
		each(device, func(key, v *yaml.Node) {
			reason, known := why["device "+key.Value]
			if key.Value == "type" && carriedTypes(text(v)) || key.Value == "tags" && onlyVLAN(v) {
				reason = ""
			}
			if !known {
				reason = "there is nothing like it here"
			}
			if reason != "" && (v.Kind != yaml.ScalarNode || text(v) != "") {
				r.note(key.Line, "%q of %s %s is not carried over: %s", key.Value, kind, e.name, reason)
			}
		})
	})
}

// warewulfKeys are the keys of Warewulf, with the reason why a key is not carried over, or "" if it is.
func warewulfKeys() map[string]string {
	const (
		file  = "write a <file> in <image> for each file of an overlay, or put it into the master"
		power = "power is not managed here"
		disk  = "nodes have no local disks here; mount them in the master's fstab"
		boots = "a node boots the master's own init from the network"
	)
	return map[string]string{
		"comment": "", "profiles": "", "image name": "", "container name": "", "kernel": "", "kernel args": "",
		"network devices": "", "primary network": "", "discoverable": "",
		"cluster name":   "the whole description is one cluster",
		"system overlay": file, "runtime overlay": file, "ipmi": power, "disks": disk, "filesystems": disk,
		"resources": "put what they are for into the master, or into a <file> in <image>",
		"tags":      "templates have no tags; write a <group> for nodes that are alike",
		"keys":      "templates have no keys; write a <group> for nodes that are alike",
		"init":      boots, "root": boots, "ipxe template": boots, "asset key": "there is no such check here",
		"device device": "", "device hwaddr": "", "device ipaddr": "", "device netmask": "", "device gateway": "",
		"device onboot": "", "device primary": "", "device default": "",
		"device mtu":     "write mtu=\"…\" of <network>",
		"device type":    "cards of this type are configured in the master",
		"device tags":    "write gateway=\"…\" or bond=\"…\" of <interface>; a VLAN's tags are carried over",
		"device ipaddr6": "", "device prefixlen6": "", "device gateway6": "",
	}
}
