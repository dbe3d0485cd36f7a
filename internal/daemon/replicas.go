package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"dim/internal/cluster"
	"dim/internal/image"
	"dim/internal/nodefile"
	"dim/internal/replica"
	"dim/internal/versionfs"
)

// reconcile makes every replica of this server's nodes show what is declared: those that are not served yet are attached, those
// that show something else are switched, all to the same version together. A node that cannot be served is a problem
// that is shown; the others are served all the same.
func (d *daemon) reconcile(ctx context.Context) error {
	d.adopting.Lock()
	defer d.adopting.Unlock()
	return d.reconcileLocked(ctx)
}

func (d *daemon) reconcileLocked(ctx context.Context) error {
	now := d.declared()
	plan := newPlan(now)
	var errs []error
	var fresh []*export
	var moves []replica.Move
	for _, n := range now.cluster.Nodes {
		if !d.mine(n) {
			continue
		}
		x, move, err := d.place(plan, n)
		d.fail("node "+string(n.Name), err)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if x != nil {
			fresh = append(fresh, x)
		}
		if move != nil {
			moves = append(moves, *move)
		}
	}
	if len(moves) > 0 {
		errs = append(errs, d.move(ctx, moves))
	}
	d.exports.add(fresh...)
	d.exports.drop(func(x *export) bool {
		if x.node == "" {
			return true
		}
		n, ok := now.cluster.Node(x.node)
		if !ok {
			d.tracker.Forget(x.node)
		}
		return ok && d.mine(n)
	})
	return errors.Join(errs...)
}

// mine reports whether this server may have to serve n.
func (d *daemon) mine(n *cluster.Node) bool {
	return slices.ContainsFunc(n.Servers, func(s *cluster.Server) bool { return s.Name == d.server })
}

// place decides what has to be done for n: a new export, or a move of the replica that it has (which costs nothing when
// that shows the right thing already). A node whose image has no version yet needs nothing.
func (d *daemon) place(plan *plan, n *cluster.Node) (*export, *replica.Move, error) {
	v, err := plan.now.version(n)
	if err != nil {
		return nil, nil, nil
	}
	if _, err := d.store.Resolve(image.Ref{Image: v.Image, Number: v.Number}); err != nil {
		return nil, nil, fmt.Errorf("serve %s: %w", n.Name, err)
	}
	files, err := plan.files(d, n, v)
	if err != nil {
		return nil, nil, fmt.Errorf("render files of %s: %w", n.Name, err)
	}
	old := d.exports.node(n.Name)
	if old != nil && old.fs.Tree() == replica.ReplicaTree(string(n.Name), string(n.Image.Name)) {
		x := &export{fs: old.fs, node: n.Name, paths: pathsOf(files), allowed: addressesOf(n)}
		x.lastCall.Store(old.lastCall.Load())
		return x, &replica.Move{Replica: old.fs, Version: v, Files: files, Keep: n.Image.Keep, Shared: n.Image.Shared}, nil
	}
	r, err := d.set.Attach(replica.Spec{
		Node: string(n.Name), Image: string(n.Image.Name), Version: v, Files: files, Keep: n.Image.Keep, Shared: n.Image.Shared,
	})
	if err != nil {
		return nil, nil, err
	}
	return &export{fs: r, node: n.Name, paths: pathsOf(files), allowed: addressesOf(n)}, nil, nil
}

// move switches replicas and says so.
func (d *daemon) move(ctx context.Context, moves []replica.Move) error {
	report, err := d.set.Switch(ctx, moves)
	for _, a := range report.Aside {
		d.log.Info("a node's own copy was set aside", "node", a.Node, "image", a.Image, "path", "/"+a.Path, "kind", string(a.Kind))
	}
	if err != nil {
		return fmt.Errorf("switch replicas: %w", err)
	}
	if report.Replicas > 0 {
		d.log.Info("replicas switched", "replicas", report.Replicas, "paths", report.Paths, "aside", len(report.Aside), "took", report.Took)
	}
	return nil
}

func addressesOf(n *cluster.Node) []netip.Addr {
	var list []netip.Addr
	for _, card := range n.Interfaces {
		if card.Address.IsValid() {
			list = append(list, card.Address)
		}
	}
	return list
}

func pathsOf(f replica.NodeFiles) []string {
	paths := make([]string, len(f.List))
	for i := range f.List {
		paths[i] = f.List[i].Path
	}
	return paths
}

// plan holds what is the same for many nodes while they are placed.
type plan struct {
	now   *declared
	bases map[baseKey]*nodefile.Base
}

type baseKey struct {
	image   cluster.ImageName
	version image.Digest
}

func newPlan(now *declared) *plan { return &plan{now: now, bases: map[baseKey]*nodefile.Base{}} }

// files renders the node files of n over version v. They are stamped with the version's time, which is the same on every server.
func (p *plan) files(d *daemon, n *cluster.Node, v image.Version) (replica.NodeFiles, error) {
	key := baseKey{n.Image.Name, v.Digest}
	base := p.bases[key]
	if base == nil {
		var err error
		stamp := image.Time{Sec: v.Created.Unix()}
		if base, err = nodefile.Prepare(p.now.cluster, n.Image, versionfs.New(d.store, v.Root), stamp); err != nil {
			return replica.NodeFiles{}, err
		}
		p.bases[key] = base
	}
	set, err := base.Node(n)
	if err != nil {
		return replica.NodeFiles{}, err
	}
	files := replica.NodeFiles{Content: set.Content}
	for _, f := range set.Files() {
		files.List = append(files.List, replica.NodeFile{
			Path: f.Path, Mode: f.Mode, UID: f.UID, GID: f.GID, Mtime: f.Mtime, Size: f.Size, Digest: f.Digest,
		})
	}
	return files, nil
}
