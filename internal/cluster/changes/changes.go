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
// servers, networks, groups. The list is empty when both declare the same. renames are the nodes of old that have
// another name in new, see Renames.
func Compare(old, new *cluster.Cluster, renames []control.Rename) []control.DescriptionChange {
	before := make(map[string]string, len(renames))
	for _, r := range renames {
		before[r.To] = r.From
	}
	nodes, newNodes := differing(old, new, renames)
	a, b := kinds(old, nodes), kinds(new, newNodes)
	var list []control.DescriptionChange
	for i := range a {
		c := comparison{subject: a[i].subject, old: a[i].objects, new: b[i].objects}
		if c.subject == subjectNode {
			c.before = before
		}
		list = append(list, c.changes()...)
	}
	return list
}

// kind is all objects of one kind.
type kind struct {
	subject string
	objects []object
}

const subjectNode = "node"

// kinds returns the objects of c, of its nodes those of a list.
func kinds(c *cluster.Cluster, nodes []*cluster.Node) []kind {
	return []kind{
		{"cluster", []object{clusterObject(c)}},
		{subjectNode, objects(nodes, nodeObject)},
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
	effect      control.Effect
	opaque      bool
}

func objects[T any](list []T, describe func(T) object) []object {
	out := make([]object, len(list))
	for i, v := range list {
		out[i] = describe(v)
	}
	return out
}

// comparison compares all objects of one kind.
type comparison struct {
	subject  string
	old, new []object
	before   map[string]string // names in old of those that have another one in new
}

func (c *comparison) changes() []control.DescriptionChange {
	was := make(map[string]object, len(c.old))
	for _, o := range c.old {
		was[o.name] = o
	}
	var added, removed, renamed, former []string
	changed := gathered{
		at: map[control.DescriptionChange]int{}, of: map[string]int{}, effects: map[string]control.Effect{},
	}
	for _, o := range c.new {
		name := o.name
		if from, ok := c.before[name]; ok {
			renamed, former, name = append(renamed, name), append(former, from), from
		}
		before, ok := was[name]
		if !ok {
			added = append(added, o.name)
			continue
		}
		delete(was, name)
		changed.add(c.subject, before, o)
	}
	for _, o := range c.old {
		if _, left := was[o.name]; left {
			removed = append(removed, o.name)
		}
	}
	list := append(c.whole(control.Removed, removed), c.whole(control.Added, added)...)
	for _, change := range c.whole(control.Renamed, renamed) {
		change.From, change.To = nodeset.Fold(former), change.Names
		list = append(list, change)
	}
	return append(list, changed.folded()...)
}

// whole returns the change of whole objects, as a list; none without names.
func (c *comparison) whole(kind control.ChangeKind, names []string) []control.DescriptionChange {
	if len(names) == 0 {
		return nil
	}
	return []control.DescriptionChange{{
		Subject: c.subject, Kind: kind, Names: nodeset.Fold(names), Count: len(names),
		Effect: effectOfWhole(c.subject, kind),
	}}
}

// gathered collects changes of attributes. Objects with the same change share one entry.
type gathered struct {
	list []control.DescriptionChange
	sets [][]string                        // the names of each change
	at   map[control.DescriptionChange]int // by the change without names
	of   map[string]int                    // number of changes of an attribute

	effects map[string]control.Effect // by attribute
}

func (c *gathered) add(subject string, before, after object) {
	for i, a := range after.attributes {
		b := before.attributes[i]
		if a.value == b.value {
			continue
		}
		change := control.DescriptionChange{
			Subject: subject, Kind: control.Changed, Attribute: a.name, Effect: a.effect,
		}
		if !a.opaque {
			change.From, change.To = b.value, a.value
		}
		at, ok := c.at[change]
		if !ok {
			at = len(c.list)
			c.at[change] = at
			c.list, c.sets = append(c.list, change), append(c.sets, nil)
			c.of[a.name]++
			c.effects[a.name] = a.effect
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
			Count: len(names), Effect: c.effects[name],
		})
	}
	slices.SortFunc(list, func(a, b control.DescriptionChange) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Attribute, b.Attribute),
			cmp.Compare(a.Names, b.Names))
	})
	return list
}
