package changes

import (
	"bytes"
	"maps"
	"slices"

	"dim/internal/cluster"
	"dim/internal/control"
)

// differing returns the nodes of two descriptions without those that are the same in both. Most nodes are, and to make
// the texts of all nodes takes several times as long.
func differing(old, new *cluster.Cluster, renames []control.Rename) (before, after []*cluster.Node) {
	renamed := make(map[cluster.NodeName]bool, 2*len(renames))
	for _, r := range renames {
		renamed[cluster.NodeName(r.From)], renamed[cluster.NodeName(r.To)] = true, true
	}
	same := make(map[cluster.NodeName]bool, len(new.Nodes))
	for _, n := range new.Nodes {
		was, ok := old.Node(n.Name)
		if ok && !renamed[n.Name] && sameNode(was, n) {
			same[n.Name] = true
			continue
		}
		after = append(after, n)
	}
	for _, n := range old.Nodes {
		if !same[n.Name] {
			before = append(before, n)
		}
	}
	return before, after
}

// sameNode reports whether two nodes are surely the same in all that nodeObject has.
func sameNode(a, b *cluster.Node) bool {
	return a.Image != nil && b.Image != nil && a.Image.Name == b.Image.Name &&
		a.Quota(a.Image) == b.Quota(b.Image) && maps.Equal(a.Position, b.Position) && slices.Equal(a.DNS, b.DNS) &&
		slices.EqualFunc(a.Servers, b.Servers, func(s, t *cluster.Server) bool { return s.Name == t.Name }) &&
		slices.EqualFunc(a.Interfaces, b.Interfaces, sameCard)
}

func sameCard(a, b *cluster.Interface) bool {
	return a.Name == b.Name && a.Address == b.Address && a.Address6 == b.Address6 && bytes.Equal(a.MAC, b.MAC) &&
		a.MTU == b.MTU && a.Gateway == b.Gateway && a.Gateway6 == b.Gateway6 && a.InfiniBand == b.InfiniBand &&
		a.VLAN == b.VLAN && a.Bond == b.Bond && sameNetwork(a.Network, b.Network) &&
		slices.EqualFunc(a.On, b.On, func(x, y *cluster.Interface) bool { return x.Name == y.Name })
}

// sameNetwork compares what the attributes of a node depend on.
func sameNetwork(a, b *cluster.Network) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Name == b.Name && a.Gateway == b.Gateway && a.Gateway6 == b.Gateway6 && a.MTU == b.MTU &&
		slices.Equal(a.DNS, b.DNS)
}
