package rollout

import (
	"slices"
	"time"

	"dim/internal/coord"
)

// confirmation records that a person has confirmed, after a rollout, that everything was restarted or read again that
// had to be on some nodes.
type confirmation struct {
	Nodes Nodes     `json:"nodes"`
	At    time.Time `json:"at"`
}

// ConfirmedAt returns when a person confirmed a node after the rollout; the zero time: nobody has.
func (r *Rollout) ConfirmedAt(node string) time.Time {
	for _, c := range r.Confirmed {
		if slices.Contains(c.Nodes, node) {
			return c.At
		}
	}
	return time.Time{}
}

// Confirm records a confirmation of the nodes in each rollout that has declared its version for them and that they
// still follow. It returns no change if there is no such rollout.
func (n Nodes) Confirm(s coord.State, at time.Time) (coord.Change, error) {
	var change coord.Change
	all, err := new(Records).Of(s).List()
	if err != nil {
		return change, err
	}
	for i := range all {
		r := &all[i]
		here := slices.DeleteFunc(intersection(r.declared(), n), func(node string) bool {
			now, _ := s.Follows(node, r.Image)
			return now != r.Ref()
		})
		if len(here) == 0 {
			continue
		}
		r.confirm(here, at)
		if err := r.put(&change); err != nil {
			return coord.Change{}, err
		}
	}
	return change, nil
}

// confirm adds a confirmation, which replaces earlier ones of the same nodes.
func (r *Rollout) confirm(nodes Nodes, at time.Time) {
	list := []confirmation{{Nodes: nodes, At: at}}
	for _, c := range r.Confirmed {
		if rest := subtract(c.Nodes, nodes); len(rest) > 0 {
			list = append(list, confirmation{Nodes: rest, At: c.At})
		}
	}
	r.Confirmed = list
}
