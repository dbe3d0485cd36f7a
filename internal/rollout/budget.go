package rollout

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// defaultMaxFailed is the budget of rollouts that have none of their own.
const defaultMaxFailed = "1%"

// CheckBudget returns an error unless MaxFailed is a number of nodes, or a percentage of a ring, such as 2 or 5%: how
// many nodes of a ring may fail before the rollout stops. "" is 1%.
func (r *Rollout) CheckBudget() error {
	_, err := budget(r.MaxFailed, 0)
	return err
}

// budget returns how many of some nodes may fail. A percentage is rounded down.
func budget(text string, nodes int) (int, error) {
	number, percent := strings.CutSuffix(cmp.Or(text, defaultMaxFailed), "%")
	n, err := strconv.Atoi(number)
	switch {
	case err != nil || n < 0 || percent && n > 100:
		return 0, fmt.Errorf("%q must be a number of nodes, or a percentage such as 1%%", text)
	case percent:
		return nodes * n / 100, nil
	}
	return n, nil
}

// spares reports whether the rollout goes on without these nodes of the present ring, besides those that it goes on
// without already.
func (r *Rollout) spares(lost Nodes) bool {
	ring := &r.Rings[r.Ring]
	most, err := budget(r.MaxFailed, len(ring.Nodes))
	return err == nil && len(union(ring.Without, lost)) <= most
}

// union returns the names that are in one of two sets, those of a first.
func union(a, b Nodes) Nodes {
	in := make(map[string]bool, len(a))
	for _, n := range a {
		in[n] = true
	}
	all := append(Nodes{}, a...)
	for _, n := range b {
		if !in[n] {
			all = append(all, n)
		}
	}
	return all
}
