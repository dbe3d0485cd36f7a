package replica

import (
	"crypto/sha256"
	"encoding/binary"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// history is what a replica knows of its switches.
type history struct {
	made     int64 // ns: when the replica was made; raised when segments are dropped
	versions chain // steps between versions
	own      chain // steps of this node's files; other replicas do not share them
	aside    map[fileid.ID]*object
	aliases  map[fileid.ID]fileid.ID // of the version's entries that go by another id, and back
}

// goneEntry is an entry that a switch has replaced or removed, or that the node has removed and that lingers.
type goneEntry struct {
	id      fileid.ID
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
	removed bool   // by the node, not replaced by a switch
	content []byte // of a node file; a version's bytes are in the store
}

// attr fills a. What a switch has replaced has a link count of 1 although it has no name. With a count of 0
// Linux answers fstat(2) of an open file with ESTALE if the C library calls newfstatat with an empty path
// (fs/nfs/dir.c, nfs_weak_revalidate; glibc 2.33 to 2.38 before Linux 6.6). Programs whose libraries are
// replaced between open and stat could not start.
func (g *goneEntry) attr(a *vfs.Attr) {
	*a = vfs.Attr{
		Type: g.kind, Mode: g.mode, UID: g.uid, GID: g.gid, Size: g.size, Used: (g.size + 4095) &^ 4095,
		Major: g.major, Minor: g.minor, ID: uint64(g.id), Atime: g.mtime, Mtime: g.mtime,
	}
	switch {
	case g.removed:
	case g.kind == vfs.Directory:
		a.Nlink = 2
	default:
		a.Nlink = 1
	}
}

// stamp returns the ctime, in nanoseconds, of what has the given id and is not in the layer.
func (p *history) stamp(id fileid.ID) int64 {
	at := p.made
	for _, c := range [...]chain{p.versions, p.own} {
		for i := len(c) - 1; i >= 0; i-- {
			if t, ok := c[i].of(id); ok {
				at = max(at, t)
				break
			}
		}
	}
	return at
}

// byID finds what the replica no longer shows because it was set aside or replaced.
func (p *history) byID(id fileid.ID) (vnode, bool) {
	if o := p.aside[id]; o != nil && !o.spent {
		return vnode{obj: o, low: lower.None}, true
	}
	for _, c := range [...]chain{p.versions, p.own} {
		for i := len(c) - 1; i >= 0; i-- {
			if g := c[i].gone[id]; g != nil {
				return vnode{gone: g, low: lower.None}, true
			}
		}
	}
	return vnode{}, false
}

// forget drops segments that are wholly older than since, or beyond the newest most steps.
func (p *history) forget(since int64, most int) {
	for _, c := range []*chain{&p.versions, &p.own} {
		for len(*c) > 0 && ((*c)[0].stamp < since || c.steps()-(*c)[0].steps >= most) {
			p.made = max(p.made, (*c)[0].stamp)
			*c = (*c)[1:]
		}
	}
}

// alias returns the id under which this replica shows the version's entry with the given id.
func (p *history) alias(id fileid.ID) fileid.ID {
	if len(p.aliases) > 0 {
		if a, ok := p.aliases[id]; ok {
			return a
		}
	}
	return id
}

// origin is the inverse of alias. ok is false if the version's entry with the id goes by another id.
func (p *history) origin(id fileid.ID) (fileid.ID, bool) {
	if len(p.aliases) == 0 {
		return id, true
	}
	other, ok := p.aliases[id]
	if !ok {
		return id, true
	}
	return other, id&fileid.InLayer != 0
}

// findAliases gives another id to the version's entries that show under an id which the layer or the saved area
// has too. The id is computed, so it is the same after a restart.
func (r *Replica) findAliases() {
	r.history.aliases = nil
	for _, objects := range []map[fileid.ID]*object{r.objects, r.history.aside} {
		for id := range objects {
			if id&fileid.InLayer != 0 {
				continue
			}
			if _, shows := r.byLowID(id); !shows {
				continue
			}
			if r.history.aliases == nil {
				r.history.aliases = make(map[fileid.ID]fileid.ID)
			}
			other := aliasID(r.tree, id)
			for r.objects[other] != nil || r.history.aside[other] != nil {
				other = aliasID(r.tree, other)
			}
			r.history.aliases[id], r.history.aliases[other] = other, id
		}
	}
}

func aliasID(t Tree, id fileid.ID) fileid.ID {
	b := append([]byte("alias\x00"), t[:]...)
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(b, uint64(id)))
	return fileid.ID(binary.BigEndian.Uint64(sum[:])) | fileid.InLayer
}

// aliased reports whether the version's entry of this id goes by another one.
func (p *history) aliased(id fileid.ID) bool {
	_, ok := p.aliases[id]
	return ok && id&fileid.InLayer == 0
}
