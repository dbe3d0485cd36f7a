package driver

import (
	"context"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/follow"
)

// release lets nodes that go to another server without their layer be served there, once their former server has
// adopted a description that no longer gives them to it.
func (d *Driver) release(ctx context.Context) {
	now := d.Follow.Now()
	if len(now.State.Leaving) == 0 {
		return
	}
	decide := now.Release(func(s cluster.ServerName) bool { return d.letGo(now, s) })
	if change, err := decide(now.State); err != nil || len(change.Layers) == 0 {
		return
	}
	if err := d.decide(ctx, decide); err != nil {
		d.Log.Warn("nodes cannot be given to their new servers", "error", err)
	}
}

// decide puts a decision into the shared state and adopts it. If that is not available, the decision has to be made
// again later.
func (d *Driver) decide(ctx context.Context, decision func(coord.State) (coord.Change, error)) error {
	shared, err := d.Follow.Reachable(ctx)
	if err != nil {
		return nil // which is a problem of its own
	}
	if err := shared.Decide(ctx, decision); err != nil {
		return err
	}
	return d.Follow.Refresh(ctx, shared)
}

// renamed tells the shared state which nodes have their layers by their new names.
func (d *Driver) renamed(ctx context.Context) {
	now := d.Follow.Now()
	if len(now.State.Renaming) == 0 {
		return
	}
	decide := now.Renamed(func(s cluster.ServerName) bool { return d.letGo(now, s) && !d.renaming(s) })
	if change, err := decide(now.State); err != nil || len(change.Renaming) == 0 {
		return
	}
	if err := d.decide(ctx, decide); err != nil {
		d.Log.Warn("the shared state does not know yet which nodes are renamed", "error", err)
	}
}

// renaming reports whether a server has said that layers still have former names.
func (d *Driver) renaming(server cluster.ServerName) bool {
	if server == d.Server {
		return d.Roots.Renaming()
	}
	h, ok := d.Fleet.Server(server)
	return ok && h.Renaming
}

// letGo reports whether a server follows the description that now has, for good, so that it serves nothing else. One
// that the description does not have cannot be asked: who applied that has said that it is off.
func (d *Driver) letGo(now *follow.Declared, server cluster.ServerName) bool {
	if _, known := now.Cluster.Server(server); !known {
		return true
	}
	if server == d.Server {
		s := d.Follow.Settled()
		return s != nil && s.State.Store == now.State.Store && s.Digest == now.Digest &&
			s.State.Revision >= now.State.Description.Revision
	}
	h, ok := d.Fleet.Server(server)
	return ok && h.Store == now.State.Store && h.Kept >= now.State.Description.Revision && h.Description == now.Digest
}
