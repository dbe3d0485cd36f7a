package lower

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"dim/internal/image"
	"dim/internal/image/fileid"
)

// Loader returns the tree with digest d. It may use the memory of room. The tree is valid until the next call.
type Loader func(d image.Digest, room image.Tree) (image.Tree, error)

// Load makes the index of version v, whose trees load returns. A directory whose tree cannot be read is lost: see Lost.
// Load returns an error if that is the root, or if the tree may be readable at another time. Subtrees at the same path
// in base, which may be nil, are copied from it without loading or hashing anything. So a version that differs little
// is loaded in milliseconds.
func Load(v image.Version, load Loader, base *Index) (*Index, error) {
	expect := min(v.Files, 1<<20) + 1
	b := builder{load: load, base: base, sorts: make(map[sortKey]uint32), names: newNames(expect)}
	b.x = &Index{Version: v, groups: make(map[fileid.ID][]Ref), extras: make(map[Ref]extra)}
	b.x.rows = make([]row, 0, expect)
	b.x.digests = make([]image.Digest, 0, expect)
	if v.Root.Type != image.Directory {
		return nil, fmt.Errorf("index %s: the root is a %s", v.Ref(), v.Root.Type)
	}
	root := v.Root
	root.Name, root.Link = "", ""
	b.add(&root, 0, Root)
	if base != nil {
		b.from = append(make([]Ref, 0, expect), Root)
		b.same = make([]uint32, len(base.sorts))
	}
	if err := b.run(); err != nil {
		return nil, fmt.Errorf("index %s: %w", v.Ref(), err)
	}
	b.x.link()
	return b.x, nil
}

// builder appends the listings of directories one after another: the rows are the queue of a breadth-first
// walk.
type builder struct {
	x     *Index
	load  Loader
	base  *Index
	from  []Ref // with a base, for each row the same path's row there, or None
	same  []uint32
	sorts map[sortKey]uint32
	names names

	// Memory that is reused for each directory.
	room  image.Tree
	order []named
	path  []byte // of the directory
}

// named is an entry of a tree with its name's hash.
type named struct {
	hash uint64
	e    *image.Entry
}

// sortKey is what makes a sort; xattrs are encoded.
type sortKey struct {
	uid, gid uint32
	mode     uint16
	kind     image.Type
	more     bool
	xattrs   string
}

func (b *builder) run() error {
	for at := Ref(0); int(at) < len(b.x.rows); at++ {
		if !b.x.IsDir(at) {
			continue
		}
		if len(b.x.rows) > math.MaxInt32/2 || len(b.x.text) > math.MaxUint32/2 {
			return fmt.Errorf("more names than an index can hold")
		}
		from := None
		if b.base != nil {
			from = b.from[at]
		}
		if from != None && b.base.IsDir(from) && !b.base.Lost(from) && *b.base.Digest(from) == *b.x.Digest(at) {
			b.copyListing(at, from)
		} else if err := b.listing(at, from); err != nil {
			return err
		}
	}
	return nil
}

// listing loads the tree of directory dir, which is from in the base or None, and appends its entries.
func (b *builder) listing(dir, from Ref) error {
	tree, err := b.load(*b.x.Digest(dir), b.room)
	if err != nil && (dir == Root || passes(err)) {
		return err
	}
	if err != nil {
		if b.x.lost == nil {
			b.x.lost = make(map[Ref]error)
		}
		b.x.lost[dir] = err
		b.x.rows[dir].setChildren(Ref(len(b.x.rows)), 0)
		return nil
	}
	b.room = tree
	b.order = b.order[:0]
	for i := range tree {
		b.order = append(b.order, named{Hash(tree[i].Name), &tree[i]})
	}
	slices.SortFunc(b.order, func(a, b named) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), strings.Compare(a.e.Name, b.e.Name))
	})
	b.path = b.x.appendPath(b.path[:0], dir)
	b.x.rows[dir].setChildren(Ref(len(b.x.rows)), len(b.order))
	for _, n := range b.order {
		b.add(n.e, n.hash, dir)
		if b.base != nil {
			b.from = append(b.from, b.counterpart(from, n.e.Name, n.hash))
		}
	}
	return nil
}

// passes reports whether a tree may be readable at another time although nobody repairs the disk.
func passes(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// counterpart finds the entry with the given name in the base's directory dir.
func (b *builder) counterpart(dir Ref, name string, hash uint64) Ref {
	if dir == None || !b.base.IsDir(dir) {
		return None
	}
	r, _ := b.base.Child(dir, name, hash)
	return r
}

// add appends entry e, which is in parent at b.path.
func (b *builder) add(e *image.Entry, hash uint64, parent Ref) {
	r := row{
		id: b.id(e), hash: upper(hash), size: e.Size, name: b.name(e.Name, hash), parent: parent,
		nlink: max(e.Nlink, 1),
	}
	switch e.Type {
	case image.Directory:
		r.nlink = 0
		r.detail = b.digest(e.Digest)
		if len(b.x.rows) > 0 {
			b.x.rows[parent].nlink++
		}
	case image.Regular:
		r.detail = b.digest(e.Digest)
	case image.Symlink:
		r.detail = b.target(e.Target)
		r.size = uint64(len(e.Target))
	case image.CharDevice, image.BlockDevice:
		r.size = uint64(e.Major)<<32 | uint64(e.Minor)
	}
	var fits bool
	r.mtime, fits = nanoseconds(e.Mtime)
	more := !fits || e.Data != nil
	if more {
		b.x.extras[Ref(len(b.x.rows))] = extra{mtime: e.Mtime, data: slices.Clone(e.Data), sparse: e.Data != nil}
	}
	r.sort = b.sort(sortKey{e.UID, e.GID, uint16(e.Mode), e.Type, more, encoded(e.Xattrs)}, e.Xattrs)
	b.x.rows = append(b.x.rows, r)
}

// id returns the file id of e, which is at b.path.
func (b *builder) id(e *image.Entry) fileid.ID {
	dir := len(b.path)
	if dir > 0 {
		b.path = append(b.path, '/')
	}
	b.path = append(b.path, e.Name...)
	id := fileid.OfEntry(unsafe.String(unsafe.SliceData(b.path), len(b.path)), e) // which keeps no path
	b.path = b.path[:dir]
	return id
}

// copyListing appends the entries of base's directory from as those of dir.
func (b *builder) copyListing(dir, from Ref) {
	first, end := b.base.Children(from)
	b.x.rows[dir].setChildren(Ref(len(b.x.rows)), int(end-first))
	for old := first; old < end; old++ {
		r := b.base.rows[old]
		s := &b.base.sorts[r.sort]
		name := b.base.Name(old)
		r.parent = dir
		r.name = b.name(name, b.base.NameHash(old))
		switch s.kind {
		case image.Directory:
			r.nlink = 0
			r.detail = b.digest(*b.base.Digest(old))
			b.x.rows[dir].nlink++
		case image.Regular:
			r.detail = b.digest(*b.base.Digest(old))
		case image.Symlink:
			r.detail = b.target(b.base.Target(old))
		}
		if s.more {
			b.x.extras[Ref(len(b.x.rows))] = b.base.extras[old]
		}
		r.sort = b.sortOf(r.sort)
		b.x.rows = append(b.x.rows, r)
		b.from = append(b.from, old)
	}
}

// sort returns the number of the sort with key k and the given xattrs.
func (b *builder) sort(k sortKey, xattrs []image.Xattr) uint32 {
	if at, ok := b.sorts[k]; ok {
		return at
	}
	at := uint32(len(b.x.sorts))
	s := sort{uid: k.uid, gid: k.gid, mode: k.mode, kind: k.kind, more: k.more}
	for _, a := range xattrs {
		s.xattrs = append(s.xattrs, image.Xattr{Name: strings.Clone(a.Name), Value: slices.Clone(a.Value)})
	}
	b.x.sorts = append(b.x.sorts, s)
	b.sorts[k] = at
	return at
}

// sortOf returns the number of the base's sort at.
func (b *builder) sortOf(at uint32) uint32 {
	if b.same[at] == 0 {
		s := &b.base.sorts[at]
		b.same[at] = 1 + b.sort(sortKey{s.uid, s.gid, s.mode, s.kind, s.more, encoded(s.xattrs)}, s.xattrs)
	}
	return b.same[at] - 1
}

// encoded makes a list of xattrs comparable.
func encoded(list []image.Xattr) string {
	if len(list) == 0 {
		return ""
	}
	var b []byte
	for _, a := range list {
		b = append(binary.AppendUvarint(b, uint64(len(a.Name))), a.Name...)
		b = append(binary.AppendUvarint(b, uint64(len(a.Value))), a.Value...)
	}
	return string(b)
}

func (b *builder) digest(d image.Digest) uint32 {
	b.x.digests = append(b.x.digests, d)
	return uint32(len(b.x.digests) - 1)
}

func (b *builder) target(s string) uint32 {
	at := uint32(len(b.x.text))
	b.x.text = append(append(b.x.text, byte(len(s)>>8), byte(len(s))), s...)
	return at
}

// name adds s to the text unless it is there: a third of an installation's names occur more than once.
func (b *builder) name(s string, hash uint64) uint32 {
	place := b.names.slot(b.x, s, hash)
	if *place == 0 {
		b.x.text = append(append(b.x.text, byte(len(s))), s...)
		*place = uint32(len(b.x.text) - len(s))
		b.names.added(b.x)
		return uint32(len(b.x.text) - len(s) - 1)
	}
	return *place - 1
}

// names is a hash table of the names in the text with open addressing: offsets plus one. A map of strings took
// ten times as long.
type names struct {
	slots []uint32
	used  int
}

func newNames(expect uint64) names { return names{slots: make([]uint32, slotsFor(int(expect)))} }

// slot returns where the offset of s is or is to be put.
func (n *names) slot(x *Index, s string, hash uint64) *uint32 {
	for i := slot(hash>>16, len(n.slots)); ; i = next(i, len(n.slots)) {
		if at := n.slots[i]; at == 0 || x.nameAt(at-1) == s {
			return &n.slots[i]
		}
	}
}

// added is called after a slot was filled. It makes room.
func (n *names) added(x *Index) {
	n.used++
	if n.used*4 < len(n.slots)*3 {
		return
	}
	old := n.slots
	n.slots = make([]uint32, 2*len(old))
	for _, at := range old {
		if at != 0 {
			s := x.nameAt(at - 1)
			*n.slot(x, s, Hash(s)) = at
		}
	}
}

// link fills the table of ids and the hard-link groups, and trims the tables.
func (x *Index) link() {
	x.rows, x.text, x.digests = exact(x.rows), exact(x.text), exact(x.digests)
	x.slots = slices.Repeat([]Ref{None}, slotsFor(len(x.rows)))
	for at := range x.rows {
		r := &x.rows[at]
		if r.nlink > 1 && !x.IsDir(Ref(at)) {
			x.groups[r.id] = append(x.groups[r.id], Ref(at))
		}
		i := slot(uint64(r.id), len(x.slots))
		for x.slots[i] != None && x.rows[x.slots[i]].id != r.id {
			i = next(i, len(x.slots))
		}
		if x.slots[i] == None {
			x.slots[i] = Ref(at)
		}
	}
}

// exact returns s without spare room.
func exact[E any](s []E) []E {
	if cap(s)-len(s) < len(s)/16 {
		return s
	}
	return append(make([]E, 0, len(s)), s...)
}
