package replica

import (
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// Own is one path at which a node has something of its own.
type Own struct {
	Path string
	Kind OwnKind
	Type vfs.Type // of what is there; of what was, when it is removed
	Size uint64   // bytes of a file's content
	Was  uint64   // of the version's or node file's, where there is one
	What string   // which attributes differ: "mode owner time"; "hides" for a directory that hides the version's
	Mode uint32
	UID  uint32
	GID  uint32
}

// OwnKind tells how a path differs from the version and the node files.
type OwnKind string

// New; another content or type; not there; only other attributes.
const (
	OwnAdded      OwnKind = "added"
	OwnChanged    OwnKind = "content"
	OwnRemoved    OwnKind = "removed"
	OwnAttributes OwnKind = "attributes"
)

// Own lists what the layer has at and below path, in order of path. Content is taken for unchanged when size and time are.
func (r *Replica) Own(path string) ([]Own, error) {
	path, err := cleanPath(path)
	if err != nil {
		return nil, err
	}
	if r.dir == "" {
		return nil, nil
	}
	if err := r.rlock(); err != nil {
		return nil, err
	}
	defer r.mu.RUnlock()
	p := r.placeAt(path)
	if p == nil {
		return nil, nil
	}
	var list []Own
	if err := r.own(p, &list); err != nil {
		return nil, r.edge(err)
	}
	slices.SortFunc(list, func(a, b Own) int { return image.ComparePaths(a.Path, b.Path) })
	return list, nil
}

// placeAt returns the place of path, nil when there is none.
func (r *Replica) placeAt(path string) *place {
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

func (r *Replica) own(p *place, list *[]Own) error {
	o, differs, err := r.ownAt(p)
	if err != nil {
		return err
	}
	if differs {
		*list = append(*list, o)
	}
	for _, k := range p.kids {
		if err := r.own(k, list); err != nil {
			return err
		}
	}
	return nil
}

// ownAt compares what the layer has at p with what it hides.
func (r *Replica) ownAt(p *place) (o Own, differs bool, err error) {
	var below vfs.Attr
	hides := r.below(p, &below)
	switch {
	case p.white:
		return Own{Path: p.path(), Kind: OwnRemoved, Type: below.Type, Size: contentSize(&below)}, hides, nil
	case p.obj == nil:
		return o, false, nil
	}
	var a vfs.Attr
	if err := r.objectAttr(p.obj, &a); err != nil {
		return o, false, err
	}
	o = Own{Path: p.path(), Type: a.Type, Size: contentSize(&a), Mode: a.Mode, UID: a.UID, GID: a.GID}
	if !hides {
		o.Kind = OwnAdded
		return o, true, nil
	}
	o.Was = contentSize(&below)
	switch {
	case a.Type != below.Type:
		o.Kind = OwnChanged
	case p.obj.opaque:
		o.Kind, o.What = OwnChanged, "hides"
	case a.Type == vfs.Regular && (a.Size != below.Size || a.Mtime != below.Mtime),
		a.Type == vfs.Symlink && !r.sameTarget(p), a.Major != below.Major, a.Minor != below.Minor:
		o.Kind = OwnChanged
	default:
		o.Kind, o.What = OwnAttributes, attributeNames(&a, &below)
	}
	return o, o.Kind != OwnAttributes || o.What != "", nil
}

func contentSize(a *vfs.Attr) uint64 {
	if a.Type == vfs.Regular {
		return a.Size
	}
	return 0
}

// below fills a with what would show at p if the layer had nothing there.
func (r *Replica) below(p *place, a *vfs.Attr) bool {
	s := spot{at: p, low: p.low, file: p.file}
	if p.low == lower.None && p.file == nil {
		return false
	}
	if p.file != nil {
		s.low = lower.None
	}
	return r.attr(s, a) == nil
}

// attributeNames names the attributes in which a and b differ. A directory's time is no news: it changes with what is in it.
func attributeNames(a, b *vfs.Attr) string {
	var names []string
	if a.Mode != b.Mode {
		names = append(names, "mode")
	}
	if a.UID != b.UID || a.GID != b.GID {
		names = append(names, "owner")
	}
	if a.Mtime != b.Mtime && a.Type != vfs.Directory {
		names = append(names, "time")
	}
	return strings.Join(names, " ")
}

// sameTarget reports whether the layer's link at p leads where the version's does.
func (r *Replica) sameTarget(p *place) bool {
	d, name, err := r.where(p.obj)
	if err != nil {
		return false
	}
	defer d.Release()
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(d.FD, name, buf)
	return err == nil && string(buf[:n]) == r.view.index.Target(p.low)
}

// NodeFiles returns what is rendered for the node.
func (r *Replica) NodeFiles() []NodeFile {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Clone(r.view.files.List)
}
