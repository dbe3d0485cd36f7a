package follow

import (
	"fmt"
	"maps"

	"dim/internal/cluster"
	"dim/internal/coord"
)

// LayerAt returns the server that has the layer of a node. It is not the server that the description names first when
// the description has given the node to another server, and the layer has stayed.
func (d *Declared) LayerAt(n *cluster.Node) cluster.ServerName {
	if s, ok := d.State.Layers[string(n.Name)]; ok {
		return cluster.ServerName(s)
	}
	if here, ok := d.Cluster.Node(n.Name); ok {
		return here.Server().Name
	}
	return n.Server().Name
}

// Serves reports whether a server serves the root of n: the description names it first, and it has the node's layer.
func (d *Declared) Serves(server cluster.ServerName, n *cluster.Node) bool {
	return n.Server().Name == server && d.LayerAt(n) == server
}

// Stranded returns why no server serves n, and what to do; "" if one does.
func (d *Declared) Stranded(n *cluster.Node) (why, hint string) {
	server, at := n.Server().Name, d.LayerAt(n)
	switch {
	case server == at:
		return "", ""
	case d.leaves(n):
		return fmt.Sprintf("%s serves it as soon as %s has confirmed that it no longer does", server, at),
			fmt.Sprintf("start %s; if it is gone for good, remove it from the description", at)
	}
	return fmt.Sprintf("no server serves it: the description gives it to %s, and its layer is on %s", server, at),
		fmt.Sprintf("name %s first in its servers again; or let it start on %s without its layer: "+
			"dim cluster apply FILE --leave-layers", at, server)
}

// leaves reports whether a person has said that n goes to its server without its layer.
func (d *Declared) leaves(n *cluster.Node) bool {
	return d.State.Leaving[string(n.Name)] == string(n.Server().Name)
}

// Left returns the nodes of the description next whose layers would stay on another server than the one that it gives
// them to, unless a person has said that they may. That has to be said again when next no longer has the other server,
// which nobody can ask then to let the nodes go.
func (d *Declared) Left(next *cluster.Cluster) (list []*cluster.Node) {
	for _, n := range next.Nodes {
		at := d.LayerAt(n)
		if _, known := next.Server(at); at != n.Server().Name && (!known || !d.leaves(n)) {
			list = append(list, n)
		}
	}
	return list
}

// Claim returns the decision that notes which servers have the layers of the nodes of c, where that is not noted yet.
// It is made before another description takes the place of c: from then on no server that does not have the layer of a
// node serves it.
func Claim(c *cluster.Cluster) func(coord.State) (coord.Change, error) {
	return func(s coord.State) (change coord.Change, err error) {
		change.Layers = coord.Holders{}
		for _, n := range c.Nodes {
			if _, known := s.Layers[string(n.Name)]; !known {
				change.Layers[string(n.Name)] = string(n.Server().Name)
			}
		}
		return change, nil
	}
}

// Replace returns the decision that is made together with putting next in place of before: it notes which servers have
// the layers of the nodes, as Claim, and lets the nodes of leaving go to their servers without their layers. What was
// decided so for an earlier description, and does not fit next, ends.
func Replace(
	before, next *cluster.Cluster, leaving []*cluster.Node,
) func(coord.State) (coord.Change, error) {
	return func(s coord.State) (change coord.Change, err error) {
		if before != nil && s.Description != nil {
			if change, err = Claim(before)(s); err != nil {
				return change, err
			}
		}
		change.Leaving = coord.Holders{}
		for name, server := range s.Leaving {
			if n, ok := next.Node(cluster.NodeName(name)); !ok || string(n.Server().Name) != server {
				change.Leaving[name] = ""
			}
		}
		for _, n := range leaving {
			change.Leaving[string(n.Name)] = string(n.Server().Name)
		}
		return change, nil
	}
}

// Release returns the decision that the nodes that go to other servers without their layers have arrived: those whose
// former server has let them go, of which gone tells.
func (d *Declared) Release(gone func(cluster.ServerName) bool) func(coord.State) (coord.Change, error) {
	arrived := coord.Holders{}
	for name, server := range d.State.Leaving {
		n, ok := d.Cluster.Node(cluster.NodeName(name))
		if ok && string(n.Server().Name) == server && gone(d.LayerAt(n)) {
			arrived[name] = server
		}
	}
	return func(s coord.State) (change coord.Change, err error) {
		if s.Description == nil || s.Description.Digest != d.Digest {
			return change, nil
		}
		change.Layers, change.Leaving = maps.Clone(arrived), coord.Holders{}
		for name, server := range arrived {
			if s.Leaving[name] != server || s.Layers[name] != d.State.Layers[name] {
				delete(change.Layers, name)
				continue
			}
			change.Leaving[name] = ""
		}
		return change, nil
	}
}
