package replica

import (
	"dim/internal/image"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// past is what a replica remembers of its switches.
type past struct {
	made    int64      // ns: when the replica was made; raised when history is forgotten
	chain   []*segment // oldest first
	aside   map[image.ID]*object
	aliases map[image.ID]image.ID // of the version's entries that go by another id, and back
}

// delta is what one step between two views changes, by id. It never changes and is shared by all replicas that
// take the step.
type delta struct {
	touched []image.ID              // entries and directories that get a new ctime
	gone    map[image.ID]*goneEntry // ids that the older view had and the newer has not at this path
}

// segment is one or several steps that follow each other.
type segment struct {
	steps  int
	stamp  int64 // of the last step
	stamps map[image.ID]int64
	gone   map[image.ID]*goneEntry
}

// goneEntry is an entry that a switch has replaced or removed.
type goneEntry struct {
	id      image.ID
	kind    vfs.Type
	path    string
	mode    uint32
	uid     uint32
	gid     uint32
	mtime   vfs.Time
	size    uint64
	major   uint32
	minor   uint32
	origin  *image.Digest
	target  string
	content []byte // of a node file; a version's bytes are in the store
}

func (g *goneEntry) attr(a *vfs.Attr) {
	*a = vfs.Attr{
		Type: g.kind, Mode: g.mode, UID: g.uid, GID: g.gid, Size: g.size, Used: (g.size + 4095) &^ 4095,
		Major: g.major, Minor: g.minor, ID: uint64(g.id), Atime: g.mtime, Mtime: g.mtime,
	}
}

// stamp returns the ctime of what has the given id and is not in the layer, in nanoseconds.
func (p *past) stamp(id image.ID) int64 {
	for i := len(p.chain) - 1; i >= 0; i-- {
		if at, ok := p.chain[i].stamps[id]; ok {
			return at
		}
	}
	return p.made
}

// byID finds what the replica no longer shows: set aside, or replaced.
func (p *past) byID(id image.ID) (spot, bool) {
	if o := p.aside[id]; o != nil {
		return spot{obj: o, low: lower.None}, true
	}
	for i := len(p.chain) - 1; i >= 0; i-- {
		if g := p.chain[i].gone[id]; g != nil {
			return spot{gone: g, low: lower.None}, true
		}
	}
	return spot{}, false
}

// alias returns the id under which the version's entry with the given id goes in this replica.
func (p *past) alias(id image.ID) image.ID {
	if len(p.aliases) > 0 {
		if a, ok := p.aliases[id]; ok {
			return a
		}
	}
	return id
}

// origin undoes alias; ok is false when the id names no entry of the version because that goes by another one.
func (p *past) origin(id image.ID) (image.ID, bool) {
	if len(p.aliases) == 0 {
		return id, true
	}
	other, ok := p.aliases[id]
	if !ok {
		return id, true
	}
	return other, id&image.Born != 0
}
