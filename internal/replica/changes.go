package replica

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/image/treediff"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// changes is what differs between two versions. It is computed once and shared by all replicas that go from one
// to the other.
type changes struct {
	paths int
	delta *delta
	tree  *change

	once sync.Once
	dirs []string // see changedDirs
}

// change is a path at which, or below which, two views differ.
type change struct {
	name    string
	hash    uint64
	kids    []*change
	differs bool         // the path itself does, not only something below
	old     *image.Entry // of versions; nil also for a node file
	new     *image.Entry
	to      vfs.Type // of what is here afterwards; 0 for nothing; Directory if only something below differs
	shows   bool     // something here or below is new afterwards, or another object
}

// compareTrees returns a comparison of the trees of source.
func compareTrees(source Source) comparison {
	return func(ctx context.Context, from, to *image.Version) (list []treediff.Change, err error) {
		err = treediff.Diff(ctx, source.Tree, &from.Root, &to.Root, func(e treediff.Change) error {
			list = append(list, e)
			return nil
		})
		return list, err
	}
}

func newChanges(list []treediff.Change) *changes {
	c := &changes{delta: newDelta(), tree: &change{to: vfs.Directory}}
	for _, e := range list {
		c.add(e)
	}
	return c
}

func (c *changes) add(e treediff.Change) {
	c.paths++
	n := c.tree.at(e.Path)
	n.differs, n.old, n.new, n.to = true, e.Old, e.New, 0
	if e.New != nil {
		n.to = lower.TypeOf(e.New.Type)
		for _, up := range c.tree.way(e.Path) {
			up.shows = true
		}
	}
	c.delta.entry(e)
}

// at returns the change of path, making it.
func (c *change) at(path string) *change {
	way := c.way(path)
	return way[len(way)-1]
}

// way returns the changes from c to path, making them. Paths must come in walk order.
func (c *change) way(path string) []*change {
	way := []*change{c}
	if path == "" {
		return way
	}
	for name := range strings.SplitSeq(path, "/") {
		var next *change
		if n := len(c.kids); n > 0 && c.kids[n-1].name == name { // changes come in walk order
			next = c.kids[n-1]
		} else {
			next = &change{name: name, hash: lower.Hash(name), to: vfs.Directory}
			c.kids = append(c.kids, next)
		}
		c = next
		way = append(way, c)
	}
	return way
}

// kid returns what changes at or below a name, or nil.
func (c *change) kid(name string) *change {
	i, ok := slices.BinarySearchFunc(c.kids, name, func(k *change, name string) int { // they are in walk order
		return strings.Compare(k.name, name)
	})
	if !ok {
		return nil
	}
	return c.kids[i]
}

// delta is what one step between two views changes, by id. It is immutable once made.
type delta struct {
	touched map[fileid.ID]struct{}   // what gets a new ctime
	gone    map[fileid.ID]*goneEntry // ids that the older view had and the newer has not at their path
}

func newDelta() *delta {
	return &delta{touched: make(map[fileid.ID]struct{}), gone: make(map[fileid.ID]*goneEntry)}
}

func (d *delta) entry(e treediff.Change) {
	if i := strings.LastIndexByte(e.Path, '/'); e.Path != "" {
		d.touched[fileid.OfDir(e.Path[:max(i, 0)])] = struct{}{}
	}
	var now fileid.ID
	if e.New != nil {
		now = fileid.OfEntry(e.Path, e.New)
		d.touched[now] = struct{}{}
	}
	if e.Old == nil {
		return
	}
	if id := fileid.OfEntry(e.Path, e.Old); id != now {
		d.gone[id] = goneOf(id, e.Path, e.Old)
	}
}

func goneOf(id fileid.ID, path string, e *image.Entry) *goneEntry {
	g := &goneEntry{
		id: id, kind: lower.TypeOf(e.Type), path: path, mode: e.Mode, uid: e.UID, gid: e.GID, mtime: vfs.Time(e.Mtime),
		size: e.Size, major: e.Major, minor: e.Minor, target: strings.Clone(e.Target),
	}
	switch e.Type {
	case image.Regular:
		digest := e.Digest
		g.origin = &digest
	case image.Symlink:
		g.size = uint64(len(e.Target))
	case image.Directory:
		g.size = lower.DirSize
	}
	return g
}

// segment is one or several steps that follow each other.
type segment struct {
	steps   int
	stamp   int64                  // of the last step
	touched map[fileid.ID]struct{} // of one step: the ids that have its stamp
	stamps  map[fileid.ID]int64    // of several
	gone    map[fileid.ID]*goneEntry
}

// newSegment takes over the maps of d. It copies nothing, for replicas are locked meanwhile.
func newSegment(d *delta, at int64) *segment {
	return &segment{steps: 1, stamp: at, touched: d.touched, gone: d.gone}
}

// of returns the stamp of the last step that touched id.
func (s *segment) of(id fileid.ID) (at int64, ok bool) {
	if s.stamps == nil {
		_, ok = s.touched[id]
		return s.stamp, ok
	}
	at, ok = s.stamps[id]
	return at, ok
}

func (s *segment) size() int { return len(s.touched) + len(s.stamps) }

func (s *segment) join(next *segment) *segment {
	j := &segment{
		steps: s.steps + next.steps, stamp: next.stamp,
		stamps: make(map[fileid.ID]int64, s.size()+next.size()),
		gone:   make(map[fileid.ID]*goneEntry, len(s.gone)+len(next.gone)),
	}
	for _, part := range []*segment{s, next} {
		for id := range part.touched {
			j.stamps[id] = part.stamp
		}
		maps.Copy(j.stamps, part.stamps)
		for id, g := range part.gone {
			j.gone[id] = g
		}
	}
	return j
}

// chain is a list of segments, oldest first, each of more steps than the next. So a history of a thousand steps
// has some ten maps, and replicas share what they have in common.
type chain []*segment

// joins has the segments that were joined. With it replicas that take a step together go on sharing.
type joins map[[2]*segment]*segment

// add returns the chain with one more segment.
func (c chain) add(s *segment, known joins) chain {
	next := append(c[:len(c):len(c)], s)
	for n := len(next); n >= 2 && next[n-2].steps <= next[n-1].steps; n = len(next) {
		pair := [2]*segment{next[n-2], next[n-1]}
		j := known[pair]
		if j == nil {
			j = pair[0].join(pair[1])
			known[pair] = j
		}
		next = append(next[:n-2], j)
	}
	return next
}

func (c chain) steps() int {
	n := 0
	for _, s := range c {
		n += s.steps
	}
	return n
}
