package holdings

import (
	"context"
	"errors"

	"dim/internal/cluster"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/store"
)

// last is how many of the newest versions of an image stay that no node needs: nodes go back to one of them at once,
// and the next version comes as its difference to one of them.
const last = 3

// removeUnneeded removes the versions that this server does not need, then the objects that only they lead to.
func (k *Keeper) removeUnneeded(ctx context.Context) error {
	var removed int
	var err error
	k.Declared.Stable(func(now *follow.Declared) { removed, err = k.removeVersions(now) })
	if err != nil || removed == 0 {
		return err
	}
	k.Puller.ForgetPartial() // all that is wanted is whole
	g, err := k.Store.Sweep(ctx, k.roots())
	if _, locked := errors.AsType[*store.LockedError](err); locked {
		return nil // what is left goes with the next one
	}
	if err == nil && g.Objects > 0 {
		k.Log.Info("objects removed", "objects", g.Objects, "bytes", g.Bytes)
	}
	return err
}

// ArrivingRoots returns the digests of the versions that are wanted and not whole yet.
func (k *Keeper) ArrivingRoots() (list []image.Digest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.missing {
		list = append(list, w.version.Digest)
	}
	return list
}

// removeVersions removes the records of versions that are not needed. No replica can move to one meanwhile, because no
// state is adopted.
func (k *Keeper) removeVersions(now *follow.Declared) (removed int, err error) {
	me, ok := now.Cluster.Server(k.Server)
	if !ok || me.Has(cluster.RoleHead) || now.State.Revision == 0 {
		return 0, nil
	}
	keep := k.needed(now)
	images, err := k.Store.Images()
	if err != nil {
		return 0, err
	}
	for _, name := range images {
		if now.State.Images[name] == nil {
			continue // the shared state was lost, or the image has just begun
		}
		versions, err := k.Store.Versions(name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return removed, err
		}
		for _, v := range versions {
			if keep[v.Digest] {
				continue
			}
			if err := k.Store.RemoveVersion(v.Ref()); err != nil {
				return removed, err
			}
			k.Log.Info("version removed", "version", v.Ref().String(), "reason", "no node of this server needs it")
			k.Removed(v.Ref())
			removed++
		}
	}
	return removed, nil
}

// needed returns the roots of the versions that stay.
func (k *Keeper) needed(now *follow.Declared) map[image.Digest]bool {
	keep := map[image.Digest]bool{}
	served := map[string]bool{}
	for _, w := range k.wants(now) {
		keep[w.version.Digest] = true
		served[w.version.Image] = true
	}
	for name, im := range now.State.Images {
		for i, v := range im.Versions {
			if served[name] && i >= len(im.Versions)-last {
				keep[v.Digest] = true
			}
		}
	}
	for ref := range k.Used() {
		if v, ok := now.State.Resolve(ref); ok {
			keep[v.Digest] = true
		}
	}
	for _, d := range k.roots() {
		keep[d] = true
	}
	return keep
}

// roots returns the roots of the versions that replicas here need, that other servers fetch, or that are arriving.
func (k *Keeper) roots() []image.Digest {
	list := append(k.Asked(), k.ArrivingRoots()...)
	now := k.Declared.Now()
	pinned, _ := k.Replicas.Pinned(func(node string) bool {
		_, ok := now.Cluster.Node(cluster.NodeName(node))
		return ok
	})
	for _, v := range pinned {
		list = append(list, v.Digest)
	}
	return list
}
