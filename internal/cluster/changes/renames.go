package changes

import (
	"dim/internal/cluster"
	"dim/internal/control"
)

// Renames returns the nodes that one description has and the next one has under another name, in the order of next. A
// node is known by the hardware address of its boot card. A node that both descriptions have is not renamed, whatever
// its cards are.
func Renames(old, next *cluster.Cluster) []control.Rename {
	gone := map[string]cluster.NodeName{}
	for _, n := range old.Nodes {
		if mac := n.Boot().MAC; mac != nil {
			if _, stays := next.Node(n.Name); !stays {
				gone[string(mac)] = n.Name
			}
		}
	}
	list := []control.Rename{}
	if len(gone) == 0 {
		return list
	}
	for _, n := range next.Nodes {
		from, ok := gone[string(n.Boot().MAC)]
		if _, known := old.Node(n.Name); ok && !known {
			list = append(list, control.Rename{From: string(from), To: string(n.Name)})
		}
	}
	return list
}
