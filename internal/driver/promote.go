package driver

import (
	"context"
	"maps"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/rollout"
)

// promote tells the shared state which nodes have booted what they were to follow from their next boot on. Until it
// knows, they go on showing it.
func (d *Driver) promote(ctx context.Context) {
	booted := d.booted()
	if len(booted) == 0 {
		return
	}
	shared, err := d.Follow.Reachable(ctx) // which costs a write of etcd
	if err != nil {
		return
	}
	err = shared.Decide(ctx, func(s coord.State) (coord.Change, error) { return rollout.Booted(s, booted), nil })
	if err == nil {
		err = d.Follow.Refresh(ctx, shared)
	}
	if err != nil {
		d.Log.Warn("the shared state does not know yet what nodes have booted", "error", err)
	}
}

// booted returns the nodes, of this and of other servers, that have booted what they were to follow from their next
// boot on.
func (d *Driver) booted() coord.Refs {
	booted := coord.Refs{}
	maps.Copy(booted, d.Roots.Booted())
	now := d.Follow.Now()
	for name := range now.State.Next {
		n, ok := now.Cluster.Node(cluster.NodeName(name))
		if !ok || n.Server().Name == d.Server {
			continue
		}
		_, next := now.Follows(n)
		if said, _, ok := d.Fleet.Node(n); ok && !next.IsZero() && said.Shows == next {
			booted[name] = next
		}
	}
	return booted
}
