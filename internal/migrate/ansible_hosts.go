package migrate

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"dim/internal/migrate/describe"
)

// addressWords, macWords, cardWords and nameWords are the variables that are read: of hosts, and of the elements of
// lists of cards.
func addressWords() []string {
	return []string{
		"ip", "ip4", "ipv4", "ipaddr", "ip_address", "ipv4_address", "address", "ansible_host", "ansible_ssh_host",
	}
}

// address6Words are variables that only IPv6 addresses are in.
func address6Words() []string {
	return []string{"ip6", "ipv6", "ipaddr6", "ip6_address", "ipv6_address", "address6"}
}

func macWords() []string {
	return []string{"mac", "mac_address", "macaddress", "macaddr", "hwaddr", "hwaddress", "pxe_mac"}
}

// maskWords, gatewayWords: of the network of the address.
func maskWords() []string { return []string{"netmask", "prefix"} }

func gatewayWords() []string { return []string{"gateway", "gateway4"} }

func cardWords() []string { return []string{"network_interfaces", "interfaces", "nics"} }

func nameWords() []string { return []string{"interface", "name", "device", "ifname"} }

// ansibleDone makes nodes of the hosts of all inventories.
func (r *reader) ansibleDone() {
	parents := r.ansibleParents()
	r.ansibleNetworks()
	index := r.index()
	for _, name := range r.ansibles.order {
		h := ansibleHost{reader: r, object: r.ansibles.hosts[name], name: name, groups: parents[name]}
		if connection, _ := h.text("ansible_connection"); connection == "local" || name == "localhost" {
			r.leave(h.object.at, "it is this machine", "the host %s", name)
			continue
		}
		n := h.node()
		if index.complete(&n); n.Name == r.site.Server.Name {
			r.otherHost(hostLine{n.Name, n.Cards[0].Address, n.Place})
			continue
		}
		r.site.Nodes = append(r.site.Nodes, n)
	}
	if n := len(r.ansibles.ignored); n > 0 {
		r.site.Note(describe.Place{}, "the other %s not carried over: hosts get them from Ansible as before",
			variables(n))
	}
}

func variables(n int) string {
	if n == 1 {
		return "variable is"
	}
	return fmt.Sprintf("%d variables are", n)
}

// ansibleHost is a host whose variables are looked up.
type ansibleHost struct {
	*reader
	object *ansibleObject
	name   string
	groups []string // the nearest first
}

// lookup returns a variable of the host, or of the nearest of its groups that has it.
func (h *ansibleHost) lookup(key string) (v ansibleValue, ok bool) {
	all := []*ansibleObject{h.object}
	for _, g := range h.groups {
		all = append(all, h.ansibles.groups[g])
	}
	if g := h.ansibles.groups["all"]; g != nil {
		all = append(all, g)
	}
	for _, o := range all {
		if o == nil {
			continue
		}
		if v, ok = o.files[key]; ok {
			return v, true
		}
		if v, ok = o.inline[key]; ok {
			return v, true
		}
	}
	return v, false
}

var template = regexp.MustCompile(`\{\{\s*([A-Za-z_]\w*)\s*\}\}`)

// text returns the first of some variables that is a text, with the templates {{ NAME }} in it filled in.
func (h *ansibleHost) text(keys ...string) (string, describe.Place) {
	for _, key := range keys {
		if v, ok := h.lookup(key); ok && text(v.body) != "" {
			return h.fill(text(v.body), v.at, 0), v.at
		}
	}
	return "", describe.Place{}
}

// fill fills in templates. One that is more than a name remains as it is.
func (h *ansibleHost) fill(t string, at describe.Place, depth int) string {
	if depth > 8 || !strings.Contains(t, "{{") {
		return t
	}
	filled := template.ReplaceAllStringFunc(t, func(part string) string {
		key := template.FindStringSubmatch(part)[1]
		switch v, ok := h.lookup(key); {
		case key == "inventory_hostname":
			return h.name
		case key == "inventory_hostname_short":
			short, _, _ := strings.Cut(h.name, ".")
			return short
		case ok && text(v.body) != "" && len(text(v.body)) < 256:
			return text(v.body)
		}
		return part
	})
	if filled == t || len(filled) > maxVariable {
		return t
	}
	return h.fill(filled, at, depth+1)
}

// node makes a node of the host.
func (h *ansibleHost) node() describe.Node {
	n := describe.Node{Name: h.name, Place: h.object.at}
	for _, g := range h.groups {
		if g != "all" && g != "ungrouped" {
			n.Groups = append(n.Groups, g)
		}
	}
	boot := describe.Card{Place: n.Place}
	for _, key := range addressWords() {
		address, at := h.text(key)
		if address == "" {
			continue
		}
		mask, _ := h.text(maskWords()...)
		a, k, inNetwork := addressAndNetwork(address, mask)
		if !a.IsValid() {
			if strings.Contains(address, "{{") {
				h.leave(at, "the template is more than a name", "%s=%s of %s", key, address, h.name)
			}
			continue // ansible_host may be a name
		}
		if inNetwork && !h.inNetwork(a) {
			network := describe.Network{Subnet: k, Place: at}
			gateway, _ := h.text(gatewayWords()...)
			network.Gateway, _ = netip.ParseAddr(gateway)
			h.addNetwork(network)
		}
		boot.Address, boot.Place = a, at
		break
	}
	if address, at := h.text(address6Words()...); address != "" {
		prefix, _ := h.text("prefix6", "ipv6_prefix")
		gateway, _ := h.text("gateway6")
		boot.Address6 = h.address6(address, prefix, gateway, at)
	}
	if mac, at := h.text(macWords()...); mac != "" {
		var ok bool
		if boot.MAC, ok = parseMAC(mac); !ok {
			h.leave(at, "it is not one", "the hardware address %q of %s", mac, h.name)
		}
	}
	n.Cards = h.cards(boot)
	h.countIgnored(h.object)
	return n
}

// address6 returns an IPv6 address, and adds its subnet if its length is known.
func (h *ansibleHost) address6(address, prefix, gateway string, at describe.Place) netip.Addr {
	a, k, ok := addressAndNetwork(address, prefix)
	if !a.Is6() {
		h.leave(at, "it is not one of IPv6", "the address %q of %s", address, h.name)
		return netip.Addr{}
	}
	if ok {
		n := describe.Network{Subnet: k, Place: at}
		n.Gateway, _ = netip.ParseAddr(gateway)
		h.addNetwork(n)
	}
	return a
}

// inNetwork reports whether an address is in a network that is known already, such as one of the variable networks.
func (h *ansibleHost) inNetwork(a netip.Addr) bool {
	return slices.ContainsFunc(h.site.Networks, func(k describe.Network) bool { return k.Subnet.Contains(a) })
}

// cards adds the cards of the lists of cards to the one that the variables of the host describe, which may be the first
// one of a list.
func (h *ansibleHost) cards(boot describe.Card) []describe.Card {
	var list []describe.Card
	for _, key := range cardWords() {
		v, ok := h.lookup(key)
		if !ok || len(list) > 0 {
			continue
		}
		if v.body.Kind == yaml.SequenceNode {
			for _, e := range v.body.Content[:min(len(v.body.Content), maxKeys)] {
				list = append(list, h.card("", aliased(e), v.at))
			}
			continue
		}
		each(v.body, func(key, e *yaml.Node) {
			if len(list) < maxKeys {
				list = append(list, h.card(key.Value, aliased(e), v.at))
			}
		})
	}
	if len(list) == 0 {
		return []describe.Card{boot}
	}
	at := slices.IndexFunc(list, func(c describe.Card) bool { return c.Address == boot.Address && c.Address.IsValid() })
	if at < 0 {
		at = max(slices.IndexFunc(list, func(c describe.Card) bool { return c.MAC != nil }), 0)
	}
	first := list[at]
	if boot.MAC != nil && first.MAC == nil {
		first.MAC = boot.MAC
	}
	if !first.Address.IsValid() {
		first.Address = boot.Address
	}
	if !first.Address6.IsValid() {
		first.Address6 = boot.Address6
	}
	return slices.Insert(slices.Delete(list, at, at+1), 0, first)
}

// card makes a card of an element of a list of cards.
func (h *ansibleHost) card(name string, body *yaml.Node, at describe.Place) describe.Card {
	get := func(keys []string) string {
		for _, key := range keys {
			if t := text(aliased(value(body, key))); t != "" {
				return h.fill(t, at, 0)
			}
		}
		return ""
	}
	c := describe.Card{Name: name, Place: at}
	if given := get(nameWords()); given != "" {
		c.Name = given
	}
	if t := get(addressWords()); t != "" {
		a, k, inNetwork := addressAndNetwork(t, get(maskWords()))
		if c.Address = a; !a.IsValid() {
			h.leave(at, "it is not one", "the address %q of %s", t, h.name)
		}
		if inNetwork && !h.inNetwork(a) {
			h.addNetwork(describe.Network{Subnet: k, Place: at})
		}
	}
	if t := get(address6Words()); t != "" {
		c.Address6 = h.address6(t, get([]string{"prefix6", "ipv6_prefix"}), get([]string{"gateway6"}), at)
	}
	if t := get(macWords()); t != "" {
		mac, ok := parseMAC(t)
		if c.MAC = mac; !ok {
			h.leave(at, "it is not one", "the hardware address %q of %s", t, h.name)
		}
	}
	return c
}

// countIgnored counts the variables of a host that are not carried over.
func (h *ansibleHost) countIgnored(o *ansibleObject) {
	known := slices.Concat(addressWords(), address6Words(), macWords(), cardWords(), maskWords(), gatewayWords())
	for _, vars := range []map[string]ansibleValue{o.files, o.inline} {
		for key := range vars {
			if len(h.ansibles.ignored) < 1000 && !strings.HasPrefix(key, "ansible_") &&
				!slices.Contains(known, key) {
				h.ansibles.ignored[key] = true
			}
		}
	}
}

// ansibleNetworks reads the variable networks of the group all, as BlueBanquise has it: networks by name, each with a
// subnet, a prefix or a netmask, and a gateway.
func (r *reader) ansibleNetworks() {
	g := r.ansibles.groups["all"]
	if g == nil {
		return
	}
	v, ok := g.files["networks"]
	if !ok {
		v = g.inline["networks"]
	}
	each(v.body, func(key, body *yaml.Node) {
		get := func(keys ...string) string { return text(aliased(value(aliased(body), keys...))) }
		subnet, mask := get("subnet", "cidr"), get("netmask")
		if prefix := get("prefix", "prefix_length"); mask == "" && prefix != "" && !strings.Contains(subnet, "/") {
			subnet += "/" + prefix
		}
		_, k, ok := addressAndNetwork(subnet, mask)
		at := describe.Place{File: v.at.File, Line: key.Line}
		if !ok {
			r.leave(at, "it is not a subnet", "the network %s", key.Value)
			return
		}
		n := describe.Network{Name: key.Value, Subnet: k, Place: at, MTU: wholeNumber(get("mtu"))}
		n.Gateway, _ = netip.ParseAddr(get(gatewayWords()...))
		r.addNetwork(n)
	})
}
