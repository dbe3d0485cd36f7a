package forward

import (
	"cmp"
	"context"
	"slices"

	"dim/internal/control"
)

// Machines implements control.Backend: it lists those that asked any server. A machine that asked several of them is
// listed once, by the server that it asked first. A server that does not answer is left out; the status tells that it
// is silent.
func (b *Backend) Machines(ctx context.Context) ([]control.Machine, error) {
	if !b.isHead() {
		return b.Backend.Machines(ctx)
	}
	var others []share
	for _, s := range b.Follow.Now().Cluster.Servers {
		if s.Name != b.Server {
			others = append(others, share{server: s.Name})
		}
	}
	look, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	list, err := gather(others,
		func() ([]control.Machine, error) { return b.Backend.Machines(ctx) },
		func(s share) ([]control.Machine, error) { return b.at(s.server).Machines(look) },
		func(share, error) control.Machine { return control.Machine{} })
	slices.SortStableFunc(list, func(x, y control.Machine) int {
		return cmp.Or(cmp.Compare(x.MAC, y.MAC), x.First.Compare(y.First))
	})
	for i := len(list) - 1; i > 0; i-- { // the entry that is kept has the last request of all
		if a, b := &list[i-1], &list[i]; a.MAC == b.MAC && b.Last.After(a.Last) {
			a.Last = b.Last
		}
	}
	list = slices.CompactFunc(list, func(x, y control.Machine) bool { return x.MAC == y.MAC })
	list = slices.DeleteFunc(list, func(m control.Machine) bool { return m.MAC == "" })
	slices.SortStableFunc(list, func(x, y control.Machine) int { return y.Last.Compare(x.Last) })
	return list, err
}
