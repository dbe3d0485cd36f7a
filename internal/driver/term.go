package driver

import (
	"context"
	"slices"
	"time"

	"dim/internal/cluster"
)

// term is a time in which this server is the one head that drives.
type term struct {
	context.Context        // ends with it
	release         func() // is called then
	alone           bool   // the description has no other head
}

// term waits until this server is the one head that drives: the only one, or the one that has the lock.
func (d *Driver) term(ctx context.Context) term {
	for ctx.Err() == nil {
		heads := d.heads()
		switch {
		case !slices.Contains(heads, d.Server):
		case len(heads) == 1:
			return term{ctx, func() {}, true}
		default:
			shared, err := d.Follow.Reachable(ctx)
			if err != nil {
				break
			}
			if held, release, err := shared.Lock(ctx, "driver"); err == nil {
				d.Log.Info("this head drives rollouts", "server", d.Server)
				return term{held, release, false}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryInterval):
		}
	}
	return term{ctx, func() {}, false}
}

// heads returns the heads of the description.
func (d *Driver) heads() (list []cluster.ServerName) {
	for _, s := range d.Follow.Cluster().Servers {
		if s.Has(cluster.RoleHead) {
			list = append(list, s.Name)
		}
	}
	return list
}
