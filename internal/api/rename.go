package api

import (
	"fmt"
	"slices"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/quantity"
)

// checkRenames refuses renames that the two descriptions contradict. The error has all of them.
func checkRenames(old, next *cluster.Cluster, renames []control.Rename) error {
	from, to := map[string]bool{}, map[string]bool{}
	var wrong []string
	for _, r := range renames {
		_, was := old.Node(cluster.NodeName(r.From))
		_, stays := next.Node(cluster.NodeName(r.From))
		_, comes := next.Node(cluster.NodeName(r.To))
		_, known := old.Node(cluster.NodeName(r.To))
		cause := ""
		switch {
		case !was:
			cause = "the applied description has no node " + r.From
		case stays:
			cause = "the new description still has the node " + r.From
		case !comes:
			cause = "the new description has no node " + r.To
		case known:
			cause = "the applied description has a node " + r.To + " already"
		case from[r.From]:
			cause = r.From + " is renamed twice"
		case to[r.To]:
			cause = "two nodes are renamed to " + r.To
		}
		if cause != "" {
			wrong = append(wrong, fmt.Sprintf("rename %s to %s: %s", r.From, r.To, cause))
		}
		from[r.From], to[r.To] = true, true
	}
	if len(wrong) == 0 {
		return nil
	}
	e := control.Errorf(control.Invalid, "%s", wrong[0])
	if len(wrong) > 1 {
		e = control.Errorf(control.Invalid, "%s do not fit the descriptions", quantity.Plural(len(wrong), "rename"))
		e.Details = wrong
	}
	return e.WithHint("the new description must have the new name, in place of the old one")
}

// withRenames returns stated renames, and those of found that are about other nodes.
func withRenames(stated, found []control.Rename) []control.Rename {
	list := slices.Clone(stated)
	for _, f := range found {
		about := func(s control.Rename) bool { return s.From == f.From || s.To == f.To }
		if !slices.ContainsFunc(stated, about) {
			list = append(list, f)
		}
	}
	return list
}
