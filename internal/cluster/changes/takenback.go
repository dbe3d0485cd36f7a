package changes

import (
	"dim/internal/cluster"
	"dim/internal/control"
)

// TakenBack returns what next changes of that which present has changed since base: next was made from base, by a
// person who did not know present.
func TakenBack(base, present, next *cluster.Cluster) []control.DescriptionChange {
	return takenBack(base, present, next, false)
}

// Reverted returns what next makes again as it was in base, of that which present has changed since.
func Reverted(base, present, next *cluster.Cluster) []control.DescriptionChange {
	return takenBack(base, present, next, true)
}

// takenBack is Reverted if exactly is true, else TakenBack.
func takenBack(base, present, next *cluster.Cluster, exactly bool) []control.DescriptionChange {
	var list []control.DescriptionChange
	nodes, nextNodes := differing(present, next, nil) // what is the same now and then is not taken back
	a, b, c := kinds(base, base.Nodes), kinds(present, nodes), kinds(next, nextNodes)
	for i := range a {
		was, wanted := byName(a[i].objects), byName(c[i].objects)
		now := byName(b[i].objects)
		diff := comparison{subject: a[i].subject}
		for _, o := range b[i].objects {
			before, old := was[o.name]
			after, stays := wanted[o.name]
			switch {
			case !old && !stays: // added since, and to be removed
				diff.old = append(diff.old, o)
			case old && stays:
				x, y := foreign(before, o, after, exactly)
				diff.old, diff.new = append(diff.old, x), append(diff.new, y)
			}
		}
		for _, o := range c[i].objects {
			if _, here := now[o.name]; !here && was[o.name].name == o.name && o.name != "" {
				diff.new = append(diff.new, o) // removed since, and to be added
			}
		}
		list = append(list, diff.changes()...)
	}
	return list
}

// foreign returns an object now and as it is to be, with the attributes only that have changed since base.
func foreign(base, now, next object, exactly bool) (x, y object) {
	x.name, y.name = now.name, now.name
	for i, a := range now.attributes {
		was, wanted := base.attributes[i], next.attributes[i]
		if a.value == was.value || exactly && wanted.value != was.value {
			wanted = a
		}
		x.attributes, y.attributes = append(x.attributes, a), append(y.attributes, wanted)
	}
	return x, y
}

func byName(list []object) map[string]object {
	m := make(map[string]object, len(list))
	for _, o := range list {
		m[o.name] = o
	}
	return m
}
