package cluster

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// foreignWords are what other tools call the attributes and elements of a description, with what to write.
func foreignWords() map[string]string {
	const (
		mac     = `write mac="…" of <interface>`
		address = `write address="…" of <interface>`
		subnet  = `the subnet and its length are in <network subnet="10.77.0.0/24">`
		image   = `write image="…" of <nodes>, <node> or <group>, and an <image> with that name`
		master  = `write master="dir:/PATH" of <image>`
		group   = "write a <group> with a name and nodes"
		file    = `write <file path="…"> in <image>: a template that is rendered for each node`
		kernel  = `write <kernel version="…" append="…"> in <image>`
		host    = "write <node> or <nodes>"
	)
	words := map[string]string{
		"hwaddr": mac, "hwaddress": mac, "macaddr": mac, "macaddress": mac, "hardware": mac, "ethernet": mac,
		"ip": address, "ipaddr": address, "ipaddress": address, "fixed-address": address, "ip4": address,
		"netmask": subnet, "mask": subnet, "prefix": subnet, "cidr": subnet, "broadcast": subnet, "net": subnet,
		"container": image, "osimage": image, "imagename": image, "provmethod": image, "vnfs": image, "profile": image,
		"chroot": master, "rootimgdir": master, "path": master, "source": master,
		"router": `write gateway="…" of <network>`, "dns1": `write dns="…" of <network>`,
		"nameservers": `write dns="…" of <network>`, "nameserver": `write dns="…" of <network>`,
		"tags": group, "groups": group, "profiles": group, "nodegroup": group,
		"overlay": file, "overlays": file, "synclists": file, "postscripts": file, "template": file,
		"kargs": kernel, "kernelargs": kernel, "addkcmdline": kernel, "cmdline": kernel, "kernelversion": kernel,
		"host": host, "hosts": host, "client": host, "compute": host, "machine": host,
		"nic": "write <interface>", "netdev": "write <interface>", "card": "write <interface>",
		"device":  `write name="…" of <interface>`,
		"onboot":  "every interface with an address is configured; the first one boots",
		"primary": "the first <interface> is the one that boots",
		"default": "the first <interface> is the one that boots",
		"bmc":     "power is not managed here; keep this address with your power tool",
		"ipmi":    "power is not managed here; keep this address with your power tool",
		"server":  `write servers="…" of <nodes> or <node>`, "nfsserver": `write servers="…" of <nodes> or <node>`,
		"xcatmaster": `write servers="…" of <nodes> or <node>`,
	}
	maps.Copy(words, foreignCardWords())
	return words
}

// foreignCardWords are those about network cards that are more than a name and an address.
func foreignCardWords() map[string]string {
	const (
		vlan = `write vlan="902" and on="eth0" of <interface>`
		bond = `write bond="active-backup" and on="eth1 eth2" of <interface>`
		kind = `write type="infiniband", vlan="902" or bond="active-backup" of <interface>`
		on   = `write on="eth0" of <interface>: the interfaces that a VLAN or a bond is on`
		ipv6 = `write address6="…" of <interface>, and subnet6="…/64" of <network>`
		nics = "write an <interface> for each card"
		file = `write a <file path="…"> in <image>`
	)
	return map[string]string{
		"vlanid": vlan, "vlantag": vlan, "tag": vlan, "bondmode": bond, "bonding": bond, "team": bond,
		"nictypes": kind, "devtype": kind, "nicdevices": on, "parentdevice": on, "parent": on, "rawdevice": on,
		"vlanrawdevice": on, "slaves": on, "bondslaves": on, "ports": on, "members": on,
		"ip6": ipv6, "ip6addr": ipv6, "ipaddr6": ipv6, "ipv6": ipv6, "ipv6addr": ipv6,
		"prefix6": ipv6, "ipv6prefix": ipv6,
		"gw": `write gateway="…" of <interface> or <network>`, "nicips": nics, "nicnetworks": nics, "nics": nics,
		"nichostnamesuffixes": "the name of a further card is that of the node, with - and the name of the <interface>",
		"nicaliases":          "a second name has no place here: " + file + " for /etc/hosts",
		"niccustomscripts":    file,
		"bridge":              "a bridge has no place here: declare its card without an address, and " + file,
	}
}

// attributeHint is for an attribute that an element does not have: where it belongs, or what it is called here; "" if
// that is not known.
func attributeHint(name, element string) string {
	name = strings.ToLower(name)
	if owners := ownersOf(vocabulary(), name, nil); len(owners) > 0 && len(owners) <= 3 {
		return name + " belongs to " + strings.Join(owners, ", ")
	}
	hint := foreignWords()[strings.NewReplacer("_", "", " ", "").Replace(name)]
	if strings.HasSuffix(hint, "of <"+element+">") { // of this very element
		hint, _, _ = strings.Cut(hint, " of <")
	}
	return hint
}

// ownersOf returns the elements below e, and e itself, that have an attribute, each once: "<network>".
func ownersOf(e *element, attribute string, owners []string) []string {
	tag := "<" + e.name + ">"
	for _, a := range e.attributes {
		if a.name == attribute && !slices.Contains(owners, tag) {
			owners = append(owners, tag)
		}
	}
	for _, c := range e.children {
		owners = ownersOf(c, attribute, owners)
	}
	return owners
}

// elementHint is for an element that another one does not have: where it belongs, or what it is called here.
func elementHint(name string) string {
	if parents := parentsOf(vocabulary(), strings.ToLower(name), nil); len(parents) > 0 && len(parents) <= 4 {
		return fmt.Sprintf("<%s> belongs in %s", strings.ToLower(name), strings.Join(parents, ", "))
	}
	return foreignWords()[strings.ToLower(name)]
}

// parentsOf returns the elements below e, and e itself, that have a child, each once.
func parentsOf(e *element, child string, parents []string) []string {
	tag := "<" + e.name + ">"
	for _, c := range e.children {
		if c.name == child && !slices.Contains(parents, tag) {
			parents = append(parents, tag)
		}
		parents = parentsOf(c, child, parents)
	}
	return parents
}

// notXML tells what a file is that is no XML at all; "" for one that may be.
func notXML(data []byte) string {
	text := bytes.TrimLeft(bytes.TrimPrefix(data, []byte("\ufeff")), " \t\r\n")
	if len(text) == 0 || text[0] == '<' {
		return ""
	}
	for _, magic := range []string{"\x1f\x8b", "\xfd7zXZ", "\x28\xb5\x2f\xfd", "BZh"} {
		if bytes.HasPrefix(text, []byte(magic)) {
			return "a compressed file"
		}
	}
	for _, form := range []struct{ pattern, name string }{
		{`^[{]`, "JSON"},
		{`(?m)^(---|[\w.-]+:(\s|$)|\s*- )`, "YAML, as Warewulf's nodes.conf"},
		{`(?m)^\s*([\w.-]+\s*=|\[[\w. -]+\]\s*$)`, "an INI file"},
		{`(?m)^\s*(host|subnet)\s+\S+.*\{`, "the configuration of a DHCP server"},
		{`(?m)^[^,\n]+,[^,\n]+,`, "a table with commas"},
	} {
		if regexp.MustCompile(form.pattern).Match(text[:min(len(text), 4096)]) {
			return form.name
		}
	}
	return "text"
}
