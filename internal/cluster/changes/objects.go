package changes

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/quantity"
	"dim/internal/recordmerge"
)

func clusterObject(c *cluster.Cluster) object {
	var levels []string
	for _, l := range c.Levels {
		levels = append(levels, fmt.Sprintf("%s %d-%d", l.Name, l.From, l.To))
	}
	return object{"", []attribute{
		{name: "name", value: c.Name},
		{name: "domain", effect: control.EffectNow, value: c.Domain},
		{name: "taxonomy", value: strings.Join(levels, ", ")},
		{name: "quota", effect: control.EffectNow, value: quota(c.Quota)},
	}}
}

func nodeObject(n *cluster.Node) object {
	var servers, position []string
	for _, s := range n.Servers {
		servers = append(servers, string(s.Name))
	}
	for _, level := range slices.Sorted(maps.Keys(n.Position)) {
		position = append(position, fmt.Sprintf("%s%d", level, n.Position[level]))
	}
	image, own := "", ""
	if n.Image != nil {
		image = string(n.Image.Name)
		if q := n.Quota(n.Image); q.Of == cluster.QuotaOfNode {
			own = quota(&q)
		}
	}
	return object{string(n.Name), append([]attribute{
		{name: "image", effect: control.EffectBoot, value: image},
		{name: "quota", effect: control.EffectNow, value: own},
		{name: "servers", effect: control.EffectReboot, value: strings.Join(servers, " ")},
		{name: "position", effect: control.EffectNow, value: strings.Join(position, " ")},
		{name: "dns", effect: control.EffectBoot, value: ownDNS(n)},
	}, append(routeAttributes(n.Interfaces), cardAttributes(n.Interfaces, control.EffectReboot)...)...)}
}

// ownDNS returns the name servers of a node that its boot network does not have.
func ownDNS(n *cluster.Node) string {
	if network := n.Boot().Network; network != nil && slices.Equal(n.DNS, network.DNS) {
		return ""
	}
	return texts(n.DNS)
}

// cardAttributes returns the attributes of the cards of a machine. effect is that of another address.
func cardAttributes(cards []*cluster.Interface, effect control.Effect) []attribute {
	var names, addresses, macs []string
	for _, card := range cards {
		names = append(names, form(card))
		if card.Network != nil {
			addresses = append(addresses, address(card.Address))
		}
		if card.VLAN == 0 && card.Bond == "" { // others have the address of a card that they are on
			macs = append(macs, cmp.Or(card.MAC.String(), "none"))
		}
	}
	return []attribute{
		{name: "interfaces", effect: later(effect), value: strings.Join(names, ", ")},
		{name: "address", effect: effect, value: strings.Join(addresses, " ")},
		{name: "mac", effect: later(effect), value: strings.Join(macs, " ")},
	}
}

// routeAttributes returns what the cards of a node have besides. What a card has from its network changes with the
// network.
func routeAttributes(cards []*cluster.Interface) []attribute {
	var addresses6, gateways, gateways6, mtus []string
	for i, card := range cards {
		of := card.Network
		if of == nil {
			of = &cluster.Network{}
		}
		if card.Address6.IsValid() {
			addresses6 = append(addresses6, card.Name+" "+card.Address6.String())
		}
		if i > 0 && card.Gateway.IsValid() || i == 0 && card.Gateway != of.Gateway {
			gateways = append(gateways, card.Name+" "+address(card.Gateway))
		}
		if i > 0 && card.Gateway6.IsValid() || i == 0 && card.Address6.IsValid() && card.Gateway6 != of.Gateway6 {
			gateways6 = append(gateways6, card.Name+" "+address(card.Gateway6))
		}
		if card.MTU != of.MTU {
			mtus = append(mtus, fmt.Sprint(card.Name, " ", card.MTU))
		}
	}
	return []attribute{
		{name: "address6", effect: control.EffectBoot, value: strings.Join(addresses6, ", ")},
		{name: "gateway", effect: control.EffectBoot, value: strings.Join(gateways, ", ")},
		{name: "gateway6", effect: control.EffectBoot, value: strings.Join(gateways6, ", ")},
		{name: "mtu", effect: control.EffectBoot, value: strings.Join(mtus, ", ")},
	}
}

// form says what an interface is: "eth0 on boot", "stor VLAN 902 of eth0 on storage".
func form(card *cluster.Interface) string {
	text := card.Name
	if card.VLAN != 0 {
		text += fmt.Sprint(" VLAN ", card.VLAN)
	}
	if card.Bond != "" {
		text += " bond " + card.Bond
	}
	for i, below := range card.On {
		text += []string{" of ", " "}[min(i, 1)] + below.Name
	}
	if card.Network != nil {
		text += " on " + card.Network.Name
	}
	return strings.TrimLeft(text, " ")
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return "none"
	}
	return a.String()
}

// later is the effect of what a machine keeps until it boots, while another address takes its root at once.
func later(effect control.Effect) control.Effect {
	if effect == control.EffectReboot {
		return control.EffectBoot
	}
	return effect
}

// effectOfWhole returns when it takes effect that objects are added, removed or renamed.
func effectOfWhole(subject string, kind control.ChangeKind) control.Effect {
	switch {
	case subject == "image" && kind == control.Added:
		return control.EffectCapture
	case kind == control.Renamed:
		return control.EffectReboot
	}
	return control.EffectNow
}

func imageObject(im *cluster.Image) object {
	var files []string
	var templates strings.Builder
	for _, f := range im.Files {
		files = append(files, fmt.Sprintf("/%s %04o %d:%d", f.Path, f.Mode, f.UID, f.GID))
		fmt.Fprintf(&templates, "%s\x00%s\x00", f.Path, f.Template)
	}
	disabled := slices.DeleteFunc(slices.Sorted(maps.Keys(im.DisabledBuiltins)), func(name string) bool {
		return !im.DisabledBuiltins[name]
	})
	return object{string(im.Name), []attribute{
		{name: "master", effect: control.EffectCapture, value: im.Master},
		{name: "arch", effect: control.EffectBoot, value: im.Arch},
		{name: "push", effect: control.EffectBoot, value: fmt.Sprint(im.Push)},
		{name: "exclude", effect: control.EffectCapture, value: texts(im.Exclude)},
		{name: "shared", effect: control.EffectNow, value: texts(im.Shared)},
		{name: "keep", effect: control.EffectNow, value: texts(im.Keep)},
		{name: "merge", effect: control.EffectNow, value: merges(im.Merge)},
		{name: "mounts", effect: control.EffectNow, value: strings.Join(im.Mounts, " ")},
		{name: "files", effect: control.EffectNow, value: strings.Join(files, ", ")},
		{name: "templates", effect: control.EffectNow, value: templates.String(), opaque: true},
		{name: "builtins off", effect: control.EffectNow, value: strings.Join(disabled, " ")},
		{name: "kernel", effect: control.EffectBoot, value: im.Kernel.Version},
		{name: "kernel arguments", effect: control.EffectBoot, value: im.Kernel.Append},
		{name: "kernel modules", effect: control.EffectBoot, value: strings.Join(im.Kernel.Modules, " ")},
		{name: "saved for", effect: control.EffectNow, value: im.SavedFor.String()},
		{name: "durability", effect: control.EffectNow, value: string(im.Durability)},
		{name: "quota", effect: control.EffectNow, value: quota(im.Quota)},
		{name: "snapshots", effect: control.EffectNow, value: snapshots(im.Snapshots)},
	}}
}

func serverObject(s *cluster.Server) object {
	roles := make([]string, len(s.Roles))
	for i, r := range s.Roles {
		roles[i] = string(r)
	}
	return object{string(s.Name), append([]attribute{
		{name: "roles", effect: control.EffectRestart, value: strings.Join(roles, " ")},
		{name: "ports", effect: control.EffectRestart, value: fmt.Sprintf("nfs %d, http %d, tftp %d, api %d, etcd %d",
			s.Ports.NFS, s.Ports.HTTP, s.Ports.TFTP, s.Ports.API, s.Ports.Etcd)},
		{name: "dhcp", effect: control.EffectRestart, value: fmt.Sprint(s.DHCP)},
		{name: "pull-rate", effect: control.EffectNow, value: fmt.Sprint(s.PullRate)},
	}, cardAttributes(s.Interfaces, control.EffectRestart)...)}
}

func networkObject(n *cluster.Network) object {
	return object{n.Name, []attribute{
		{name: "subnet", effect: control.EffectReboot, value: n.Subnet.String()},
		{name: "gateway", effect: control.EffectBoot, value: address(n.Gateway)},
		{name: "subnet6", effect: control.EffectBoot, value: subnet6(n)},
		{name: "gateway6", effect: control.EffectBoot, value: address(n.Gateway6)},
		{name: "dns", effect: control.EffectBoot, value: texts(n.DNS)},
		{name: "mtu", effect: control.EffectBoot, value: fmt.Sprint(n.MTU)},
		{name: "proxy", effect: control.EffectNow, value: fmt.Sprint(n.Proxy)},
		{name: "admin", effect: control.EffectNow, value: fmt.Sprint(n.Admin)},
		{name: "insecure", effect: control.EffectNow, value: fmt.Sprint(n.Insecure)},
	}}
}

func subnet6(n *cluster.Network) string {
	if !n.Subnet6.IsValid() {
		return ""
	}
	return n.Subnet6.String()
}

func groupObject(g *cluster.Group) object {
	image := ""
	if g.Image != nil {
		image = string(g.Image.Name)
	}
	return object{g.Name, []attribute{
		{name: "nodes", effect: control.EffectNow, value: cluster.Fold(g.Nodes)}, {name: "image", value: image},
		{name: "quota", effect: control.EffectNow, value: quota(g.Quota)},
	}}
}

func texts[T fmt.Stringer](list []T) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return strings.Join(out, " ")
}

// merges returns what the <merge> elements of an image change of the files that are merged without them.
func merges(files map[string]recordmerge.Format) string {
	all := recordmerge.Builtin()
	for path := range all {
		if files[path] == "" {
			all[path] = "none"
		} else {
			delete(all, path)
		}
	}
	for path, by := range files {
		if recordmerge.Builtin()[path] != by {
			all[path] = by
		}
	}
	var list []string
	for _, path := range slices.Sorted(maps.Keys(all)) {
		list = append(list, fmt.Sprintf("/%s by %s", path, all[path]))
	}
	return strings.Join(list, ", ")
}

func quota(q *cluster.Quota) string {
	if q == nil {
		return ""
	}
	return fmt.Sprintf("%s, %s files", exactSize(q.Bytes), quantity.Count(q.Files))
}

// exactSize returns a number of bytes, in a larger unit if it is a whole number of them: values are compared as they
// are shown, so none may be rounded.
func exactSize(n uint64) string {
	unit := uint64(1)
	for n/1024 >= unit {
		unit <<= 10
	}
	if n%unit == 0 {
		return quantity.Size(n)
	}
	return quantity.Count(n) + " bytes"
}

func snapshots(s *cluster.Snapshots) string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%d for %s, copying %d bytes", s.Keep, s.For, s.Copy)
}
