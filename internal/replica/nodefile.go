package replica

import (
	"strings"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// NodeFile is a file that is rendered for one node. It hides what the version has at its path, and the layer
// hides it.
type NodeFile struct {
	Path   string // slash-separated, from the root, no leading slash
	Mode   uint32
	UID    uint32
	GID    uint32
	Mtime  image.Time
	Size   uint64
	Digest image.Digest // of the content
}

// NodeFiles are the node files of one node. Content is called whenever bytes are needed, concurrently and with
// the replica's lock held. As long as the NodeFiles are in use it must return content with the Size and Digest
// in List.
type NodeFiles struct {
	List    []NodeFile
	Content func(path string) ([]byte, error)
}

// nodeFile is a NodeFile in a view.
type nodeFile struct {
	NodeFile
	id      fileid.ID
	content func(path string) ([]byte, error)
}

// bindNodeFiles makes the dentries of the view's node files. A node file whose path leads through something
// that is no directory of the version cannot be reached, and is left out.
func (r *Replica) bindNodeFiles() {
	for i := range r.view.files.List {
		f := &r.view.files.List[i]
		p, ok := r.nodeFileDentry(f.Path)
		if !ok {
			r.set.log.Warn("node file cannot be reached", "replica", r.dir, "path", f.Path)
			continue
		}
		p.file = &nodeFile{NodeFile: *f, id: fileid.OfNodeFile(f.Path, f.Digest), content: r.view.files.Content}
		r.files[p.file.id] = p
		for up := p.up; up != nil && up.low == lower.None; up = up.up {
			r.files[fileid.OfDir(up.path())] = up
		}
	}
}

func (r *Replica) nodeFileDentry(path string) (*dentry, bool) {
	p := r.root
	for part := range strings.SplitSeq(path, "/") {
		if checkName(part) != nil || isDot(part) || p.file != nil || p.low != lower.None && !r.view.index.IsDir(p.low) {
			r.prune(p)
			return nil, false
		}
		p = r.need(p, part, lower.Hash(part))
	}
	return p, len(p.kids) == 0
}

// compareFiles finds what changes in the node files, by their fingerprints.
func (t *transition) compareFiles(after map[string]string) {
	before := t.r.state.files
	t.hidden = make(map[string]bool, len(before)+len(after))
	for _, m := range []map[string]string{before, after} {
		for path := range m {
			t.hidden[path] = true
		}
	}
	paths := differing(before, after)
	if len(paths) == 0 {
		return
	}
	t.files = after
	t.own = &changes{paths: len(paths), delta: filesDelta(before, after), tree: &change{to: vfs.Directory}}
	for _, path := range paths {
		_, stays := after[path]
		t.nodeFile(path, stays)
	}
}

// nodeFile adds the node file at path to what changes. stays is false if it is removed.
func (t *transition) nodeFile(path string, stays bool) {
	way := t.own.tree.way(path)
	n := way[len(way)-1]
	n.differs, n.to = true, 0
	if stays {
		n.to = vfs.Regular
	}
	if low, ok := t.to.index.Find(path); ok {
		t.own.delta.touched[t.to.index.ID(low)] = struct{}{}
		if !stays {
			n.to = lower.TypeOf(t.to.index.Type(low))
		}
	}
	for _, up := range way {
		up.shows = up.shows || n.to != 0
	}
	t.keepNodeFile(t.r.view, path)
}

// keepNodeFile keeps the content of a node file that is replaced for processes that have it open. It is kept in
// memory only.
func (t *transition) keepNodeFile(old *view, path string) {
	for i := range old.files.List {
		f := &old.files.List[i]
		if f.Path != path {
			continue
		}
		id := fileid.OfNodeFile(path, f.Digest)
		if _, stays := t.own.delta.touched[id]; stays {
			return
		}
		b, err := t.r.set.nodeFileContent(&nodeFile{NodeFile: *f, id: id, content: old.files.Content})
		if err != nil {
			t.r.set.log.Warn("replaced node file is not kept", "replica", t.r.dir, "error", err)
			return
		}
		digest := f.Digest
		t.own.delta.gone[id] = &goneEntry{
			id: id, kind: vfs.Regular, path: path, mode: f.Mode, uid: f.UID, gid: f.GID, mtime: vfs.Time(f.Mtime),
			size: f.Size, origin: &digest, content: b,
		}
	}
}
