package changes

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dim/internal/cluster"
	"dim/internal/recordmerge"
)

func clusterObject(c *cluster.Cluster) object {
	var levels []string
	for _, l := range c.Levels {
		levels = append(levels, fmt.Sprintf("%s %d-%d", l.Name, l.From, l.To))
	}
	return object{"", []attribute{
		{name: "name", value: c.Name}, {name: "domain", value: c.Domain},
		{name: "taxonomy", value: strings.Join(levels, ", ")}, {name: "quota", value: quota(c.Quota)},
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
		{name: "image", value: image}, {name: "quota", value: own},
		{name: "servers", value: strings.Join(servers, " ")},
		{name: "position", value: strings.Join(position, " ")},
	}, cardAttributes(n.Interfaces)...)}
}

func cardAttributes(cards []*cluster.Interface) []attribute {
	var names, addresses, macs []string
	for _, card := range cards {
		network := ""
		if card.Network != nil {
			network = card.Network.Name
		}
		names = append(names, strings.TrimLeft(card.Name+" on "+network, " "))
		addresses = append(addresses, card.Address.String())
		macs = append(macs, cmp.Or(card.MAC.String(), "none"))
	}
	return []attribute{
		{name: "interfaces", value: strings.Join(names, ", ")},
		{name: "address", value: strings.Join(addresses, " ")},
		{name: "mac", value: strings.Join(macs, " ")},
	}
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
		{name: "master", value: im.Master},
		{name: "arch", value: im.Arch},
		{name: "push", value: fmt.Sprint(im.Push)},
		{name: "exclude", value: texts(im.Exclude)},
		{name: "shared", value: texts(im.Shared)},
		{name: "keep", value: texts(im.Keep)},
		{name: "merge", value: merges(im.Merge)},
		{name: "mounts", value: strings.Join(im.Mounts, " ")},
		{name: "files", value: strings.Join(files, ", ")},
		{name: "templates", value: templates.String(), opaque: true},
		{name: "builtins off", value: strings.Join(disabled, " ")},
		{name: "kernel", value: im.Kernel.Version},
		{name: "kernel arguments", value: im.Kernel.Append},
		{name: "kernel modules", value: strings.Join(im.Kernel.Modules, " ")},
		{name: "saved for", value: im.SavedFor.String()},
		{name: "durability", value: string(im.Durability)},
		{name: "quota", value: quota(im.Quota)},
		{name: "snapshots", value: snapshots(im.Snapshots)},
	}}
}

func serverObject(s *cluster.Server) object {
	roles := make([]string, len(s.Roles))
	for i, r := range s.Roles {
		roles[i] = string(r)
	}
	return object{string(s.Name), append([]attribute{
		{name: "roles", value: strings.Join(roles, " ")},
		{name: "ports", value: fmt.Sprintf("nfs %d, http %d, tftp %d, api %d",
			s.Ports.NFS, s.Ports.HTTP, s.Ports.TFTP, s.Ports.API)},
		{name: "dhcp", value: fmt.Sprint(s.DHCP)},
		{name: "pull-rate", value: fmt.Sprint(s.PullRate)},
	}, cardAttributes(s.Interfaces)...)}
}

func networkObject(n *cluster.Network) object {
	gateway := ""
	if n.Gateway.IsValid() {
		gateway = n.Gateway.String()
	}
	return object{n.Name, []attribute{
		{name: "subnet", value: n.Subnet.String()},
		{name: "gateway", value: gateway},
		{name: "dns", value: texts(n.DNS)},
		{name: "mtu", value: fmt.Sprint(n.MTU)},
		{name: "proxy", value: fmt.Sprint(n.Proxy)},
		{name: "admin", value: fmt.Sprint(n.Admin)},
		{name: "insecure", value: fmt.Sprint(n.Insecure)},
	}}
}

func groupObject(g *cluster.Group) object {
	image := ""
	if g.Image != nil {
		image = string(g.Image.Name)
	}
	return object{g.Name, []attribute{
		{name: "nodes", value: cluster.Fold(g.Nodes)}, {name: "image", value: image},
		{name: "quota", value: quota(g.Quota)},
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
	return fmt.Sprintf("%d bytes, %d files", q.Bytes, q.Files)
}

func snapshots(s *cluster.Snapshots) string {
	if s == nil {
		return ""
	}
	return fmt.Sprintf("%d for %s, copying %d bytes", s.Keep, s.For, s.Copy)
}
