package replica

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/layer"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// dentry is a path at which the replica has, or may have, something other than its version: an entry or a
// whiteout of the layer, a node file, or a directory above such a path. All other paths have none, so an idle
// replica has a few dozen.
type dentry struct {
	up      *dentry // nil for the root
	name    string
	hash    uint64 // lower.Hash(name)
	kids    []*dentry
	low     lower.Ref    // the version's entry here; None also if something above hides it
	file    *nodeFile    // the node file here; nil also if something above hides it
	obj     *object      // what the layer has here
	white   bool         // the layer has a whiteout here
	files   bool         // node files are below, hidden by what the layer has here
	subdirs atomic.Int32 // visible subdirectories; -1: not counted yet
}

// object is an inode of the layer.
type object struct {
	id         fileid.ID
	origin     *image.Digest // of a regular file that was copied up: its first content
	kind       vfs.Type
	mode       uint32
	uid        uint32
	gid        uint32
	opaque     bool         // directory: hides the version's
	named      bool         // its id is in trusted.dim.id
	names      []*dentry    // its dentries; empty if it was set aside
	aside      string       // its path in the saved area, from the replica's directory
	spent      bool         // it was forgotten there: only its id is still needed
	removed    bool         // by the node: it may linger, see lingering
	dead       bool         // the layer was read again, and another object stands for it
	used       atomic.Int64 // what it contributes to Replica.used
	shownCtime atomic.Int64 // the latest ctime shown, in ns: see Replica.growCtime

	write sync.Mutex // held while content is written: attributes before and after are of one write
}

func newObject(id fileid.ID, kind vfs.Type) *object {
	return &object{id: id, kind: kind, named: true}
}

func newDentry(up *dentry, name string, hash uint64) *dentry {
	p := &dentry{up: up, name: name, hash: hash, low: lower.None}
	p.subdirs.Store(-1)
	return p
}

func compareDentry(p *dentry, hash uint64, name string) int {
	return cmp.Or(cmp.Compare(p.hash, hash), strings.Compare(p.name, name))
}

func (p *dentry) seek(hash uint64, name string) (int, bool) {
	return slices.BinarySearchFunc(p.kids, name, func(k *dentry, name string) int {
		return compareDentry(k, hash, name)
	})
}

func (p *dentry) kid(name string, hash uint64) *dentry {
	if i, ok := p.seek(hash, name); ok {
		return p.kids[i]
	}
	return nil
}

// path returns the path of p from the root, without a leading slash.
func (p *dentry) path() string {
	if p.up == nil {
		return ""
	}
	return image.JoinPath(p.up.path(), p.name)
}

// pathLen returns the length of p's path, without making it.
func (p *dentry) pathLen() int {
	n := -1 // no slash before the first name
	for ; p.up != nil; p = p.up {
		n += 1 + len(p.name)
	}
	return max(n, 0)
}

// longestBelow returns how much longer than p's path the longest path below it is.
func (p *dentry) longestBelow() int {
	n := 0
	for _, k := range p.kids {
		n = max(n, 1+len(k.name)+k.longestBelow())
	}
	return n
}

// checkPathLength refuses a new name whose path would be too long for the layer.
func (r *Replica) checkPathLength(d vnode, name string) error {
	n := 0
	if d.at != nil {
		n = d.at.pathLen()
	} else {
		n = len(r.path(d))
	}
	if n+1+len(name) > layer.PathMax {
		return vfs.ENAMETOOLONG
	}
	return nil
}

// replaced reports whether something hides the version's entry here.
func (p *dentry) replaced() bool { return p.obj != nil || p.white || p.file != nil }

// merges reports whether the entries of the version's directory show below p.
func (p *dentry) merges() bool {
	return p.low != lower.None && !p.white && p.file == nil &&
		(p.obj == nil || p.obj.kind == vfs.Directory && !p.obj.opaque)
}

// ownOnly reports whether only the layer's entries show in the directory p: nothing of the version, no node
// file.
func (p *dentry) ownOnly() bool {
	return p != nil && p.obj != nil && (p.obj.opaque || p.low == lower.None && !p.anyFile())
}

// idle reports whether the dentry is not needed.
func (p *dentry) idle() bool { return !p.replaced() && len(p.kids) == 0 && p.up != nil }

// vnode is one object of a replica. Exactly one of obj, file, low and gone is set, or none for a directory that
// exists only because node files are below it. at is its dentry, if it has one.
type vnode struct {
	at   *dentry
	obj  *object
	file *nodeFile
	low  lower.Ref
	gone *goneEntry
}

// vnode returns what shows at p; ok is false if nothing does.
func (p *dentry) vnode() (s vnode, ok bool) {
	s = vnode{at: p, obj: p.obj, low: lower.None}
	switch {
	case p.obj != nil:
		return s, true
	case p.white:
		return s, false
	case p.file != nil:
		s.file = p.file
		return s, true
	}
	s.low = p.low
	return s, p.low != lower.None || p.up == nil || len(p.kids) > 0 && p.anyFile()
}

// anyFile reports whether a node file is at p or below, shown or hidden.
func (p *dentry) anyFile() bool {
	if p.file != nil || p.files {
		return true
	}
	return slices.ContainsFunc(p.kids, (*dentry).anyFile)
}

// covers reports whether something would show at p if the layer had nothing there.
func (p *dentry) covers() bool { return p.low != lower.None || p.anyFile() }

// kind returns the type of what s is.
func (r *Replica) kind(s vnode) vfs.Type {
	switch {
	case s.obj != nil:
		return s.obj.kind
	case s.file != nil:
		return vfs.Regular
	case s.gone != nil:
		return s.gone.kind
	case s.low != lower.None:
		return lower.TypeOf(r.view.index.Type(s.low))
	}
	return vfs.Directory
}

// child finds name in directory d.
func (r *Replica) child(d vnode, name string) (vnode, bool) {
	if d.gone != nil {
		return vnode{}, false
	}
	hash := lower.Hash(name)
	dir := d.low
	if d.at != nil {
		if k := d.at.kid(name, hash); k != nil {
			return k.vnode()
		}
		if !d.at.merges() {
			return vnode{}, false
		}
		dir = d.at.low
	}
	if low, ok := r.view.index.Child(dir, name, hash); ok {
		return vnode{low: low}, true
	}
	return vnode{}, false
}

// lost reports whether what the version has in directory d could not be read. All calls about names in it end in EIO.
func (r *Replica) lost(d vnode) bool {
	dir := d.low
	switch {
	case d.gone != nil:
		return false
	case d.at != nil:
		if !d.at.merges() {
			return false
		}
		dir = d.at.low
	}
	return r.view.index.Lost(dir)
}

// parent returns the directory that s is in. The root is its own parent.
func (r *Replica) parent(s vnode) vnode {
	var up *dentry
	switch {
	case s.gone != nil:
		return r.nearest(s.gone.path)
	case s.at != nil:
		up = s.at.up
	case s.obj != nil && len(s.obj.names) > 0:
		up = s.obj.names[0].up
	case s.low != lower.None:
		return r.lowVnode(r.view.index.Parent(s.low))
	}
	if up == nil {
		up = r.root
	}
	d, _ := up.vnode()
	return d
}

// lowVnode returns the vnode of a version's entry that shows.
func (r *Replica) lowVnode(low lower.Ref) vnode {
	if p := r.byLow[low]; p != nil {
		s, _ := p.vnode()
		return s
	}
	return vnode{low: low}
}

// nearest returns the deepest directory on the way to path that exists.
func (r *Replica) nearest(path string) vnode {
	d, _ := r.root.vnode()
	for path != "" {
		name, rest, more := strings.Cut(path, "/")
		next, ok := r.child(d, name)
		if !more || !ok || r.kind(next) != vfs.Directory {
			break
		}
		d, path = next, rest
	}
	return d
}

// dentry returns the dentry of s, making it and those above it if they are missing.
func (r *Replica) dentry(s vnode) *dentry {
	switch {
	case s.at != nil:
		return s.at
	case s.obj != nil:
		return s.obj.names[0]
	}
	return r.lowDentry(s.low)
}

func (r *Replica) lowDentry(low lower.Ref) *dentry {
	if p := r.byLow[low]; p != nil {
		return p
	}
	x := r.view.index
	return r.need(r.lowDentry(x.Parent(low)), x.Name(low), x.NameHash(low))
}

// need returns the dentry of name in directory d, making it if it is missing.
func (r *Replica) need(d *dentry, name string, hash uint64) *dentry {
	i, ok := d.seek(hash, name)
	if ok {
		return d.kids[i]
	}
	p := newDentry(d, strings.Clone(name), hash)
	if d.merges() {
		if low, ok := r.view.index.Child(d.low, name, hash); ok {
			p.low = low
			r.byLow[low] = p
		}
	}
	d.kids = slices.Insert(d.kids, i, p)
	return p
}

// change runs do, which changes what shows at p. It corrects the count of subdirectories, and removes the
// dentry if it is no longer needed.
func (r *Replica) change(p *dentry, do func()) {
	isDir := func() int32 {
		if s, ok := p.vnode(); ok && r.kind(s) == vfs.Directory {
			return 1
		}
		return 0
	}
	before := isDir()
	do()
	if p.up == nil {
		return
	}
	if n := p.up.subdirs.Load(); n >= 0 {
		p.up.subdirs.Store(n + isDir() - before)
	}
	r.prune(p)
}

func (r *Replica) prune(p *dentry) {
	for p.idle() {
		up := p.up
		if i, ok := up.seek(p.hash, p.name); ok && up.kids[i] == p {
			up.kids = slices.Delete(up.kids, i, i+1)
		}
		if p.low != lower.None && r.byLow[p.low] == p {
			delete(r.byLow, p.low)
		}
		p = up
	}
}

// hide removes the version's entries and node files from the dentries below p: something at p hides them now.
func (r *Replica) hide(p *dentry) {
	p.files = p.files || slices.ContainsFunc(p.kids, (*dentry).anyFile)
	p.subdirs.Store(-1)
	for _, k := range slices.Clone(p.kids) {
		if k.low != lower.None {
			delete(r.byLow, k.low)
			k.low = lower.None
		}
		if k.file != nil {
			delete(r.files, k.file.id)
			k.file = nil
		}
		r.hide(k)
		r.prune(k)
	}
}

// clear removes all dentries below p, whose directory was emptied.
func (r *Replica) clear(p *dentry) {
	r.hide(p)
	p.kids = nil
	p.subdirs.Store(-1)
}

// countSubdirs returns how many directories are in the directory p.
func (r *Replica) countSubdirs(p *dentry) uint32 {
	if n := p.subdirs.Load(); n >= 0 {
		return uint32(n)
	}
	n := 0
	merges := p.merges() && r.view.index.IsDir(p.low)
	if merges {
		n = r.view.index.Subdirs(p.low)
	}
	for _, k := range p.kids {
		if merges && k.low != lower.None && r.view.index.IsDir(k.low) {
			n--
		}
		if s, ok := k.vnode(); ok && r.kind(s) == vfs.Directory {
			n++
		}
	}
	p.subdirs.Store(int32(n))
	return uint32(n)
}

// visible reports whether the version's entry low shows in the replica under its own id.
func (r *Replica) visible(low lower.Ref) bool {
	for at := low; ; at = r.view.index.Parent(at) {
		if p := r.byLow[at]; p != nil {
			if at == low {
				return !p.replaced()
			}
			return p.merges()
		}
		if at == lower.Root {
			return true
		}
	}
}
