package replica

import (
	"strings"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/replica/lower"
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
