package follow

import (
	"fmt"
	"maps"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/image"
)

// layerAt returns the server that has the layer of a node. It is not the server that the description names first when
// the description has given the node to another server, and the layer has stayed.
func (d *Declared) layerAt(n *cluster.Node) cluster.ServerName {
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
	return n.Server().Name == server && d.layerAt(n) == server
}

// Stranded returns why no server serves n, and what to do; "" if one does.
func (d *Declared) Stranded(n *cluster.Node) (why, hint string) {
	server, at := n.Server().Name, d.layerAt(n)
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
// which nobody can ask then to let the nodes go. renames are the nodes that next has under another name.
func (d *Declared) Left(next *cluster.Cluster, renames []control.Rename) (list []Left) {
	before := make(map[cluster.NodeName]*cluster.Node, len(renames))
	for _, r := range renames {
		before[cluster.NodeName(r.To)], _ = d.Cluster.Node(cluster.NodeName(r.From))
	}
	for _, n := range next.Nodes {
		at := d.layerAt(n)
		if old := before[n.Name]; old != nil {
			at = d.layerAt(old)
		}
		if _, known := next.Server(at); at != n.Server().Name && (!known || !d.leaves(n)) {
			list = append(list, Left{n, at})
		}
	}
	return list
}

// Left is a node whose layer is on the server At, which is not its server.
type Left struct {
	Node *cluster.Node
	At   cluster.ServerName
}

// claims returns the decision that notes which servers have the layers of the nodes of c, where that is not noted yet.
// It is made before another description takes the place of c: from then on no server that does not have the layer of a
// node serves it.
func claims(c *cluster.Cluster) func(coord.State) (coord.Change, error) {
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

// Replacement is what is decided when a description takes the place of another one.
type Replacement struct {
	Before, Next *cluster.Cluster
	Leaving      []Left           // nodes that go to their servers without their layers
	Renames      []control.Rename // nodes that Next has under another name
	ID           string           // of the change, among all; needed with Renames
}

// Decide is the decision that is made together with putting Next in place of Before. It notes which servers have the
// layers of the nodes, as claims. What was decided for an earlier description, and does not fit Next, ends. The error
// is a control.Error: a change of a name that is not complete would be lost.
func (r *Replacement) Decide(s coord.State) (change coord.Change, err error) {
	if s.Description != nil {
		if change, err = claims(r.Before)(s); err != nil {
			return change, err
		}
	}
	change.Leaving = coord.Holders{}
	for name, server := range s.Leaving {
		if n, ok := r.Next.Node(cluster.NodeName(name)); !ok || string(n.Server().Name) != server {
			change.Leaving[name] = ""
		}
	}
	for _, l := range r.Leaving {
		change.Leaving[string(l.Node.Name)] = string(l.Node.Server().Name)
	}
	for to, p := range s.Renaming {
		_, again := r.Next.Node(cluster.NodeName(p.From))
		if _, stays := r.Next.Node(cluster.NodeName(to)); again || !stays {
			return change, control.Errorf(control.Busy, "node %s is still being renamed to %s", p.From, to).
				WithHint(fmt.Sprintf("server %s has to do it first: try again when it runs", s.Layers[to]))
		}
	}
	r.rename(s, &change)
	return change, nil
}

// rename lets what is declared for nodes follow their new names.
func (r *Replacement) rename(s coord.State, change *coord.Change) {
	if len(r.Renames) == 0 {
		return
	}
	layers := change.Onto(s).Layers
	if change.Layers == nil {
		change.Layers = coord.Holders{}
	}
	change.Desired, change.Next, change.Renaming = coord.Refs{}, coord.Refs{}, map[string]coord.Renaming{}
	for _, n := range r.Renames {
		change.Layers[n.To], change.Layers[n.From] = layers[n.From], ""
		change.Desired[n.To], change.Desired[n.From] = s.Desired[n.From], image.Ref{}
		change.Next[n.To], change.Next[n.From] = s.Next[n.From], image.Ref{}
		change.Renaming[n.To] = coord.Renaming{From: n.From, ID: r.ID}
	}
}

// Renamed returns the decision that the changes of names are complete of which done tells, by the server that has the
// layers of the nodes.
func (d *Declared) Renamed(done func(cluster.ServerName) bool) func(coord.State) (coord.Change, error) {
	complete := map[string]coord.Renaming{}
	for to, p := range d.State.Renaming {
		if done(cluster.ServerName(d.State.Layers[to])) {
			complete[to] = p
		}
	}
	return func(s coord.State) (change coord.Change, err error) {
		change.Renaming = map[string]coord.Renaming{}
		for to, p := range complete {
			if s.Renaming[to] == p {
				change.Renaming[to] = coord.Renaming{}
			}
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
		if ok && string(n.Server().Name) == server && gone(d.layerAt(n)) {
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
