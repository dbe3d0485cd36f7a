// Package lower is the index of one version: everything of it but the bytes of its files, in memory, so that any
// entry is found by its id or its name in well under a microsecond and without garbage.
//
// # Invariants
//
// An Index never changes once it is made, so that thousands of replicas share one and read it without locks. It is a
// handful of flat arrays: one row of fixed size for each entry, one table for all names and targets, one for digests.
// The rows of a directory's children stand side by side, ordered by the hash of their names, so that look-ups are binary
// searches and a listing in the order of its cookies is a walk along the rows. A version of 90,000 names takes some 12 MB
// (one Go object per entry with strings, pointers and a map took six times as much).
//
// # What it must not know
//
// Layers, node files, handles, and who asks.
package lower

import (
	"unsafe"

	"dim/internal/image"
	"dim/internal/vfs"
)

// Ref names an entry of one Index: its row.
type Ref int32

// None is no entry; Root is the root directory.
const (
	None Ref = -1
	Root Ref = 0
)

// Index is one version in memory.
type Index struct {
	Version image.Version

	rows    []row
	text    []byte         // names (after a length byte) and link targets (after a two-byte length)
	digests []image.Digest // of regular files and directories
	slots   []Ref          // hash table by id, open addressing
	groups  map[image.ID][]Ref
	extras  map[Ref]extra
}

// row is what is kept of each entry.
type row struct {
	id     image.ID
	hash   uint64 // of the name, see Hash
	size   uint64 // regular: bytes; symlink: length of the target; device: major, minor
	sec    int64
	nsec   uint32
	uid    uint32
	gid    uint32
	name   uint32 // in text
	parent Ref
	detail uint32 // regular, directory: in digests; symlink: target in text
	first  Ref    // directory: its first child
	count  uint32 // directory: how many children
	nlink  uint32 // directory: how many subdirectories; else the number of names
	mode   uint16
	kind   image.Type
	more   bool // there is an extra
}

// extra is what few entries have.
type extra struct {
	xattrs []image.Xattr
	data   []image.Extent
	sparse bool
}

// Len returns the number of entries, the root included.
func (x *Index) Len() int { return len(x.rows) }

// Size returns the index's size in memory in bytes, roughly.
func (x *Index) Size() int {
	return len(x.rows)*int(unsafe.Sizeof(row{})) + cap(x.text) + len(x.digests)*len(image.Digest{}) + 4*len(x.slots) +
		64*len(x.groups) + 128*len(x.extras)
}

// ByID finds the entry with the given id; of a hard-link group it is the first name that the index holds.
func (x *Index) ByID(id image.ID) (Ref, bool) {
	mask := uint64(len(x.slots) - 1)
	for i := uint64(id) & mask; ; i = (i + 1) & mask {
		switch r := x.slots[i]; {
		case r == None:
			return None, false
		case x.rows[r].id == id:
			return r, true
		}
	}
}

// Names returns all names of r when there are several, else nil.
func (x *Index) Names(r Ref) []Ref {
	if x.rows[r].nlink < 2 || x.rows[r].kind == image.Directory {
		return nil
	}
	return x.groups[x.rows[r].id]
}

// Child finds name, whose Hash is given, in directory dir.
func (x *Index) Child(dir Ref, name string, hash uint64) (Ref, bool) {
	d := &x.rows[dir]
	kids := x.rows[d.first : uint32(d.first)+d.count]
	lo, hi := 0, len(kids)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if kids[mid].hash < hash {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	for ; lo < len(kids) && kids[lo].hash == hash; lo++ {
		if r := d.first + Ref(lo); x.Name(r) == name {
			return r, true
		}
	}
	return None, false
}

// Children returns the range of dir's children: from first up to but without end, ordered by hash, then by name.
func (x *Index) Children(dir Ref) (first, end Ref) {
	d := &x.rows[dir]
	return d.first, d.first + Ref(d.count)
}

// Seek returns the first of dir's children whose hash is at least hash.
func (x *Index) Seek(dir Ref, hash uint64) Ref {
	lo, hi := x.Children(dir)
	for lo < hi {
		mid := lo + (hi-lo)/2
		if x.rows[mid].hash < hash {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// Find follows path (slash-separated, from the root, no leading slash) without following links.
func (x *Index) Find(path string) (Ref, bool) {
	r := Root
	for path != "" {
		name := path
		path = ""
		for i := range len(name) {
			if name[i] == '/' {
				name, path = name[:i], name[i+1:]
				break
			}
		}
		if x.rows[r].kind != image.Directory {
			return None, false
		}
		var ok bool
		if r, ok = x.Child(r, name, Hash(name)); !ok {
			return None, false
		}
	}
	return r, true
}

// Parent returns the directory that r stands in; of the root it is the root.
func (x *Index) Parent(r Ref) Ref { return x.rows[r].parent }

// Name returns r's name, without allocating.
func (x *Index) Name(r Ref) string {
	at := x.rows[r].name
	n := uint32(x.text[at])
	return unsafe.String(unsafe.SliceData(x.text[at+1:at+1+n]), n) // text never changes
}

// NameHash returns the Hash of r's name.
func (x *Index) NameHash(r Ref) uint64 { return x.rows[r].hash }

// Path returns r's path from the root, without a leading slash.
func (x *Index) Path(r Ref) string {
	if r == Root {
		return ""
	}
	return image.JoinPath(x.Path(x.rows[r].parent), x.Name(r))
}

// ID returns r's file id.
func (x *Index) ID(r Ref) image.ID { return x.rows[r].id }

// IsDir reports whether r is a directory.
func (x *Index) IsDir(r Ref) bool { return x.rows[r].kind == image.Directory }

// Type returns r's type.
func (x *Index) Type(r Ref) image.Type { return x.rows[r].kind }

// Digest returns the digest of a regular file's content or of a directory's tree.
func (x *Index) Digest(r Ref) *image.Digest { return &x.digests[x.rows[r].detail] }

// FileSize returns the length of a regular file.
func (x *Index) FileSize(r Ref) uint64 { return x.rows[r].size }

// Target returns a symbolic link's target.
func (x *Index) Target(r Ref) string {
	at := x.rows[r].detail
	n := uint32(x.text[at])<<8 | uint32(x.text[at+1])
	return string(x.text[at+2 : at+2+n])
}

// Xattrs returns r's extended attributes; they must not be changed.
func (x *Index) Xattrs(r Ref) []image.Xattr { return x.extras[r].xattrs }

// Data returns a sparse file's ranges that are no holes; ok is false when it has no holes.
func (x *Index) Data(r Ref) (data []image.Extent, ok bool) {
	e := x.extras[r]
	return e.data, e.sparse
}

// Subdirs returns how many of dir's children are directories.
func (x *Index) Subdirs(dir Ref) int { return int(x.rows[dir].nlink) }

// Attr fills a with all that the version knows: everything but FSID and Ctime.
func (x *Index) Attr(r Ref, a *vfs.Attr) {
	e := &x.rows[r]
	mtime := vfs.Time{Sec: e.sec, Nsec: e.nsec}
	*a = vfs.Attr{
		Type: TypeOf(e.kind), Mode: uint32(e.mode), Nlink: e.nlink, UID: e.uid, GID: e.gid, ID: uint64(e.id),
		Size: e.size, Atime: mtime, Mtime: mtime,
	}
	switch e.kind {
	case image.Directory:
		a.Nlink, a.Size, a.Used = e.nlink+2, DirSize, DirSize
	case image.Regular:
		a.Used = x.used(r)
	case image.CharDevice, image.BlockDevice:
		a.Major, a.Minor, a.Size = uint32(e.size>>32), uint32(e.size), 0
	}
}

// DirSize is the size that directories report, for the version's have none of their own.
const DirSize = 4096

func (x *Index) used(r Ref) uint64 {
	e := &x.rows[r]
	if !e.more {
		return blocks(e.size)
	}
	extra := x.extras[r]
	if !extra.sparse {
		return blocks(e.size)
	}
	var n uint64
	for _, d := range extra.data {
		n += d.Length
	}
	return blocks(n)
}

// blocks rounds n up to what most file systems would use for it.
func blocks(n uint64) uint64 { return (n + 4095) &^ 4095 }

// TypeOf translates a type.
func TypeOf(t image.Type) vfs.Type {
	switch t {
	case image.Directory:
		return vfs.Directory
	case image.Symlink:
		return vfs.Symlink
	case image.CharDevice:
		return vfs.CharDevice
	case image.BlockDevice:
		return vfs.BlockDevice
	case image.FIFO:
		return vfs.FIFO
	}
	return vfs.Regular
}

// Hash returns what orders names in listings, and the base of their cookies: a number of 62 bits that is a multiple of
// Spread and not below it. It is part of what nodes remember over a restart or a change of servers, so it must never
// change: FNV-1a, mixed once more because its upper bits are weak for short names.
func Hash(name string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(name) {
		h = (h ^ uint64(name[i])) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h ^= h >> 33
	return max(h>>2&^(Spread-1), Spread)
}

// Spread is how many names of one directory may share a Hash.
const Spread = 256
