package follow

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/rollout"
)

// Load finds what holds from the start, without the shared state: the kept state, and the description of ClusterFile or
// the kept one, whichever is later. A kept state that cannot be read is left aside when there is a description.
func (f *Follower) Load() error {
	kept, err := coord.LoadState(f.StateFile)
	switch {
	case err != nil && (f.ClusterFile == "" || errors.Is(err, coord.ErrNewerFormat)):
		return f.errorf("%w", err)
	case err != nil:
		f.Log.Error("kept state cannot be read; starting without it", "error", err)
	}
	now := &Declared{State: kept, rollouts: new(rollout.Records).Of(kept)}
	if _, err := os.Stat(f.ClusterFile); errors.Is(err, fs.ErrNotExist) && f.joinedHeads(kept) {
		f.ClusterFile = "" // a head that has joined gets the description from the others
	}
	switch {
	case f.ClusterFile != "" && !f.followsHeads(kept.Description):
		err = f.loadGiven(now, kept.Description)
	case kept.Description != nil:
		now.Cluster, err = f.parse(kept.Description)
		now.Digest = kept.Description.Digest
	default:
		err = f.errorf("no cluster description has been applied: give one with --cluster FILE")
	}
	if err != nil {
		return err
	}
	if me, _ := now.Cluster.Server(f.Server); !me.Has(cluster.RoleHead) {
		if err := f.followHeads(); err != nil {
			return err
		}
	}
	f.current.Store(now)
	return nil
}

// Refresh adopts the state as it is in c now. Whoever changed something there calls it, so that the change is in force
// when Refresh returns. The error is one of APIError.
func (f *Follower) Refresh(ctx context.Context, c *coord.Coord) error {
	s, err := c.Snapshot(ctx)
	if err != nil {
		return APIError(err)
	}
	return f.adopt(ctx, s)
}

// Stable calls fn with what is declared now. No state is adopted before fn returns. fn must not call anything that
// waits for an adoption; see the package comment. The same holds for change of Exclusive.
func (f *Follower) Stable(fn func(now *Declared)) {
	f.adopting.Lock()
	defer f.adopting.Unlock()
	fn(f.Now())
}

// Exclusive calls change, which changes c, while no state is adopted, and then adopts the state as it is. When change
// fails or reports that it changed nothing, nothing is adopted.
func (f *Follower) Exclusive(ctx context.Context, c *coord.Coord, change func() (changed bool, err error)) error {
	f.adopting.Lock()
	defer f.adopting.Unlock()
	if changed, err := change(); err != nil || !changed {
		return err
	}
	s, err := c.Snapshot(ctx)
	if err != nil {
		return APIError(err)
	}
	return f.adoptLocked(ctx, s)
}

func (f *Follower) adopt(ctx context.Context, s coord.State) error {
	f.adopting.Lock()
	defer f.adopting.Unlock()
	return f.adoptLocked(ctx, s)
}

// adoptLocked makes s what holds, unless something newer does already. A description that this program cannot follow is
// a problem that is shown; the one before goes on to hold.
func (f *Follower) adoptLocked(ctx context.Context, s coord.State) error {
	old := f.Now()
	if old.State.Store == s.Store && s.Revision <= old.State.Revision {
		return nil
	}
	if empty(s) && !empty(old.State) {
		f.Log.Error("the shared state is empty; what was kept of it will be put back")
		f.incomplete.Store(true)
		return nil
	}
	if s.Restoring && old.State.Revision > 0 {
		f.incomplete.Store(f.heads == nil)
		return nil
	}
	now := &Declared{State: s, Cluster: old.Cluster, Digest: old.Digest, rollouts: old.Rollouts().Of(s)}
	if s.Description != nil && s.Description.Digest != old.Digest {
		if c, err := f.parse(s.Description); err == nil {
			now.Cluster, now.Digest = c, s.Description.Digest
		} else {
			now.Problem = err.Error()
			f.Log.Error("description not followed", "error", err)
		}
	}
	x := now.extent(old)
	if f.heads == nil { // a head keeps all that it may have to put back into a shared state that was lost
		x = max(x, moreRecords)
	}
	if x == sameContent {
		f.settled.CompareAndSwap(old, now)
		f.current.Store(now)
		return nil
	}
	kept := false
	if x == moreRecords {
		f.keepSoon(now, old)
	} else {
		f.unkept.now, kept = nil, f.write(now.kept(old)) == nil
	}
	f.current.Store(now)
	for _, adopted := range f.subscribers {
		adopted(ctx, now)
	}
	if kept {
		f.settled.Store(now)
	}
	return nil
}

// Settled returns the last state that all who subscribed have adopted, and that is on disk, so that nothing older holds
// on this server any more, also after a restart; nil if there is none since Run was called.
func (f *Follower) Settled() *Declared { return f.settled.Load() }

// acceptOlder lets s be adopted although it is older than what was kept: somebody has put back an older copy of the
// shared state. While the state is followed this looks the same as an answer that is late, so it is checked only right
// after the state was found.
func (f *Follower) acceptOlder(s coord.State) {
	f.adopting.Lock()
	defer f.adopting.Unlock()
	now := f.Now()
	if s.Store != now.State.Store || s.Revision >= now.State.Revision {
		return
	}
	f.Log.Warn("the shared state is older than what was kept of it", "from", now.State.Revision, "to", s.Revision)
	f.acceptAny(now)
}

// acceptAny lets any state be adopted after now. It is called with adopting held.
func (f *Follower) acceptAny(now *Declared) {
	next := *now
	next.State.Revision = 0
	f.current.Store(&next)
}
