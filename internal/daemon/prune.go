package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/replica"
	"dim/internal/rollout"
	"dim/internal/store"
)

// inUse tells for each version that must stay why, as far as this server knows.
type inUse map[image.Ref]string

func (u inUse) note(r image.Ref, why string) {
	r.Tag = ""
	if u[r] == "" {
		u[r] = why
	}
}

// inUse finds the versions of s that must stay. What is declared for nodes counts whether they are served here or not.
func (d *daemon) inUse(s coord.State) (inUse, error) {
	used := inUse{}
	for name, im := range s.Images {
		if v, ok := im.Followed(); ok {
			used.note(v.Ref(), "it is the current one of "+name)
		}
		for _, v := range im.Versions {
			if len(v.Tags) > 0 {
				used.note(v.Ref(), "it has the tag "+v.Tags[0])
			}
		}
	}
	for _, follow := range []coord.Refs{s.Desired, s.Next} {
		for node, ref := range follow {
			used.declared(s, ref, "node "+node+" is to run it")
		}
	}
	if err := used.rollouts(s); err != nil {
		return nil, err
	}
	for _, v := range d.set.Versions() {
		used.note(v.Ref(), "a replica shows it, or showed it until lately")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.mounts {
		used.note(m.version.Ref(), "it is mounted at "+m.Dir)
	}
	return used, nil
}

// declared notes what a reference names.
func (u inUse) declared(s coord.State, r image.Ref, why string) {
	if v, ok := s.Resolve(r); ok {
		u.note(v.Ref(), why)
	}
}

// rollouts notes what rollouts lead to and, as long as they are under way or the last of their image, what an undo leads back to.
func (u inUse) rollouts(s coord.State) error {
	list, err := rollout.List(s)
	if err != nil {
		return err
	}
	last := map[string]int{}
	for i := range list {
		last[list[i].Image] = max(last[list[i].Image], list[i].ID)
	}
	for i := range list {
		r := &list[i]
		if !r.UnderWay() && r.ID != last[r.Image] {
			continue
		}
		u.declared(s, r.Ref(), fmt.Sprintf("rollout %d leads to it", r.ID))
		back := fmt.Sprintf("an undo of rollout %d leads back to it", r.ID)
		if r.Current > 0 {
			u.note(image.Ref{Image: r.Image, Number: r.Current}, back)
		}
		for _, b := range r.Before {
			u.declared(s, b.Desired, back)
			u.declared(s, b.Next, back)
		}
	}
	return nil
}

// RemoveVersion implements control.Backend.
func (d *daemon) RemoveVersion(ctx context.Context, ref string, how control.RemoveRequest) (control.PruneResult, error) {
	v, err := d.declared().resolve(ref)
	if err != nil {
		return control.PruneResult{}, err
	}
	if r, _ := image.ParseRef(ref); r.Number == 0 {
		return control.PruneResult{}, control.Errorf(control.Invalid, "remove %s: give its number, as in %s", ref, v.Ref())
	}
	pick := func(s coord.State) ([]image.Ref, error) {
		used, err := d.inUse(s)
		if err != nil {
			return nil, err
		}
		if why := used[v.Ref()]; why != "" {
			return nil, control.Errorf(control.Conflict, "remove %s: %s", v.Ref(), why).WithHint("dim image show " + v.Ref().String() + " tells its tags and nodes")
		}
		return []image.Ref{v.Ref()}, nil
	}
	return d.remove(ctx, pick, how)
}

// Prune implements control.Backend.
func (d *daemon) Prune(ctx context.Context, r control.PruneRequest) (control.PruneResult, error) {
	if r.Keep < 1 {
		return control.PruneResult{}, control.Errorf(control.Invalid, "prune: keep %d versions: at least one stays", r.Keep)
	}
	if _, captured := d.declared().state.Images[r.Image].Newest(); r.Image != "" && !captured {
		return control.PruneResult{}, control.Errorf(control.NotFound, "prune %s: there is no image of that name that has versions", r.Image)
	}
	var kept []control.KeptVersion
	pick := func(s coord.State) (drop []image.Ref, err error) {
		drop, kept, err = d.pick(s, r)
		return drop, err
	}
	out, err := d.remove(ctx, pick, control.RemoveRequest{DryRun: r.DryRun})
	out.Kept = kept
	return out, err
}

// pick divides the versions into those that go and those that stay.
func (d *daemon) pick(s coord.State, r control.PruneRequest) (drop []image.Ref, kept []control.KeptVersion, err error) {
	used, err := d.inUse(s)
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

// remove removes the versions that pick picks, first from the shared state, then from the store, then what they alone led to: a crash
// between leaves something that the next prune finds, never a version without its content.
func (d *daemon) remove(ctx context.Context, pick func(coord.State) ([]image.Ref, error), how control.RemoveRequest) (control.PruneResult, error) {
	out := control.PruneResult{DryRun: how.DryRun, Versions: []string{}}
	shared, err := d.change(ctx)
	if err != nil {
		return out, err
	}
	var refs []image.Ref
	if how.DryRun {
		refs, err = pick(d.declared().state)
	} else {
		refs, err = d.forgetVersions(ctx, shared, pick)
	}
	for _, r := range refs {
		out.Versions = append(out.Versions, r.String())
	}
	if err != nil {
		return out, err
	}
	left, err := d.leftOver()
	if err != nil {
		return out, err
	}
	var g store.Garbage
	if how.DryRun {
		g, err = d.store.Garbage(ctx, append(left, refs...), d.roots())
	} else {
		g, err = d.sweep(ctx, left)
	}
	out.Objects, out.Bytes = g.Objects, g.Bytes
	if locked, ok := errors.AsType[*store.LockedError](err); ok {
		err = control.Errorf(control.Busy, "prune: objects are coming in now, for %s", locked.Holder).
			WithHint("the versions are gone; what they leave over goes with the next dim image prune")
	}
	return out, err
}

// forgetWithin bounds for how long replicas wait for the shared state because versions are removed.
const forgetWithin = 15 * time.Second

// forgetVersions removes versions from the shared state until pick picks no more. It holds adopting, so that no replica here moves
// to a version that is going.
func (d *daemon) forgetVersions(ctx context.Context, shared *coord.Coord, pick func(coord.State) ([]image.Ref, error)) ([]image.Ref, error) {
	d.adopting.Lock()
	defer d.adopting.Unlock()
	within, cancel := context.WithTimeout(ctx, forgetWithin)
	defer cancel()
	var all []image.Ref
	for {
		refs, err := shared.RemoveVersions(within, func(s coord.State) ([]image.Ref, error) {
			refs, err := pick(s)
			return slices.DeleteFunc(refs, func(r image.Ref) bool { _, there := s.Resolve(r); return !there }), err
		})
		if err != nil {
			return all, coded(err)
		}
		if len(refs) == 0 {
			break
		}
		for _, r := range refs {
			d.log.Info("version removed", "version", r.String())
			d.exports.drop(r)
		}
		all = append(all, refs...)
	}
	if len(all) == 0 {
		return nil, nil
	}
	s, err := shared.Snapshot(within)
	if err != nil {
		return all, coded(err)
	}
	return all, d.adoptLocked(ctx, s)
}

// roots are the digests of versions that replicas here may be asked for, whatever the shared state says.
func (d *daemon) roots() []image.Digest {
	var list []image.Digest
	for _, v := range d.set.Versions() {
		list = append(list, v.Digest)
	}
	return list
}

func (d *daemon) sweep(ctx context.Context, left []image.Ref) (store.Garbage, error) {
	if err := d.dropVersions(left); err != nil {
		return store.Garbage{}, err
	}
	g, err := d.store.Sweep(ctx, d.roots())
	if err == nil && g.Objects > 0 {
		d.log.Info("objects removed", "objects", g.Objects, "bytes", g.Bytes)
	}
	return g, err
}

// drop ends the export of a version that was removed.
func (e *exports) drop(r image.Ref) {
	e.changing.Lock()
	defer e.changing.Unlock()
	old := e.table.Load()
	t := &exportTable{trees: make(map[replica.Tree]*export, len(old.trees)), nodes: old.nodes}
	for tree, x := range old.trees {
		if x.node != "" || x.fs.Version().Image != r.Image || x.fs.Version().Number != r.Number {
			t.trees[tree] = x
		}
	}
	e.table.Store(t)
}
