package follow

import (
	"context"
	"errors"

	"dim/internal/coord"
)

// Restore puts to c what this server has and c lacks: the description given on the command line, and what OnRestore's
// function finds. A shared state that is empty was lost and made anew: then all that was kept of it is put back.
func (f *Follower) Restore(ctx context.Context, c *coord.Coord) error {
	f.restoring.Lock()
	defer f.restoring.Unlock()
	s, err := c.Snapshot(ctx)
	if err != nil {
		return err
	}
	now, lost := f.Now(), empty(s) || s.Restoring
	if s.Restoring && now.State.Revision == 0 { // what was kept is lost too
		return c.EndRestore(ctx)
	}
	lost = lost && now.State.Revision > 0
	if lost {
		f.Log.Warn("the shared state was empty; what was kept of it is put back",
			"images", len(now.State.Images), "nodes", len(now.State.Desired))
		if err := c.BeginRestore(ctx); err != nil {
			return err
		}
		if err := c.PutMembers(ctx, now.State); err != nil {
			return err
		}
		// First, so that no node follows the versions one after the other as they come back, and no server serves a
		// node whose layer is elsewhere.
		err := c.Decide(ctx, func(coord.State) (coord.Change, error) { return now.State.Declarations(), nil })
		if err != nil {
			return err
		}
	}
	if err := f.restoreDescription(ctx, c, s); err != nil {
		return err
	}
	if f.restore != nil {
		if err := f.restore(ctx, c, s, now.State); err != nil {
			return err
		}
	}
	if lost {
		if err := errors.Join(putTags(ctx, c, now.State), putWatches(ctx, c, now.State)); err != nil {
			return err
		}
		return c.EndRestore(ctx)
	}
	return nil
}

// restoreDescription puts the description of the command line once, and any description that a lost state does not
// have.
func (f *Follower) restoreDescription(ctx context.Context, c *coord.Coord, s coord.State) error {
	now, lost := f.Now(), empty(s)
	given := f.given.wins && !f.given.put && !f.keepInstead(s.Description)
	if (given || lost) && (s.Description == nil || s.Description.Digest != now.Digest) {
		revision := int64(0)
		if !lost && s.Description != nil {
			revision = s.Description.Revision
		}
		if err := f.claim(ctx, c, s.Description); err != nil {
			return err
		}
		d := withLearned(*now.description(), s.Description)
		if given {
			f.setOrigin(&d)
		}
		if _, err := c.PutDescription(ctx, d, revision); err != nil {
			return err
		}
	}
	f.given.put = true
	return nil
}

// claim notes which servers have the layers of the nodes of a description that another one is to replace.
func (f *Follower) claim(ctx context.Context, c *coord.Coord, replaced *coord.Description) error {
	if replaced == nil {
		return nil
	}
	before, err := f.parse(replaced)
	if err != nil {
		f.Log.Warn("it is not known which servers had the layers of nodes", "error", err)
		return nil
	}
	return c.Decide(ctx, claims(before))
}

// RestoreLater notes that the shared state may lack something that this server has. Run puts it.
func (f *Follower) RestoreLater() { f.incomplete.Store(true) }

func (f *Follower) restoreAgain(ctx context.Context) {
	c, err := f.Reachable(ctx)
	if err != nil {
		return
	}
	f.incomplete.Store(false)
	if err := f.Restore(ctx, c); err != nil {
		f.incomplete.Store(true)
	}
}

// putTags puts the tags that were kept.
func putTags(ctx context.Context, c *coord.Coord, kept coord.State) error {
	for name, im := range kept.Images {
		for tag, number := range im.Tags {
			if err := c.PutTag(ctx, name, tag, number); err != nil && !errors.Is(err, coord.ErrNotFound) {
				return err
			}
		}
	}
	return nil
}

// putWatches puts the watches that were kept.
func putWatches(ctx context.Context, c *coord.Coord, kept coord.State) error {
	for name, w := range kept.Watches {
		if err := c.PutWatch(ctx, name, &w); err != nil {
			return err
		}
	}
	return nil
}
