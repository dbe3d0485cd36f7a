// Package lower is the index of one version: everything of it but the bytes of its files, in memory. Any entry
// is found by its id or its name in well under a microsecond and without garbage.
//
// # Invariants
//
// An Index never changes once it is made, so that thousands of replicas share one and read it without locks. It
// consists of a few flat arrays: one row of fixed size for each entry, one table for all names and targets, one
// for digests, one for what many entries have in common. The rows of a directory's children are adjacent,
// ordered by the hash of their names. So look-ups are binary searches, and a listing in the order of its
// cookies is a walk along the rows. A version of 90,000 names takes some 8 MB. One Go object per entry with
// strings, pointers and a map took eight times as much.
//
// # What it must not know
//
// Layers, node files, handles, callers.
package lower

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"unsafe"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/quantity"
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
	sorts   []sort
	slots   []Ref // hash table by id, open addressing
	groups  map[fileid.ID][]Ref
	extras  map[Ref]extra
	lost    map[Ref]error
}

// row is one entry: 48 bytes.
type row struct {
	id     fileid.ID
	size   uint64 // regular: bytes; symlink: length of the target; device: major, minor; directory: see children
	mtime  int64  // nanoseconds since 1970, unless it is in the extra
	hash   uint32 // the upper half of the name's, see Hash: the rest is not needed for look-ups
	name   uint32 // in text
	parent Ref
	detail uint32 // regular, directory: in digests; symlink: target in text
	nlink  uint32 // directory: how many subdirectories; else the number of names
	sort   uint32 // in sorts
}

// sort is what many entries have in common: an installation has a few hundred.
type sort struct {
	uid, gid uint32
	mode     uint16
	kind     image.Type
	more     bool // each of the entries has an extra
	xattrs   []image.Xattr
}

// extra is what few entries have: holes, or an mtime that is out of the range of nanoseconds.
type extra struct {
	mtime  image.Time
	data   []image.Extent
	sparse bool
}

// children returns the first child of a directory and how many it has.
func (r *row) children() (first Ref, count int) { return Ref(r.size >> 32), int(uint32(r.size)) }

func (r *row) setChildren(first Ref, count int) { r.size = uint64(first)<<32 | uint64(count) }

// nanoseconds returns t as nanoseconds since 1970, or false if they are out of range.
func nanoseconds(t image.Time) (ns int64, ok bool) {
	const most = int64(math.MaxInt64)/1e9 - 1
	if t.Sec > most || t.Sec < -most {
		return 0, false
	}
	return t.Sec*1e9 + int64(t.Nsec), true
}

// slotsFor returns the size of a hash table for n entries. slot is where the search for one begins, for uniform
// hashes, and next where it goes on.
func slotsFor(n int) int { return 16 + n + n/2 }

func slot(hash uint64, size int) int { return int(uint64(uint32(hash)) * uint64(size) >> 32) }

func next(i, size int) int {
	if i++; i < size {
		return i
	}
	return 0
}

// upper is the part of a Hash that rows hold.
func upper(hash uint64) uint32 { return uint32(hash >> 30) }

// Lost reports whether the tree of directory dir could not be read. The index then has nothing that is in it.
func (x *Index) Lost(dir Ref) bool {
	_, lost := x.lost[dir]
	return lost
}

// Damage returns an error that names the first directory that is lost and says why, or nil if none is.
func (x *Index) Damage() error {
	if len(x.lost) == 0 {
		return nil
	}
	first := slices.Min(slices.Collect(maps.Keys(x.lost)))
	more := ""
	if n := len(x.lost) - 1; n > 0 {
		more = fmt.Sprintf(" (and %s more directories)", quantity.Count(n))
	}
	return fmt.Errorf("%s: what is in /%s is lost%s: %w",
		x.Version.Ref(), x.appendPath(nil, first), more, x.lost[first])
}

// Len returns the number of entries, the root included.
func (x *Index) Len() int { return len(x.rows) }

// ByID finds the entry with the given id. Of a hard-link group it is the first name in the index.
func (x *Index) ByID(id fileid.ID) (Ref, bool) {
	for i := slot(uint64(id), len(x.slots)); ; i = next(i, len(x.slots)) {
		switch r := x.slots[i]; {
		case r == None:
			return None, false
		case x.rows[r].id == id:
			return r, true
		}
	}
}

// Names returns all names of r if there are several, else nil.
func (x *Index) Names(r Ref) []Ref {
	if x.rows[r].nlink < 2 || x.IsDir(r) {
		return nil
	}
	return x.groups[x.rows[r].id]
}

// Child finds name, whose Hash is given, in directory dir.
func (x *Index) Child(dir Ref, name string, hash uint64) (Ref, bool) {
	first, count := x.rows[dir].children()
	kids, short := x.rows[first:int(first)+count], upper(hash)
	lo, hi := 0, count
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if kids[mid].hash < short {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	for ; lo < count && kids[lo].hash == short; lo++ {
		if r := first + Ref(lo); x.Name(r) == name {
			return r, true
		}
	}
	return None, false
}

// Children returns the range of dir's children, from first up to but not including end, ordered by hash, then
// by name.
func (x *Index) Children(dir Ref) (first, end Ref) {
	first, count := x.rows[dir].children()
	return first, first + Ref(count)
}

// Seek returns the first of dir's children whose hash is at least hash.
func (x *Index) Seek(dir Ref, hash uint64) Ref {
	lo, hi := x.Children(dir)
	for lo < hi {
		mid := lo + (hi-lo)/2
		if x.rows[mid].hash < upper(hash) || x.rows[mid].hash == upper(hash) && x.NameHash(mid) < hash {
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
		if !x.IsDir(r) {
			return None, false
		}
		var ok bool
		if r, ok = x.Child(r, name, Hash(name)); !ok {
			return None, false
		}
	}
	return r, true
}

// Parent returns the directory that r is in. The root is its own parent.
func (x *Index) Parent(r Ref) Ref { return x.rows[r].parent }

// Name returns r's name, without allocating.
func (x *Index) Name(r Ref) string { return x.nameAt(x.rows[r].name) }

func (x *Index) nameAt(at uint32) string {
	n := uint32(x.text[at])
	return unsafe.String(unsafe.SliceData(x.text[at+1:at+1+n]), n) // text never changes
}

// NameHash returns the Hash of r's name.
func (x *Index) NameHash(r Ref) uint64 { return Hash(x.Name(r)) }

// Path returns r's path from the root, without a leading slash.
func (x *Index) Path(r Ref) string { return string(x.appendPath(nil, r)) }

func (x *Index) appendPath(b []byte, r Ref) []byte {
	if r == Root {
		return b
	}
	if b = x.appendPath(b, x.rows[r].parent); len(b) > 0 {
		b = append(b, '/')
	}
	return append(b, x.Name(r)...)
}

// ID returns r's file id.
func (x *Index) ID(r Ref) fileid.ID { return x.rows[r].id }

// IsDir reports whether r is a directory.
func (x *Index) IsDir(r Ref) bool { return x.sorts[x.rows[r].sort].kind == image.Directory }

// Type returns r's type.
func (x *Index) Type(r Ref) image.Type { return x.sorts[x.rows[r].sort].kind }

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
func (x *Index) Xattrs(r Ref) []image.Xattr { return x.sorts[x.rows[r].sort].xattrs }

// Data returns the ranges of a sparse file that are no holes; ok is false if it has no holes.
func (x *Index) Data(r Ref) (data []image.Extent, ok bool) {
	if !x.sorts[x.rows[r].sort].more {
		return nil, false
	}
	e := x.extras[r]
	return e.data, e.sparse
}

// Subdirs returns how many of dir's children are directories.
func (x *Index) Subdirs(dir Ref) int { return int(x.rows[dir].nlink) }

// Attr fills a with all attributes but FSID and Ctime.
func (x *Index) Attr(r Ref, a *vfs.Attr) {
	e := &x.rows[r]
	s := &x.sorts[e.sort]
	*a = vfs.Attr{
		Type: TypeOf(s.kind), Mode: uint32(s.mode), Nlink: e.nlink, UID: s.uid, GID: s.gid,
		ID: uint64(e.id), Size: e.size,
	}
	a.Mtime.Sec, a.Mtime.Nsec = e.mtime/1e9, uint32(e.mtime%1e9)
	if e.mtime%1e9 < 0 {
		a.Mtime.Sec, a.Mtime.Nsec = e.mtime/1e9-1, uint32(e.mtime%1e9+1e9)
	}
	switch s.kind {
	case image.Directory:
		a.Nlink, a.Size, a.Used = e.nlink+2, DirSize, DirSize
	case image.Regular:
		a.Used = blocks(e.size)
	case image.CharDevice, image.BlockDevice:
		a.Major, a.Minor, a.Size = uint32(e.size>>32), uint32(e.size), 0
	}
	if s.more {
		x.attrMore(r, a)
	}
	a.Atime = a.Mtime
}

func (x *Index) attrMore(r Ref, a *vfs.Attr) {
	e := x.extras[r]
	a.Mtime = vfs.Time(e.mtime)
	if !e.sparse {
		return
	}
	var n uint64
	for _, d := range e.data {
		n += d.Length
	}
	a.Used = blocks(n)
}

// DirSize is the size that directories report. A version has none for them.
const DirSize = 4096

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

// Hash orders names in listings and is the base of their cookies: a number of 62 bits that is a multiple of
// Spread and not below it. Nodes keep cookies over a restart or a change of servers, so it must never change.
// It is FNV-1a, mixed once more because its upper bits are weak for short names.
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
