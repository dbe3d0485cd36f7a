package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"dim/internal/cluster/nodeset"
)

// SelectError is the error of Select.
type SelectError struct {
	Message string
	Hint    string // what to write instead, if known
	Syntax  bool   // the text is not a node set; otherwise it names something that is not defined
}

// Error returns the message, with the hint in parentheses.
func (e *SelectError) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + " (" + e.Hint + ")"
}

// errUndefined is the cause of errors about a group that does not exist.
var errUndefined = errors.New("is not defined")

// Select returns the nodes in a node set, each once, in order of index. A set consists of names of nodes, groups
// (@cell; @* for all nodes) and positions in the taxonomy (rack2), in the syntax of package nodeset. Any other name is
// an error. The error is a *SelectError.
func (c *Cluster) Select(set string) ([]*Node, error) {
	ix := c.lookups()
	names, err := nodeset.Expand(set, c.nodesetOptions())
	if err != nil {
		e := &SelectError{Message: err.Error(), Hint: c.setHint(set), Syntax: true}
		var se *nodeset.SyntaxError
		if errors.As(err, &se) && errors.Is(se.Cause, errUndefined) {
			e.Syntax, e.Message = false, fmt.Sprintf("node set %q: %v", shorten(set), se.Cause)
		}
		return nil, e
	}
	nodes := make([]*Node, 0, len(names))
	for _, name := range names {
		n, ok := ix.nodes[NodeName(name)]
		if !ok {
			hint := c.setHint(set)
			if hint == "" {
				hint = suggestion(name, c.nodeNames())
			}
			return nil, &SelectError{Message: "no such node: " + shorten(name), Hint: hint}
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

// groupsHint tells which groups there are instead of the one with this name.
func groupsHint[G any](name string, groups map[string]G) string {
	if len(groups) == 0 {
		return "the description has no <group>; @* is all nodes"
	}
	if hint := suggestion(name, maps.Keys(groups)); hint != "" {
		return hint
	}
	list := "@" + strings.Join(slices.Sorted(maps.Keys(groups)), ", @")
	return "the groups are " + shorten(list)
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
				return nil, fmt.Errorf("group %q %w; %s", name, errUndefined, groupsHint(name, ix.groups))
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
