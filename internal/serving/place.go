package serving

import (
	"errors"
	"fmt"

	"dim/internal/cluster"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/layers"
	"dim/internal/meter"
	"dim/internal/nodefile"
	"dim/internal/pkgdb"
	"dim/internal/push"
	"dim/internal/replica"
	"dim/internal/store"
	"dim/internal/versionfs"
)

// treeOf is the tree of n's replica of its present image.
func treeOf(n *cluster.Node) replica.Tree {
	return replica.ReplicaTree(string(n.Name), string(n.Image.Name))
}

// placement is what has to be done for a node to show a version.
type placement struct {
	export *export       // nil: nothing has changed
	spec   *replica.Spec // of a replica that is to be attached; nil: it is
	move   *replica.Move // of one that is attached; it costs nothing when the replica shows the right thing already
	left   string        // why the replica stays as it is because of the node's packages
	again  bool          // it is attached as it was, and has to be placed again then
}

// place decides what has to be done for n to show v.
func (s *Server) place(p *plan, n *cluster.Node, v image.Version) (placement, error) {
	from := madeFrom{p.now.Digest, v.Digest, v.Number}
	old := s.node(n.Name)
	if old != nil && old.from == from {
		return placement{}, nil // a state that changed elsewhere costs nothing here
	}
	if err := p.inStore(s, v); err != nil && !s.Partial(v) {
		return placement{}, fmt.Errorf("serve %s: %w", n.Name, err)
	}
	spec, err := s.spec(p, n, n.Image, v)
	if err != nil {
		return placement{}, fmt.Errorf("render files of %s: %w", n.Name, err)
	}
	x := &export{node: n.Name, from: from, noted: new(lastCall), meter: s.newMeter(n, n.Image, old)}
	for i := range spec.Files.List {
		x.paths = append(x.paths, spec.Files.List[i].Path)
	}
	if old != nil {
		x.noted = old.noted
	}
	r, ok := s.Set.Find(treeOf(n))
	if !ok {
		was, behind := s.behindWithPackages(n, v)
		if behind {
			if spec, err = s.spec(p, n, n.Image, was); err != nil {
				return placement{}, fmt.Errorf("render files of %s: %w", n.Name, err)
			}
		}
		return placement{export: x, spec: &spec, again: behind}, nil
	}
	x.fs = r
	conflicts, err := s.packages(p, n, r, v)
	if err != nil {
		return placement{}, err
	}
	move := &replica.Move{
		Replica: r, Version: v, Files: spec.Files, Keep: spec.Keep, Shared: spec.Shared, Rules: spec.Rules,
		Durability: spec.Durability, Mounted: s.mountedOn(n),
	}
	left := addPackages(move, &conflicts, func() pkgdb.OnConflict { return p.onConflict(s, n) })
	if left != "" {
		x.from = madeFrom{} // differs from every other, so the next run moves it again
		return placement{export: x, left: left}, nil
	}
	return placement{export: x, move: move}, nil
}

// behindWithPackages returns the version that the replica of n follows, which is not served yet. ok is false if that is
// v, or if the node has changed no packages: then it can be switched while it is attached.
func (s *Server) behindWithPackages(n *cluster.Node, v image.Version) (was image.Version, ok bool) {
	was, known := s.Set.Followed(string(n.Name), string(n.Image.Name))
	if !known || was.Digest == v.Digest {
		return was, false
	}
	state, err := layers.PackageState(s.Set, string(n.Name), string(n.Image.Name))
	return was, state != "" && err == nil
}

// formerReplica exports the replica that a node has of an image that is no longer its own: the node runs on it until it
// boots, and this server may have been restarted meanwhile.
func (s *Server) formerReplica(node cluster.NodeName, name cluster.ImageName) (x *export, err error) {
	s.Declared.Stable(func(now *follow.Declared) { x, err = s.attachFormer(now, node, name) })
	return x, err
}

func (s *Server) attachFormer(now *follow.Declared, node cluster.NodeName, name cluster.ImageName) (*export, error) {
	tree := replica.ReplicaTree(string(node), string(name))
	if x := s.table.Load().trees[tree]; x != nil {
		return x, nil
	}
	n, declared := now.Cluster.Node(node)
	im, known := now.Cluster.Image(name)
	if !declared || !known || !s.Serves(n) {
		return nil, fmt.Errorf("serve %s: it has no more to do with image %s", node, name)
	}
	v, ok := now.State.Images[string(im.Name)].Followed()
	if !ok {
		return nil, fmt.Errorf("serve %s: image %s has no version", n.Name, im.Name)
	}
	x := &export{node: n.Name, former: true, noted: new(lastCall), meter: s.newMeter(n, im, s.node(n.Name))}
	r, ok := s.Set.Find(tree)
	if !ok {
		spec, err := s.spec(newPlan(now), n, im, v)
		if err != nil {
			return nil, err
		}
		if r, err = s.Set.Attach(spec); err != nil {
			return nil, err
		}
	}
	x.fs = r
	s.add(x)
	return x, nil
}

// newMeter returns the meter of node n's replica of im. It adds to what the node's export has counted until now.
func (s *Server) newMeter(n *cluster.Node, im *cluster.Image, old *export) *meter.Meter {
	m := &meter.Meter{Counts: new(meter.Counts), Class: s.Class(n, im)}
	if old != nil && old.meter != nil {
		m.Counts = old.meter.Counts
	}
	return m
}

// plan holds what is the same for many nodes while they are placed.
type plan struct {
	now   *follow.Declared
	bases map[baseKey]*nodefile.Base
	known map[image.Ref]error // whether the store has a version

	same map[[2]image.Digest]bool // pairs of versions, see samePackages
}

type baseKey struct {
	image   cluster.ImageName
	version image.Digest
}

func newPlan(now *follow.Declared) *plan {
	return &plan{
		now: now, bases: map[baseKey]*nodefile.Base{}, known: map[image.Ref]error{},
		same: map[[2]image.Digest]bool{},
	}
}

// inStore returns nil when the store has version v.
func (p *plan) inStore(s *Server, v image.Version) error {
	ref := image.Ref{Image: v.Image, Number: v.Number}
	err, asked := p.known[ref]
	if !asked {
		var here image.Version
		here, err = s.Store.Resolve(ref)
		if errors.Is(err, store.ErrNotFound) || err == nil && here.Digest != v.Digest {
			err = s.lacks(ref)
		}
		p.known[ref] = err
	}
	return err
}

// lacks returns the error that the store has no version of a reference. An image server gets versions from others; a
// head that lacks one has lost it.
func (s *Server) lacks(ref image.Ref) error {
	if me, ok := s.Declared.Now().Cluster.Server(s.Server); ok && !me.Has(cluster.RoleHead) {
		return &awaitedError{ref}
	}
	return fmt.Errorf("%s is not in the store of this server: %w", ref, store.ErrNotFound)
}

// awaitedError is a version that has not arrived at this server yet. It is a store.ErrNotFound.
type awaitedError struct{ ref image.Ref }

func (e *awaitedError) Error() string {
	return fmt.Sprintf("%s has not arrived at this server yet", e.ref)
}

// Unwrap lets errors.Is find the cause.
func (e *awaitedError) Unwrap() error { return store.ErrNotFound }

// spec returns what n's replica of im is to show over version v.
func (s *Server) spec(p *plan, n *cluster.Node, im *cluster.Image, v image.Version) (replica.Spec, error) {
	files, err := p.files(s, n, im, v)
	return replica.Spec{
		Node: string(n.Name), Image: string(im.Name), Version: v, Files: files, Keep: im.Keep, Shared: im.Shared,
		Rules: rulesOf(n, im), Durability: durability(im),
	}, err
}

// files renders the node files of n over version v of im. They are stamped with the time at which the description was
// applied: it is the same on every server, and a switch to another version touches no node file whose content stays.
func (p *plan) files(s *Server, n *cluster.Node, im *cluster.Image, v image.Version) (replica.NodeFiles, error) {
	key := baseKey{im.Name, v.Digest}
	base := p.bases[key]
	if base == nil {
		var err error
		stamp := image.Time{Sec: v.Created.Unix()}
		if in := p.now.State.Description; in != nil && in.Digest == p.now.Digest {
			stamp.Sec = in.Applied.Unix()
		}
		machines := s.machinesOf(p.now.Cluster)
		if base, err = nodefile.Prepare(machines, im, versionfs.New(s.Content, v.Root), stamp); err != nil {
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

// machinesOf returns the machines of c. It makes them once for each description.
func (s *Server) machinesOf(c *cluster.Cluster) *nodefile.Machines {
	m := s.machines.Load()
	if m == nil || !m.Of(c) {
		m = nodefile.NewMachines(c)
		s.machines.Store(m)
	}
	return m
}

// rulesOf is what the description says of the state of n's replica of im.
func rulesOf(n *cluster.Node, im *cluster.Image) replica.Rules {
	quota := n.Quota(im)
	rules := replica.Rules{
		Merge: im.Merge, SavedFor: im.SavedFor, QuotaBytes: quota.Bytes, QuotaFiles: quota.Files,
	}
	if s := im.Snapshots; s != nil {
		rules.Snapshots, rules.SnapshotsFor, rules.SnapshotCopy = s.Keep, s.For, s.Copy
	}
	return rules
}

// durability is what replies to the nodes of an image promise.
func durability(im *cluster.Image) replica.Durability {
	switch im.Durability {
	case cluster.DurabilityAsyncMetadata:
		return replica.AsyncNames
	case cluster.DurabilityAsync:
		return replica.Relaxed
	}
	return replica.Synced
}

// mountedOn returns the paths of n's replica on which the node has mounted something: what it reported last, also
// before this server was started, else what the description says of nodes that run. A boot ends all mounts.
func (s *Server) mountedOn(n *cluster.Node) []string {
	reported, ok := s.Push.Mounts(n.Name)
	state := s.Liveness.State(n.Name)
	if !ok || reported.Image != string(n.Image.Name) || state.BootedSince(reported.Called) {
		if len(n.Image.Mounts) == 0 || !state.Running {
			return nil
		}
		return n.Image.Mounts
	}
	var paths []string
	for _, m := range reported.Mounts {
		paths = append(paths, m.Path)
	}
	return paths
}

// ChangedDirs returns the directories of a node's replica in which something has changed since a stamp. An empty image
// is the node's present one.
func (s *Server) ChangedDirs(node cluster.NodeName, image string, stamp int64) (push.Changes, error) {
	if n, ok := s.Declared.Now().Cluster.Node(node); ok && image == "" {
		image = string(n.Image.Name)
	}
	r, ok := s.Set.Find(replica.ReplicaTree(string(node), image))
	if !ok {
		return push.Changes{}, fmt.Errorf("%s has no replica of image %q here", node, image)
	}
	l := r.ChangedDirs(stamp)
	return push.Changes{Image: image, Stamp: l.Stamp, Dirs: l.Dirs}, nil
}
