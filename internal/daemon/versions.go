package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"dim/internal/capture"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/store"
)

// The shared state gives numbers to versions, the store keeps the versions. A capture reserves a number in the shared state, writes the version
// to the store, and puts it to the shared state, which ends the reservation. A removal goes the other way: first the shared state, then the store. So
// after a crash the store may have versions that the shared state does not have, never the other way round.

// lacking sorts the versions of a server's store that the shared state s does not have. Pending ones were captured, and a crash or
// a shared state that did not answer came between; or the shared state was lost, or replaced by an older copy. They are to be put.
// Removed ones were removed from the shared state, and can go. A version whose number another server has reserved is
// neither. The store must have been read after s.
func lacking(s coord.State, server string, stored []image.Version) (pending, removed []image.Version) {
	for _, v := range stored {
		im := s.Images[v.Image]
		if im == nil || v.Number > im.Last {
			pending = append(pending, v)
			continue
		}
		_, known := im.Version(v.Number)
		r, reserved := im.Reserved[v.Number]
		switch {
		case known:
		case reserved && r.Server == server:
			pending = append(pending, v)
		case !reserved:
			removed = append(removed, v)
		}
	}
	return pending, removed
}

// storedVersions returns all versions of the store, those of an image together and oldest first.
func (d *daemon) storedVersions() ([]image.Version, error) {
	names, err := d.store.Images()
	if err != nil {
		return nil, err
	}
	var list []image.Version
	for _, name := range names {
		versions, err := d.store.Versions(name)
		if err != nil && !errors.Is(err, store.ErrNotFound) { // its last one was removed meanwhile
			return nil, err
		}
		list = append(list, versions...)
	}
	return list, nil
}

// putPending puts the versions that the shared state, as it was in s, lacks. The numbers that are known to have been given stay given, also
// in a state that was lost.
func (d *daemon) putPending(ctx context.Context, c *coord.Coord, s, kept coord.State) error {
	stored, err := d.storedVersions()
	if err != nil {
		return err
	}
	pending, _ := lacking(s, string(d.server), stored)
	for i, v := range pending {
		if s.Images[v.Image] == nil && (i == 0 || pending[i-1].Image != v.Image) {
			if err := putCurrent(ctx, c, kept.Images[v.Image], pending[i:]); err != nil {
				return err
			}
		}
		if err := c.PutVersion(ctx, v); err != nil && !errors.Is(err, coord.ErrConflict) {
			return err
		}
	}
	given := map[string]int{}
	for name, im := range kept.Images {
		if known := s.Images[name]; known == nil || im.Last > known.Last {
			given[name] = im.Last
		}
	}
	return c.Decide(ctx, func(coord.State) (coord.Change, error) { return coord.Change{Last: given}, nil })
}

// putCurrent puts the number of an image's current version before its versions are put, the first of which would become it: the
// kept one, or the newest. The versions of the image are the first ones of pending.
func putCurrent(ctx context.Context, c *coord.Coord, kept *coord.Image, pending []image.Version) error {
	name := pending[0].Image
	current, ok := kept.Followed()
	if !ok {
		n := slices.IndexFunc(pending, func(v image.Version) bool { return v.Image != name })
		if n < 0 {
			n = len(pending)
		}
		current = pending[n-1]
	}
	change := coord.Change{Current: map[string]int{name: current.Number}}
	return c.Decide(ctx, func(coord.State) (coord.Change, error) { return change, nil })
}

// settleVersions makes the newest version that the store has of an image the newest of the shared state too: a capture compares with it. It puts
// versions that are pending, and takes those from the store that were removed.
func (d *daemon) settleVersions(ctx context.Context, name string) error {
	shared, err := d.change(ctx)
	if err != nil {
		return err
	}
	newest, err := d.store.Resolve(image.Ref{Image: name})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, known := d.declared().state.Resolve(newest.Ref()); known {
		return nil
	}
	if err := d.tell(ctx, shared); err != nil {
		return coded(err)
	}
	if err := d.refresh(ctx, shared); err != nil {
		return err
	}
	left, err := d.leftOver()
	if err != nil {
		return err
	}
	return d.dropVersions(slices.DeleteFunc(left, func(r image.Ref) bool { return r.Image != name }))
}

// reserve returns what gives the versions of an image their numbers.
func (d *daemon) reserve(name string) func(context.Context) (int, error) {
	return func(ctx context.Context) (int, error) {
		shared, err := d.change(ctx)
		if err != nil {
			return 0, err
		}
		number, err := shared.ReserveVersion(ctx, name, string(d.server))
		return number, coded(err)
	}
}

// publish puts the version that a capture has made, and returns when it is known here.
func (d *daemon) publish(ctx context.Context, r capture.Result) error {
	if !r.Changed {
		return nil
	}
	err := d.putVersion(ctx, r.Version)
	if err != nil {
		d.untold.Store(true)
		err = fmt.Errorf("%s is captured, but not announced: %w", r.Version.Ref(), err)
	}
	return err
}

func (d *daemon) putVersion(ctx context.Context, v image.Version) error {
	shared, err := d.change(ctx)
	if err != nil {
		return err
	}
	if err := shared.PutVersion(ctx, v); err != nil {
		return coded(err)
	}
	return d.refresh(ctx, shared)
}

// leftOver returns the versions of the store that were removed from the shared state, but those that replicas here still need.
func (d *daemon) leftOver() ([]image.Ref, error) {
	s := d.declared().state
	stored, err := d.storedVersions()
	if err != nil {
		return nil, err
	}
	used, err := d.inUse(s)
	if err != nil {
		return nil, err
	}
	var list []image.Ref
	_, removed := lacking(s, string(d.server), stored)
	for _, v := range removed {
		if used[v.Ref()] == "" {
			list = append(list, v.Ref())
		}
	}
	return list, nil
}

// dropVersions removes versions from the store. What they led to stays until the next sweep.
func (d *daemon) dropVersions(list []image.Ref) error {
	for _, r := range list {
		if err := d.store.RemoveVersion(r); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}
