package replica

import (
	"iter"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image/fileid"
	"dim/internal/layer"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// LayerEntry is what a layer has at a path: an object, a whiteout, or nothing but entries below. It is valid
// while the replica is locked: in the function given to View, and until the end of an Edit.
type LayerEntry struct {
	r *Replica
	p *dentry
}

// View calls do with the top of the layer. Changes of names and attributes wait meanwhile.
func (r *Replica) View(do func(root LayerEntry) error) error {
	if err := r.rlock(); err != nil {
		return err
	}
	defer r.mu.RUnlock()
	return r.edge(do(LayerEntry{r, r.root}))
}

// Disk returns the directory of all replicas and that of r in it; "" for a version served read-only.
func (r *Replica) Disk() (layer.Dir, layer.Home) { return r.set.root, r.dir }

// DiskOf is Disk of the replica of a node and an image, which need not be attached.
func (s *Set) DiskOf(node, image string) (layer.Dir, layer.Home) {
	return s.root, layer.Home(node + "/" + image)
}

// Name returns the node and the image of r.
func (r *Replica) Name() (node, image string) { return r.node, r.image }

// Rules returns the rules of r.
func (r *Replica) Rules() Rules {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.rules
}

// Unrecorded reports whether the journal does not say which version r follows. It must be called in View.
func (r *Replica) Unrecorded() bool { return !r.recorded && r.state.unwritten }

// NodeFiles returns the node's files.
func (r *Replica) NodeFiles() []NodeFile {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Clone(r.view.files.List)
}

// NodeFileContent renders the node file at path; ok is false if there is none. The content must not be changed.
func (r *Replica) NodeFileContent(path string) (content []byte, ok bool, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for i := range r.view.files.List {
		if f := &r.view.files.List[i]; f.Path == path {
			content, err = r.set.nodeFileContent(&nodeFile{NodeFile: *f, content: r.view.files.Content})
			return content, true, err
		}
	}
	return nil, false, nil
}

// dentryAt returns the dentry of path, nil if there is none.
func (r *Replica) dentryAt(path string) *dentry {
	p := r.root
	if path == "" {
		return p
	}
	for name := range strings.SplitSeq(path, "/") {
		if p = p.kid(name, lower.Hash(name)); p == nil {
			return nil
		}
	}
	return p
}

// At returns what the layer has at path, which is relative to the root; ok is false if it has nothing there or below.
func (e LayerEntry) At(path string) (below LayerEntry, ok bool) {
	p := e.r.dentryAt(path)
	return LayerEntry{e.r, p}, p != nil
}

// Path returns the path of e.
func (e LayerEntry) Path() string { return e.p.path() }

// Kind returns the type of the layer's object at e; 0 if there is none.
func (e LayerEntry) Kind() vfs.Type {
	if e.p.obj == nil {
		return 0
	}
	return e.p.obj.kind
}

// Whiteout reports whether the layer has a whiteout at e.
func (e LayerEntry) Whiteout() bool { return e.p.white }

// Opaque reports whether the layer's directory at e hides the version's.
func (e LayerEntry) Opaque() bool { return e.p.obj != nil && e.p.obj.opaque }

// ID returns the id of the layer's object at e; 0 if there is none.
func (e LayerEntry) ID() fileid.ID {
	if e.p.obj == nil {
		return 0
	}
	return e.p.obj.id
}

// Merges reports whether the entries of the version's directory show below e.
func (e LayerEntry) Merges() bool { return e.p.merges() }

// Covers reports whether something would show at e if the layer had nothing there.
func (e LayerEntry) Covers() bool { return e.p.covers() }

// Entries returns the entries in e that the layer has, or below which it has some. The caller may remove the
// entry that it was given.
func (e LayerEntry) Entries() iter.Seq[LayerEntry] {
	return func(yield func(LayerEntry) bool) {
		for _, k := range slices.Clone(e.p.kids) {
			if !yield(LayerEntry{e.r, k}) {
				return
			}
		}
	}
}

// Attr fills a with the attributes of the layer's object at e.
func (e LayerEntry) Attr(a *vfs.Attr) error { return e.r.objectAttr(e.p.obj, a) }

// Stat fills st with the status of the layer's object at e.
func (e LayerEntry) Stat(st *unix.Stat_t) error { return e.r.stat(e.p.obj, st) }

// Below fills a with the attributes of what would show at e if the layer had nothing there.
func (e LayerEntry) Below(a *vfs.Attr) bool {
	p := e.p
	s := vnode{at: p, low: p.low, file: p.file}
	if p.low == lower.None && p.file == nil {
		return false
	}
	if p.file != nil {
		s.low = lower.None
	}
	return e.r.attr(s, a) == nil
}

// VersionKind returns the type of the version's entry at e; 0 if there is none, or if something above hides it.
func (e LayerEntry) VersionKind() vfs.Type {
	if e.p.low == lower.None {
		return 0
	}
	return lower.TypeOf(e.r.view.index.Type(e.p.low))
}

// VersionDir returns the attributes of the version's directory at e; ok is false if there is none, or if
// something above hides it.
func (e LayerEntry) VersionDir() (attrs layer.Attrs, ok bool) {
	if e.VersionKind() != vfs.Directory {
		return attrs, false
	}
	return e.r.lowAttrs(e.p.low), true
}

// VersionTarget returns where the version's symbolic link at e leads.
func (e LayerEntry) VersionTarget() string { return e.r.view.index.Target(e.p.low) }

// Open returns the layer's object at e on the disk. release must be called when it is no longer used.
func (e LayerEntry) Open() (entry layer.Entry, release func(), err error) {
	d, name, err := e.r.where(e.p.obj)
	if err != nil {
		return entry, nil, err
	}
	return layer.At(d.FD, name), d.Release, nil
}
