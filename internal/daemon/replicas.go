package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"dim/internal/cluster"
	"dim/internal/image"
	"dim/internal/nodefile"
	"dim/internal/problems"
	"dim/internal/replica"
	"dim/internal/versionfs"
)

// mendEvery is how often what could not be done is tried again.
const mendEvery = 10 * time.Second

// mend tries again what could not be done, until ctx ends.
func (d *daemon) mend(ctx context.Context) error {
	tick := time.NewTicker(mendEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if d.unsettled.Load() || d.holds.Load() {
			d.reconcile(ctx)
		}
		if d.untold.Load() {
			d.tellAgain(ctx)
		}
	}
}

// reconcile makes every replica of this server's nodes show what is declared: those that are not served yet are attached, those
// that show something else are switched, all to the same version together. A node that cannot be served is a problem
// that is shown, and tried again later; the others are served all the same.
func (d *daemon) reconcile(ctx context.Context) {
	d.adopting.Lock()
	defer d.adopting.Unlock()
	d.reconcileLocked(ctx)
}

func (d *daemon) reconcileLocked(ctx context.Context) {
	now := d.declared()
	plan := newPlan(now)
	failed := map[problems.Subject]error{}
	list := d.kept(now)
	var moves []replica.Move
	holds := false
	var moved []cluster.NodeName
	for _, n := range now.cluster.Nodes {
		if !d.mine(n) {
			continue
		}
		v, held, err := d.target(now, n)
		holds = holds || held
		if err != nil {
			if err = now.missing(n); err != nil {
				failed[problems.Node(n.Name)] = err
			}
			continue // without a version it needs nothing
		}
		x, move, err := d.place(plan, n, v)
		if err != nil {
			failed[problems.Node(n.Name)] = err
			continue
		}
		if x != nil {
			list = append(list, x)
		}
		if move != nil {
			moves, moved = append(moves, *move), append(moved, n.Name)
		}
	}
	if len(moves) > 0 {
		held, err := d.move(ctx, moves)
		if d.unmoved = err != nil; d.unmoved {
			failed[problems.Of(problems.KindReplicas)] = err
		}
		d.hold(held, list, failed)
	}
	d.holds.Store(holds)
	d.exports.replace(list)
	d.push.Wake(moved...)
	d.forget(now)
	d.settle(failed)
}

// kept returns the exports that stay whatever is decided about replicas: versions, and what nodes of this server have used until
// now.
func (d *daemon) kept(now *declared) []*export {
	var list []*export
	for _, x := range d.exports.table.Load().trees {
		if x.node == "" {
			list = append(list, x)
			continue
		}
		if n, ok := now.cluster.Node(x.node); ok && d.mine(n) {
			y := *x
			y.old = x.fs.Tree() != treeOf(n)
			list = append(list, &y)
		}
	}
	return list
}

// forget drops what is known of nodes and images that are no longer declared.
func (d *daemon) forget(now *declared) {
	d.wrong.Remove(func(about problems.Subject) bool {
		_, declared := now.cluster.Image(cluster.ImageName(about.Name))
		return about.Kind == problems.KindImage && !declared
	})
	for name := range d.seen {
		if _, ok := now.cluster.Node(name); !ok {
			d.liveness.Forget(name)
			d.push.Forget(name)
			delete(d.seen, name)
		}
	}
	for _, n := range now.cluster.Nodes {
		d.seen[n.Name] = true
	}
}

// settle notes what failed, in place of what failed before, and says so when it is something new.
func (d *daemon) settle(failed map[problems.Subject]error) {
	d.unsettled.Store(len(failed) > 0)
	said := 0
	for about, err := range failed {
		if d.wrong.Set(about, err) {
			said++
			if said <= saidAtOnce {
				d.log.Error("not served as declared", "about", about.String(), "error", err)
			}
		}
	}
	if said > saidAtOnce {
		d.log.Error("more is not served as declared", "problems", said-saidAtOnce)
	}
	d.wrong.Remove(func(about problems.Subject) bool {
		_, still := failed[about]
		return !still && (about.Kind == problems.KindReplicas || about.Kind == problems.KindNode)
	})
}

// saidAtOnce bounds the lines of log when the same befalls all nodes.
const saidAtOnce = 5

// mine reports whether this server may have to serve n.
func (d *daemon) mine(n *cluster.Node) bool {
	return slices.ContainsFunc(n.Servers, func(s *cluster.Server) bool { return s.Name == d.server })
}

// place decides what has to be done for n to show v: a new export, and a move of the replica if there is one (which costs nothing when
// that shows the right thing already).
func (d *daemon) place(plan *plan, n *cluster.Node, v image.Version) (*export, *replica.Move, error) {
	from := madeFrom{plan.now.digest, v.Digest, v.Number}
	old := d.exports.node(n.Name)
	if old != nil && old.from == from && !d.unmoved {
		return nil, nil, nil // a state that changed elsewhere costs nothing here
	}
	if err := plan.has(d, v); err != nil {
		return nil, nil, fmt.Errorf("serve %s: %w", n.Name, err)
	}
	files, err := plan.files(d, n, n.Image, v)
	if err != nil {
		return nil, nil, fmt.Errorf("render files of %s: %w", n.Name, err)
	}
	x := &export{node: n.Name, from: from, paths: pathsOf(files), called: new(lastCall), meter: d.newMeter(n, n.Image, old)}
	if r, ok := d.set.Find(treeOf(n)); ok {
		x.fs = r
		return x, &replica.Move{
			Replica: r, Version: v, Files: files, Keep: n.Image.Keep, Shared: n.Image.Shared, Rules: rulesOf(n, n.Image),
			Durability: durability(n.Image), Mounted: d.mountedOn(n),
		}, nil
	}
	x.fs, err = d.set.Attach(replica.Spec{
		Node: string(n.Name), Image: string(n.Image.Name), Version: v, Files: files, Keep: n.Image.Keep, Shared: n.Image.Shared,
		Rules: rulesOf(n, n.Image), Durability: durability(n.Image),
	})
	return x, nil, err
}

// former serves the replica that n has of an image that is no longer its own: the node runs on it until
// it boots, and the server may have been restarted meanwhile.
func (d *daemon) former(node cluster.NodeName, name cluster.ImageName) (*export, error) {
	d.adopting.Lock()
	defer d.adopting.Unlock()
	tree := replica.ReplicaTree(string(node), string(name))
	if x := d.exports.table.Load().trees[tree]; x != nil {
		return x, nil
	}
	plan := newPlan(d.declared())
	n, declared := plan.now.cluster.Node(node)
	im, known := plan.now.cluster.Image(name)
	if !declared || !known || !d.mine(n) {
		return nil, fmt.Errorf("serve %s: it has no more to do with image %s", node, name)
	}
	v, ok := plan.now.state.Images[string(im.Name)].Followed()
	if !ok {
		return nil, fmt.Errorf("serve %s: image %s has no version", n.Name, im.Name)
	}
	x := &export{node: n.Name, old: true, called: new(lastCall), meter: d.newMeter(n, im, d.exports.node(n.Name))}
	r, ok := d.set.Find(tree)
	if !ok {
		files, err := plan.files(d, n, im, v)
		if err != nil {
			return nil, err
		}
		r, err = d.set.Attach(replica.Spec{
			Node: string(n.Name), Image: string(im.Name), Version: v, Files: files, Keep: im.Keep, Shared: im.Shared,
			Rules: rulesOf(n, im), Durability: durability(im),
		})
		if err != nil {
			return nil, err
		}
	}
	x.fs = r
	d.exports.add(x)
	return x, nil
}

// treeOf is the tree of n's replica of its present image.
func treeOf(n *cluster.Node) replica.Tree {
	return replica.ReplicaTree(string(n.Name), string(n.Image.Name))
}

// move switches replicas and says so. It returns those that stay for a mount.
func (d *daemon) move(ctx context.Context, moves []replica.Move) ([]replica.Held, error) {
	report, err := d.set.Switch(ctx, moves)
	for _, a := range report.Aside {
		d.log.Info("a node's own copy was set aside", "node", a.Node, "image", a.Image, "path", "/"+a.Path, "kind", string(a.Kind))
	}
	for _, err := range report.Missed {
		d.log.Warn("no snapshot was taken before a switch", "error", err)
	}
	if report.Snapshots > 0 {
		d.log.Info("snapshots of layers taken", "snapshots", report.Snapshots)
	}
	if err != nil {
		return report.Held, fmt.Errorf("switch replicas: %w", err)
	}
	if report.Replicas > 0 {
		d.log.Info("replicas switched", "replicas", report.Replicas, "paths", report.Paths, "aside", len(report.Aside), "took", report.Took)
	}
	return report.Held, nil
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
	known map[image.Ref]error // whether the store has a version
}

type baseKey struct {
	image   cluster.ImageName
	version image.Digest
}

func newPlan(now *declared) *plan {
	return &plan{now: now, bases: map[baseKey]*nodefile.Base{}, known: map[image.Ref]error{}}
}

// has returns nil when the store has version v.
func (p *plan) has(d *daemon, v image.Version) error {
	ref := image.Ref{Image: v.Image, Number: v.Number}
	err, asked := p.known[ref]
	if !asked {
		_, err = d.store.Resolve(ref)
		p.known[ref] = err
	}
	return err
}

// files renders the node files of n over version v of im. They are stamped with the time at which the description was applied: it is
// the same on every server, and a switch to another version touches no node file whose content stays.
func (p *plan) files(d *daemon, n *cluster.Node, im *cluster.Image, v image.Version) (replica.NodeFiles, error) {
	key := baseKey{im.Name, v.Digest}
	base := p.bases[key]
	if base == nil {
		var err error
		stamp := image.Time{Sec: v.Created.Unix()}
		if in := p.now.state.Description; in != nil && in.Digest == p.now.digest {
			stamp.Sec = in.Applied.Unix()
		}
		if base, err = nodefile.Prepare(p.now.cluster, im, versionfs.New(d.store, v.Root), stamp); err != nil {
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
