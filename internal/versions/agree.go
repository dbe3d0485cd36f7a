package versions

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/store"
)

// lacking sorts the versions of a server's store that the shared state s does not have. Pending ones are to be put
// there: they were captured, and a crash came between, or the shared state did not answer, or it was lost or replaced
// by an older copy. Removed ones were removed from the shared state, and can go. A version whose number is reserved by
// a server for which mine returns false is neither. The store must have been read after s.
func lacking(s coord.State, mine func(server string) bool, stored []image.Version) (pending, removed []image.Version) {
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
		case reserved && mine(r.Server):
			pending = append(pending, v)
		case !reserved:
			removed = append(removed, v)
		}
	}
	return pending, removed
}

// mine reports whether this server puts what a server has reserved: what it reserved itself, and what it reserved under
// a name that it no longer has.
func (reg *Registry) mine(server string) bool {
	_, other := reg.Follow.Cluster().Server(cluster.ServerName(server))
	return server == string(reg.Server) || !other
}

// stored returns all versions of the store, those of an image together and oldest first.
func (reg *Registry) stored() ([]image.Version, error) {
	names, err := reg.Store.Images()
	if err != nil {
		return nil, err
	}
	var list []image.Version
	for _, name := range names {
		versions, err := reg.Store.Versions(name)
		if err != nil && !errors.Is(err, store.ErrNotFound) { // its last version was removed meanwhile
			return nil, err
		}
		list = append(list, versions...)
	}
	return list, nil
}

// PutPending puts to c the versions that the shared state, as it was in s, lacks. Numbers that kept knows as given stay
// given, also in a state that was lost. It is a follow.RestoreFunc.
func (reg *Registry) PutPending(ctx context.Context, c *coord.Coord, s, kept coord.State) error {
	stored, err := reg.stored()
	if err != nil {
		return err
	}
	pending, _ := lacking(s, reg.mine, stored)
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

// putCurrent puts the number of an image's current version: the kept one, or the newest. It comes before the image's
// versions, because the first of these would become the current one. The versions of the image are the first ones of
// pending.
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

// RewriteRecords writes the records of versions that are damaged in the store, or missing although the content is
// there, anew from what this server knows of the shared state. It returns a text for each that says what it did. It is
// called at the start, before replicas are served.
func (reg *Registry) RewriteRecords(ctx context.Context) (done []string) {
	state := reg.Follow.Now().State
	rewrite := func(r image.Ref, reason error) {
		v, known := state.Resolve(r)
		if !known {
			return
		}
		if _, err := reg.Store.RewriteVersion(v); err != nil {
			return // it stays a problem that is shown
		}
		reg.Log.Error("record of a version was written anew from the shared state", "version", r.String(),
			"error", reason)
		done = append(done, fmt.Sprintf("versions/%s/%d.json: %v; it was written anew from the shared state",
			r.Image, r.Number, reason))
	}
	damaged, err := reg.Store.Damaged()
	if err != nil {
		reg.Log.Error("damaged versions cannot be listed", "error", err)
	}
	for _, d := range damaged {
		rewrite(d.Ref, d.Err)
	}
	for _, im := range state.Images {
		for _, v := range im.Versions {
			if reg.lacksRecord(ctx, v) {
				rewrite(v.Ref(), errors.New("it was missing"))
			}
		}
	}
	return done
}

// lacksRecord reports whether the store has all content of v and no record of it. Another server may have the content,
// or this one a part of it; that is no damage.
func (reg *Registry) lacksRecord(ctx context.Context, v image.Version) bool {
	if _, err := reg.Store.Resolve(v.Ref()); !errors.Is(err, store.ErrNotFound) {
		return false
	}
	if _, err := reg.Store.Root(v.Digest); err != nil {
		return false
	}
	whole := true
	err := reg.Store.CheckPresence(ctx, v, store.CheckObserver{Problem: func(store.Problem) { whole = false }})
	return err == nil && whole
}

// Settle makes store and shared state agree on the newest version of an image, with which a capture compares: it puts
// versions that are pending, and removes from the store those that were removed from the shared state.
func (reg *Registry) Settle(ctx context.Context, name string) error {
	shared, err := reg.Follow.Change(ctx)
	if err != nil {
		return err
	}
	newest, err := reg.Store.Resolve(image.Ref{Image: name})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, known := reg.Follow.Now().State.Resolve(newest.Ref()); known {
		return nil
	}
	if err := reg.Follow.Restore(ctx, shared); err != nil {
		return follow.APIError(err)
	}
	if err := reg.Follow.Refresh(ctx, shared); err != nil {
		return err
	}
	left, err := reg.leftOver()
	if err != nil {
		return err
	}
	return reg.drop(slices.DeleteFunc(left, func(r image.Ref) bool { return r.Image != name }))
}

// Reserve returns a number for a new version of an image.
func (reg *Registry) Reserve(ctx context.Context, name string) (int, error) {
	shared, err := reg.Follow.Change(ctx)
	if err != nil {
		return 0, err
	}
	number, err := shared.ReserveVersion(ctx, name, string(reg.Server))
	return number, follow.APIError(err)
}

// Publish puts a version that a capture has made, and returns when this server has adopted a state with it.
func (reg *Registry) Publish(ctx context.Context, v image.Version) error {
	err := reg.put(ctx, v)
	if err != nil {
		reg.Follow.RestoreLater()
		err = fmt.Errorf("%s is captured, but not announced: %w", v.Ref(), err)
	}
	return err
}

func (reg *Registry) put(ctx context.Context, v image.Version) error {
	shared, err := reg.Follow.Change(ctx)
	if err != nil {
		return err
	}
	if err := shared.PutVersion(ctx, v); err != nil {
		return follow.APIError(err)
	}
	return reg.Follow.Refresh(ctx, shared)
}

// leftOver returns the versions of the store that were removed from the shared state, without those that replicas here
// still need.
func (reg *Registry) leftOver() ([]image.Ref, error) {
	s := reg.Follow.Now().State
	stored, err := reg.stored()
	if err != nil {
		return nil, err
	}
	used, err := reg.inUse(s, reg.declares)
	if err != nil {
		return nil, err
	}
	var list []image.Ref
	_, removed := lacking(s, reg.mine, stored)
	for _, v := range removed {
		if used[v.Ref()] == "" {
			list = append(list, v.Ref())
		}
	}
	return list, nil
}

// drop removes versions from the store. The objects that only they refer to stay until the next sweep.
func (reg *Registry) drop(list []image.Ref) error {
	for _, r := range list {
		if err := reg.Store.RemoveVersion(r); err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}
