// Package changes compares two cluster descriptions by what they declare, not by their text: which nodes, images,
// servers, networks and groups are added, removed or changed, and in which attributes.
//
// Changes of many nodes in one attribute are one change with a node set. All functions are pure.
//
// # What it must not know
//
// How images are stored: whether an image has a version is for the caller to add.
package changes

import (
	"cmp"
	"slices"

	"dim/internal/cluster"
	"dim/internal/cluster/nodeset"
	"dim/internal/control"
)

// maxValues is how many changes of one attribute are listed with their values, in one kind of object. If there are
// more, such as the addresses of all nodes, they are one change without values.
const maxValues = 4

// Compare returns the changes from one description to another, kind by kind: the cluster itself, nodes, images,
// servers, networks, groups. The list is empty when both declare the same.
func Compare(old, new *cluster.Cluster) []control.DescriptionChange {
	a, b := kinds(old), kinds(new)
	var list []control.DescriptionChange
	for i := range a {
		list = append(list, compare(a[i].subject, a[i].objects, b[i].objects)...)
	}
	return list
}

// kind is all objects of one kind.
type kind struct {
	subject string
	objects []object
}

func kinds(c *cluster.Cluster) []kind {
	return []kind{
		{"cluster", []object{clusterObject(c)}},
		{"node", objects(c.Nodes, nodeObject)},
		{"image", objects(c.Images, imageObject)},
		{"server", objects(c.Servers, serverObject)},
		{"network", objects(c.Networks, networkObject)},
		{"group", objects(c.Groups, groupObject)},
	}
}

// object is one thing that a description declares, as texts that can be compared.
type object struct {
	name       string
	attributes []attribute
}

// attribute is one property. The value of an opaque attribute, such as the text of a template, is not for messages.
type attribute struct {
	name, value string
	opaque      bool
}

func objects[T any](list []T, describe func(T) object) []object {
	out := make([]object, len(list))
	for i, v := range list {
		out[i] = describe(v)
	}
	return out
}

// compare returns the changes of all objects of one kind.
func compare(subject string, old, new []object) []control.DescriptionChange {
	was := make(map[string]object, len(old))
	for _, o := range old {
		was[o.name] = o
	}
	var added, removed []string
	changed := gathered{at: map[control.DescriptionChange]int{}, of: map[string]int{}}
	for _, o := range new {
		before, ok := was[o.name]
		if !ok {
			added = append(added, o.name)
			continue
		}
		delete(was, o.name)
		changed.add(subject, before, o)
	}
	for _, o := range old {
		if _, left := was[o.name]; left {
			removed = append(removed, o.name)
		}
	}
	var list []control.DescriptionChange
	for _, side := range []struct {
		kind  control.ChangeKind
		names []string
	}{{control.Removed, removed}, {control.Added, added}} {
		if len(side.names) > 0 {
			list = append(list, control.DescriptionChange{
				Subject: subject, Kind: side.kind, Names: nodeset.Fold(side.names), Count: len(side.names),
			})
		}
	}
	return append(list, changed.folded()...)
}

// gathered collects changes of attributes. Objects with the same change share one entry.
type gathered struct {
	list []control.DescriptionChange
	sets [][]string                        // the names of each change
	at   map[control.DescriptionChange]int // by the change without names
	of   map[string]int                    // number of changes of an attribute
}

func (c *gathered) add(subject string, before, after object) {
	for i, a := range after.attributes {
		b := before.attributes[i]
		if a.value == b.value {
			continue
		}
		change := control.DescriptionChange{Subject: subject, Kind: control.Changed, Attribute: a.name}
		if !a.opaque {
			change.From, change.To = b.value, a.value
		}
		at, ok := c.at[change]
		if !ok {
			at = len(c.list)
			c.at[change] = at
			c.list, c.sets = append(c.list, change), append(c.sets, nil)
			c.of[a.name]++
		}
		c.sets[at] = append(c.sets[at], after.name)
	}
}

// folded returns the changes with their names, those of most objects first.
func (c *gathered) folded() []control.DescriptionChange {
	many := map[string][]string{}
	var list []control.DescriptionChange
	for i, change := range c.list {
		if c.of[change.Attribute] > maxValues {
			many[change.Attribute] = append(many[change.Attribute], c.sets[i]...)
			continue
		}
		change.Names, change.Count = nodeset.Fold(c.sets[i]), len(c.sets[i])
		list = append(list, change)
	}
	for name, names := range many {
		list = append(list, control.DescriptionChange{
			Subject: c.list[0].Subject, Kind: control.Changed, Attribute: name, Names: nodeset.Fold(names),
			Count: len(names),
		})
	}
	slices.SortFunc(list, func(a, b control.DescriptionChange) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Attribute, b.Attribute),
			cmp.Compare(a.Names, b.Names))
	})
	return list
}
