package serving

import (
	"fmt"
	"slices"

	"dim/internal/cluster"
	"dim/internal/problems"
)

// Renaming reports whether layers of this server still have former names of nodes, because the names could not be
// changed yet. These nodes are not served.
func (s *Server) Renaming() bool { return s.renaming.Load() }

// rename gives the layers of nodes that have other names than before their new names, where this server has the layers.
// It returns the nodes whose layers could not be renamed: they must not be served with none.
func (r *reconciliation) rename() (waiting map[cluster.NodeName]bool) {
	now := r.plan.now
	changes := map[string]map[string]string{} // former names by new ones, by the change
	former := map[string]bool{}
	for to, p := range now.State.Renaming {
		if now.State.Layers[to] != string(r.s.Server) {
			continue
		}
		if changes[p.ID] == nil {
			changes[p.ID] = map[string]string{}
		}
		changes[p.ID][to] = p.From
		former[p.From] = true
	}
	waiting = map[cluster.NodeName]bool{}
	if len(changes) > 0 {
		r.s.Set.Detach(func(node string) bool { return !former[node] })
	}
	for id, names := range changes {
		err := r.s.Set.RenameNodes(id, names)
		if err != nil { // of a change that is complete there is none
			r.endEarlier(names)
			err = r.s.Set.RenameNodes(id, names)
		}
		for to, from := range names {
			if err != nil {
				waiting[cluster.NodeName(to)] = true
				r.failed[problems.Node(to)] = fmt.Errorf("it was %s, and its files are not renamed: %w", from, err)
			}
		}
	}
	r.s.renaming.Store(len(waiting) > 0)
	return waiting
}

// endEarlier ends the service of earlier nodes that had the new names. This server has not heard of their removal: a
// later description took its place before that.
func (r *reconciliation) endEarlier(names map[string]string) {
	r.list = slices.DeleteFunc(r.list, func(x *export) bool { return names[string(x.node)] != "" })
	r.s.replace(r.list)
	r.s.Set.Detach(func(node string) bool { return names[node] == "" })
}
