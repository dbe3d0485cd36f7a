package daemon

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"dim/internal/caller"
	"dim/internal/cluster"
	"dim/internal/image"
	"dim/internal/meter"
	"dim/internal/nfs"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// exports tells the NFS server which trees there are for whom. A node is known by its addresses, and reaches its own
// replicas alone; root of this machine (loopback, from a privileged port) reaches all; declared admin networks reach versions, read-only.
type exports struct {
	d     *daemon
	table atomic.Pointer[exportTable] // replaced whole: Find is asked on every call and takes no lock

	changing sync.Mutex // held by who replaces table; below daemon.adopting
}

type exportTable struct {
	trees map[replica.Tree]*export
	nodes map[cluster.NodeName]*export
}

// export is one tree with who may use it.
type export struct {
	fs     *replica.Replica
	node   cluster.NodeName // "" for a version
	from   madeFrom         // what it is the replica for
	paths  []string         // of its node files
	old    bool             // of an image that the node no longer runs, but may until it boots
	called *lastCall
	meter  *meter.Meter // nil for a version
}

// lastCall is when a call for an export was noted last, in nanoseconds since the start of this process.
type lastCall struct{ atomic.Int64 }

// madeFrom is all that decides what a replica shows, besides its node.
type madeFrom struct {
	description, version image.Digest
	number               int
}

// noteEvery is how often at most a node's calls are noted.
const noteEvery = time.Second

func newExports(d *daemon) *exports {
	e := &exports{d: d}
	e.table.Store(&exportTable{trees: map[replica.Tree]*export{}, nodes: map[cluster.NodeName]*export{}})
	return e
}

// access is what one caller may use, as long as the description does not change.
type access struct {
	e   *exports
	of  *cluster.Cluster // the description that who comes from
	who caller.Caller
}

// errOrdinaryPort is the reason for which calls are denied.
var errOrdinaryPort = errors.New("any user may call from this port")

// Client implements nfs.Exports. A caller that is nobody has no rights, but its calls are answered.
func (e *exports) Client(peer nfs.Peer) (nfs.Client, error) {
	a := &access{e: e, of: e.d.cluster()}
	a.who, _ = caller.Resolve(a.of, caller.Peer(peer))
	if !a.who.Superuser {
		return nil, errOrdinaryPort
	}
	return a, nil
}

// Current implements nfs.Client.
func (a *access) Current() bool { return a.e.d.cluster() == a.of }

// Mount implements nfs.Client.
func (a *access) Mount(_ context.Context, path string) (vfs.FS, error) {
	if name, ok := strings.CutPrefix(path, "/nodes/"); ok {
		x := a.e.node(cluster.NodeName(name))
		switch {
		case x != nil && a.mayUse(x):
			return x.fs, nil
		case a.who.Root:
			return nil, vfs.ENOENT
		}
		return nil, vfs.EACCES // whether there is such a node is nobody else's business
	}
	if ref, ok := strings.CutPrefix(path, "/images/"); ok && a.mayReadVersions() {
		return a.e.version(ref)
	}
	return nil, vfs.EACCES
}

// Find implements nfs.Client.
func (a *access) Find(h vfs.Handle) (nfs.Export, error) {
	tree, ok := replica.TreeOf(h)
	if !ok {
		return nfs.Export{}, vfs.EBADHANDLE
	}
	x := a.e.table.Load().trees[tree]
	if x == nil {
		x = a.formerly(tree)
	}
	switch {
	case x == nil:
		return nfs.Export{}, vfs.ESTALE
	case !a.mayUse(x):
		return nfs.Export{}, vfs.EACCES
	}
	a.e.called(x)
	return nfs.Export{FS: x.fs, Meter: x.meter}, nil
}

func (a *access) mayUse(x *export) bool {
	if x.node == "" {
		return a.mayReadVersions()
	}
	return a.who.Root || a.who.Node != nil && a.who.Node.Name == x.node
}

func (a *access) mayReadVersions() bool { return a.who.Root || a.who.Admin }

// Paths implements nfs.Exports.
func (e *exports) Paths() []string {
	var paths []string
	for name := range e.table.Load().nodes {
		paths = append(paths, "/nodes/"+string(name))
	}
	slices.Sort(paths)
	return paths
}

// called notes that x was used now.
func (e *exports) called(x *export) {
	now := int64(time.Since(e.d.started)) // which takes half as long as time.Now
	if last := x.called.Load(); last != 0 && now-last < int64(noteEvery) || !x.called.CompareAndSwap(last, now) || x.node == "" {
		return
	}
	e.d.liveness.Called(x.node, time.Now())
	e.d.calling.Store(true) // it may be that its boot is over
}

// version returns the tree of a version, and keeps it for the handles that will name it.
func (e *exports) version(ref string) (vfs.FS, error) {
	r, err := image.ParseRef(ref)
	if err != nil {
		return nil, vfs.ENOENT
	}
	v, ok := e.d.declared().state.Resolve(r)
	if !ok {
		return nil, vfs.ENOENT
	}
	x, err := e.serve(v)
	if err != nil {
		return nil, vfs.EIO
	}
	return x.fs, nil
}

// formerly returns what a handle is of that was given before the last start: a version, or a node's replica of an image that it is to leave.
func (a *access) formerly(tree replica.Tree) *export {
	if a.mayReadVersions() {
		return a.e.known(tree)
	}
	d, n := a.e.d, a.who.Node
	if n == nil || !d.mine(n) {
		return nil
	}
	for _, im := range a.of.Images {
		if im == n.Image || replica.ReplicaTree(string(n.Name), string(im.Name)) != tree {
			continue
		}
		x, err := d.former(n.Name, im.Name)
		if err != nil {
			d.log.Error("former replica cannot be served", "node", n.Name, "image", im.Name, "error", err)
		}
		return x
	}
	return nil
}

// known returns the version that a tree is of.
func (e *exports) known(tree replica.Tree) *export {
	for _, im := range e.d.declared().state.Images {
		for _, v := range im.Versions {
			if replica.VersionTree(v.Image, v.Digest) == tree {
				x, _ := e.serve(v)
				return x
			}
		}
	}
	return nil
}

func (e *exports) serve(v image.Version) (*export, error) {
	e.changing.Lock()
	defer e.changing.Unlock()
	if x := e.table.Load().trees[replica.VersionTree(v.Image, v.Digest)]; x != nil {
		return x, nil
	}
	fs, err := e.d.set.ReadOnly(v)
	if err != nil {
		e.d.log.Error("version cannot be served", "version", v.Ref().String(), "error", err)
		return nil, err
	}
	x := &export{fs: fs, called: new(lastCall)}
	e.addLocked(x)
	return x, nil
}

// add adds a tree that is no node's present one.
func (e *exports) add(x *export) {
	e.changing.Lock()
	defer e.changing.Unlock()
	e.addLocked(x)
}

func (e *exports) addLocked(x *export) {
	old := e.table.Load()
	t := &exportTable{trees: maps.Clone(old.trees), nodes: old.nodes}
	t.trees[x.fs.Tree()] = x
	e.table.Store(t)
}

// replace makes list all that is exported, besides the versions that came to it meanwhile. Of several with one tree the last counts.
func (e *exports) replace(list []*export) {
	e.changing.Lock()
	defer e.changing.Unlock()
	t := &exportTable{trees: make(map[replica.Tree]*export, len(list)), nodes: make(map[cluster.NodeName]*export, len(list))}
	for tree, x := range e.table.Load().trees {
		if x.node == "" {
			t.trees[tree] = x
		}
	}
	for _, x := range list {
		t.trees[x.fs.Tree()] = x
		if x.node != "" && !x.old {
			t.nodes[x.node] = x
		}
	}
	e.table.Store(t)
}

// node returns the export of a node's present replica, nil when there is none.
func (e *exports) node(n cluster.NodeName) *export { return e.table.Load().nodes[n] }
