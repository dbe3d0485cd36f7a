package cluster

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"

	"dim/internal/cluster/nodeset"
)

// Select returns the nodes in a node set, each once, in order of index. A set consists of names of nodes, groups
// (@cell; @* for all nodes) and positions in the taxonomy (rack2), in the syntax of package nodeset. Any other name is
// an error.
func (c *Cluster) Select(set string) ([]*Node, error) {
	ix := c.lookups()
	names, err := nodeset.Expand(set, c.nodesetOptions())
	if err != nil {
		return nil, err
	}
	nodes := make([]*Node, 0, len(names))
	for _, name := range names {
		n, ok := ix.nodes[NodeName(name)]
		if !ok {
			err := fmt.Errorf("select nodes %q: node %q is not defined", set, name)
			if hint := suggestion(name, c.nodeNames()); hint != "" {
				err = fmt.Errorf("%w (%s)", err, hint)
			}
			return nil, err
		}
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, byIndex)
	return nodes, nil
}

// Fold returns a short node set for nodes, such as "n[01-04]".
func Fold(nodes []*Node) string { return nodeset.Fold(names(nodes)) }

func byIndex(a, b *Node) int { return cmp.Compare(a.Index, b.Index) }

func names(nodes []*Node) []string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = string(n.Name)
	}
	return names
}

// nodeNames yields the names of all nodes.
func (c *Cluster) nodeNames() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, n := range c.Nodes {
			if !yield(string(n.Name)) {
				return
			}
		}
	}
}

// nodesetOptions returns options by which package nodeset resolves the cluster's groups and positions.
func (c *Cluster) nodesetOptions() nodeset.Options {
	ix := c.lookups()
	return nodeset.Options{
		Group: func(name string) ([]string, error) {
			if name == "*" {
				return names(c.Nodes), nil
			}
			g, ok := ix.groups[name]
			if !ok {
				hint := suggestion(name, maps.Keys(ix.groups))
				if hint != "" {
					hint = "; " + hint
				}
				return nil, fmt.Errorf("group %q is not defined%s", name, hint)
			}
			return names(g.Nodes), nil
		},
		Name: func(name string) ([]string, bool) {
			if _, ok := ix.nodes[NodeName(name)]; ok {
				return nil, false
			}
			level, number, ok := splitPosition(name)
			if !ok {
				return nil, false
			}
			members, ok := ix.byPosition[position{level, number}]
			return names(members), ok
		},
	}
}
