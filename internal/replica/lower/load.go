package lower

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"dim/internal/image"
)

// Load makes the index of version v, whose trees load returns. Subtrees that stand at the same path in base, which may be
// nil, are copied from it without loading or hashing anything, so that a version which differs little is there in
// milliseconds.
func Load(v image.Version, load image.Loader, base *Index) (*Index, error) {
	b := builder{load: load, base: base, interned: make(map[string]uint32)}
	if base == nil {
		b.base = &Index{}
	}
	b.x = &Index{Version: v, groups: make(map[image.ID][]Ref), extras: make(map[Ref]extra)}
	expect := min(v.Files, 1<<20) + 1
	b.x.rows = make([]row, 0, expect)
	b.x.digests = make([]image.Digest, 0, expect)
	if v.Root.Type != image.Directory {
		return nil, fmt.Errorf("index %s: the root is a %s", v.Ref(), v.Root.Type)
	}
	root := v.Root
	root.Name, root.Link = "", ""
	b.add(&root, "", 0, None)
	var from Ref = None
	if base != nil {
		from = Root
	}
	b.from = append(b.from, from)
	if err := b.run(); err != nil {
		return nil, fmt.Errorf("index %s: %w", v.Ref(), err)
	}
	b.x.link()
	return b.x, nil
}

// builder appends directories' listings behind one another: the rows are the queue of a breadth-first walk.
type builder struct {
	x        *Index
	load     image.Loader
	base     *Index
	from     []Ref // for each row the same path's row in base, or None
	interned map[string]uint32
}

func (b *builder) run() error {
	paths := map[Ref]string{Root: ""} // of the directories that wait
	for at := Ref(0); int(at) < len(b.x.rows); at++ {
		if b.x.rows[at].kind != image.Directory {
			continue
		}
		if len(b.x.rows) > math.MaxInt32/2 || len(b.x.text) > math.MaxUint32/2 {
			return fmt.Errorf("more names than an index can hold")
		}
		path := paths[at]
		delete(paths, at)
		from := b.from[at]
		if from != None && (!b.base.IsDir(from) || *b.base.Digest(from) != *b.x.Digest(at)) {
			if err := b.listing(at, path, from); err != nil {
				return err
			}
		} else if from != None {
			b.copyListing(at, from)
		} else if err := b.listing(at, path, None); err != nil {
			return err
		}
		first, end := b.x.Children(at)
		for r := first; r < end; r++ {
			if b.x.rows[r].kind == image.Directory {
				paths[r] = image.JoinPath(path, b.x.Name(r))
			}
		}
	}
	return nil
}

// listing loads the tree of directory dir and appends its entries.
func (b *builder) listing(dir Ref, path string, from Ref) error {
	tree, err := b.load(*b.x.Digest(dir))
	if err != nil {
		return err
	}
	type named struct {
		hash uint64
		e    *image.Entry
	}
	order := make([]named, len(tree))
	for i := range tree {
		order[i] = named{Hash(tree[i].Name), &tree[i]}
	}
	slices.SortFunc(order, func(a, b named) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), strings.Compare(a.e.Name, b.e.Name))
	})
	first := Ref(len(b.x.rows))
	b.x.rows[dir].first, b.x.rows[dir].count = first, uint32(len(order))
	for _, n := range order {
		b.add(n.e, image.JoinPath(path, n.e.Name), n.hash, dir)
		b.from = append(b.from, b.same(from, n.e.Name, n.hash))
	}
	return nil
}

func (b *builder) same(dir Ref, name string, hash uint64) Ref {
	if dir == None || !b.base.IsDir(dir) {
		return None
	}
	r, _ := b.base.Child(dir, name, hash)
	return r
}

func (b *builder) add(e *image.Entry, path string, hash uint64, parent Ref) {
	r := row{
		id: image.EntryID(path, e), hash: hash, size: e.Size, sec: e.Mtime.Sec, nsec: e.Mtime.Nsec, uid: e.UID, gid: e.GID,
		name: b.name(e.Name), parent: max(parent, Root), nlink: max(e.Nlink, 1), mode: uint16(e.Mode), kind: e.Type,
	}
	switch e.Type {
	case image.Directory:
		r.nlink = 0
		r.detail = b.digest(e.Digest)
		if parent != None {
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
	at := Ref(len(b.x.rows))
	if len(e.Xattrs) > 0 || e.Data != nil {
		r.more = true
		b.x.extras[at] = extra{xattrs: slices.Clone(e.Xattrs), data: slices.Clone(e.Data), sparse: e.Data != nil}
	}
	b.x.rows = append(b.x.rows, r)
}

// copyListing appends the entries of base's directory from as those of dir.
func (b *builder) copyListing(dir, from Ref) {
	first, end := b.base.Children(from)
	b.x.rows[dir].first, b.x.rows[dir].count = Ref(len(b.x.rows)), uint32(end-first)
	for old := first; old < end; old++ {
		r := b.base.rows[old]
		r.parent = dir
		r.name = b.name(b.base.Name(old))
		switch r.kind {
		case image.Directory:
			r.nlink = 0
			r.detail = b.digest(*b.base.Digest(old))
			b.x.rows[dir].nlink++
		case image.Regular:
			r.detail = b.digest(*b.base.Digest(old))
		case image.Symlink:
			r.detail = b.target(b.base.Target(old))
		}
		if r.more {
			b.x.extras[Ref(len(b.x.rows))] = b.base.extras[old]
		}
		b.x.rows = append(b.x.rows, r)
		b.from = append(b.from, old)
	}
}

func (b *builder) digest(d image.Digest) uint32 {
	b.x.digests = append(b.x.digests, d)
	return uint32(len(b.x.digests) - 1)
}

// name puts s into the text unless it is there: a third of an installation's names occur more than once.
func (b *builder) name(s string) uint32 {
	if at, ok := b.interned[s]; ok {
		return at
	}
	at := uint32(len(b.x.text))
	b.x.text = append(append(b.x.text, byte(len(s))), s...)
	b.interned[strings.Clone(s)] = at
	return at
}

func (b *builder) target(s string) uint32 {
	at := uint32(len(b.x.text))
	b.x.text = append(append(b.x.text, byte(len(s)>>8), byte(len(s))), s...)
	return at
}

// link fills the table of ids and the hard-link groups, and gives back what the tables have too much.
func (x *Index) link() {
	x.rows, x.text, x.digests = exact(x.rows), exact(x.text), exact(x.digests)
	size := 16
	for size < 2*len(x.rows) {
		size *= 2
	}
	x.slots = slices.Repeat([]Ref{None}, size)
	mask := uint64(size - 1)
	for at := range x.rows {
		r := &x.rows[at]
		if r.nlink > 1 && r.kind != image.Directory {
			x.groups[r.id] = append(x.groups[r.id], Ref(at))
		}
		i := uint64(r.id) & mask
		for x.slots[i] != None && x.rows[x.slots[i]].id != r.id {
			i = (i + 1) & mask
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
