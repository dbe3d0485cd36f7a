package versions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/store"
)

// Remove removes the version ref unless it is in use; control.VersionsBackend has the details.
func (reg *Registry) Remove(ctx context.Context, ref string, how control.RemoveRequest) (control.PruneResult, error) {
	v, err := reg.Follow.Now().Resolve(ref)
	if err != nil {
		return control.PruneResult{}, err
	}
	if r, _ := image.ParseRef(ref); r.Number == 0 {
		return control.PruneResult{}, control.Errorf(control.Invalid,
			"remove %s: give its number, as in %s", ref, v.Ref())
	}
	pick := func(s coord.State) ([]image.Ref, error) {
		used, err := reg.inUse(s, reg.declares)
		if err != nil {
			return nil, err
		}
		if why := used[v.Ref()]; why != "" {
			return nil, control.Errorf(control.Conflict, "remove %s: %s", v.Ref(), why).
				WithHint(removable(s, v))
		}
		return []image.Ref{v.Ref()}, nil
	}
	return reg.remove(ctx, pick, how)
}

// removable tells how a version that is in use can become one that is not.
func removable(s coord.State, v image.Version) string {
	im := s.Images[v.Image]
	if current, ok := im.Followed(); ok && current.Number == v.Number {
		return fmt.Sprintf("move the nodes to another version first: dim rollout '@*' %s@NUMBER --when now", v.Image)
	}
	if now, ok := im.Version(v.Number); ok && len(now.Tags) > 0 {
		return fmt.Sprintf("dim image tag --delete %s@%s", v.Image, now.Tags[0])
	}
	return "dim image show " + v.Ref().String() + " tells its nodes"
}

// Prune removes old versions that are not in use; control.VersionsBackend has the details.
func (reg *Registry) Prune(ctx context.Context, r control.PruneRequest) (control.PruneResult, error) {
	if r.Keep < 1 {
		return control.PruneResult{}, control.Errorf(control.Invalid,
			"prune: keep %d versions: at least one stays", r.Keep)
	}
	if _, captured := reg.Follow.Now().State.Images[r.Image].Newest(); r.Image != "" && !captured {
		return control.PruneResult{}, control.Errorf(control.NotFound,
			"prune: no image %s has versions", r.Image)
	}
	var kept []control.KeptVersion
	pick := func(s coord.State) (drop []image.Ref, err error) {
		drop, kept, err = reg.pick(s, r)
		return drop, err
	}
	out, err := reg.remove(ctx, pick, control.RemoveRequest{DryRun: r.DryRun})
	out.Kept = kept
	return out, err
}

// pick divides the versions into those to remove and those that stay.
func (reg *Registry) pick(
	s coord.State, r control.PruneRequest,
) (drop []image.Ref, kept []control.KeptVersion, err error) {
	used, err := reg.inUse(s, reg.declares)
	if err != nil {
		return nil, nil, err
	}
	for name, im := range s.Images {
		if r.Image != "" && r.Image != name {
			continue
		}
		for i, v := range im.Versions {
			why := used[v.Ref()]
			switch {
			case i == len(im.Versions)-1:
				why = "it is the newest of " + name
			case why == "" && i >= len(im.Versions)-r.Keep:
				why = fmt.Sprintf("it is one of the last %d", r.Keep)
			case why == "":
				drop = append(drop, v.Ref())
				continue
			}
			kept = append(kept, control.KeptVersion{Version: v.Ref().String(), Why: why})
		}
	}
	slices.SortFunc(drop, compareRefs)
	slices.SortStableFunc(kept, func(a, b control.KeptVersion) int {
		x, _ := image.ParseRef(a.Version)
		y, _ := image.ParseRef(b.Version)
		return compareRefs(x, y)
	})
	return drop, kept, nil
}

func compareRefs(a, b image.Ref) int {
	return cmp.Or(cmp.Compare(a.Image, b.Image), cmp.Compare(a.Number, b.Number))
}

// picker chooses versions to remove from a state.
type picker func(coord.State) ([]image.Ref, error)

// remove removes the versions that pick chooses: from the shared state, then from the store, then the objects that only
// they refer to. A crash between leaves something that the next prune removes, never a version without its content.
func (reg *Registry) remove(ctx context.Context, pick picker, how control.RemoveRequest) (control.PruneResult, error) {
	out := control.PruneResult{DryRun: how.DryRun, Versions: []string{}}
	shared, err := reg.Follow.Change(ctx)
	if err != nil {
		return out, err
	}
	var refs []image.Ref
	if how.DryRun {
		refs, err = pick(reg.Follow.Now().State)
	} else {
		refs, err = reg.withdraw(ctx, shared, pick)
	}
	for _, r := range refs {
		out.Versions = append(out.Versions, r.String())
	}
	if err != nil {
		return out, err
	}
	left, err := reg.leftOver()
	if err != nil {
		return out, err
	}
	var g store.Garbage
	if how.DryRun {
		g, err = reg.Store.Garbage(ctx, append(left, refs...), reg.roots())
	} else {
		g, err = reg.sweep(ctx, left)
	}
	out.Objects, out.Bytes = g.Objects, g.Bytes
	if locked, ok := errors.AsType[*store.LockedError](err); ok {
		err = control.Errorf(control.Busy, "prune: objects are coming in now, for %s", locked.Holder).
			WithHint("the versions are gone; what they leave over goes with the next dim image prune")
	}
	return out, err
}

// withdrawTimeout bounds how long switches of replicas wait because versions are removed from the shared state.
const withdrawTimeout = 15 * time.Second

// withdraw removes versions from the shared state until pick chooses no more. No state is adopted meanwhile, so no
// replica here moves to a version that is being removed.
func (reg *Registry) withdraw(ctx context.Context, shared *coord.Coord, pick picker) (all []image.Ref, err error) {
	ctx, cancel := context.WithTimeout(ctx, withdrawTimeout)
	defer cancel()
	err = reg.Follow.Exclusive(ctx, shared, func() (changed bool, err error) {
		for {
			refs, err := shared.RemoveVersions(ctx, func(s coord.State) ([]image.Ref, error) {
				refs, err := pick(s)
				return slices.DeleteFunc(refs, func(r image.Ref) bool { _, there := s.Resolve(r); return !there }), err
			})
			if err != nil || len(refs) == 0 {
				return len(all) > 0, follow.APIError(err)
			}
			for _, r := range refs {
				reg.Log.Info("version removed", "version", r.String())
				reg.Removed(r)
			}
			all = append(all, refs...)
		}
	})
	return all, err
}

// roots returns the digests of the versions that replicas here need, whatever the shared state says, and of those that
// are arriving.
func (reg *Registry) roots() []image.Digest {
	list := reg.Arriving()
	pinned, _ := reg.Replicas.Pinned(reg.declares)
	for _, v := range pinned {
		list = append(list, v.Digest)
	}
	return list
}

func (reg *Registry) sweep(ctx context.Context, left []image.Ref) (store.Garbage, error) {
	if err := reg.drop(left); err != nil {
		return store.Garbage{}, err
	}
	g, err := reg.Store.Sweep(ctx, reg.roots())
	if err == nil && g.Objects > 0 {
		reg.Log.Info("objects removed", "objects", g.Objects, "bytes", g.Bytes)
	}
	return g, err
}
