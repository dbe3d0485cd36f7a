package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"dim/internal/image"
)

// errStaleNotes is returned if the notes name trees that the store does not have.
var errStaleNotes = errors.New("stale notes")

// assemble builds the trees from the leaves up, and counts names and bytes.
func (c *scan) assemble(ctx context.Context, root *dir) error {
	if root.gone {
		return fmt.Errorf("the master's root vanished")
	}
	if _, err := c.batch.PutTree(nil); err != nil { // for directories that are captured without their content
		return err
	}
	c.link()
	b := builder{scan: c, ctx: ctx, free: make(chan struct{}, c.o.Workers)}
	if err := b.build(root); err != nil {
		return err
	}
	if c.partial && root.noted.all.linked != c.old.root.all.linked {
		return errLinks
	}
	return nil
}

// link sets the first path and the number of names of every group. If they differ from the notes, it makes items of the
// directories of all names, so that their trees are built.
func (c *scan) link() {
	for id, g := range c.groups {
		g.first, g.count = "", 0
		for _, m := range g.members {
			if m.gone() {
				continue
			}
			path := m.path()
			if g.count == 0 || image.ComparePaths(path, g.first) < 0 {
				g.first = path
			}
			g.count++
		}
		if g.fresh == nil && c.old != nil && c.old.links[id] == (linkNote{g.first, g.count}) {
			continue
		}
		for _, m := range g.members {
			if m.d.same {
				c.itemize(m.d, m.d.note.entries)
			}
		}
	}
}

func (m member) gone() bool { return m.d.gone || !m.d.same && m.d.items[m.at].gone }

func (m member) path() string {
	if m.d.same {
		return image.JoinPath(m.d.path(), m.d.note.entries[m.at].name)
	}
	return image.JoinPath(m.d.path(), m.d.items[m.at].name)
}

// size returns the size of the content, 0 if it is no regular file.
func (g *group) size() uint64 {
	if g.fresh != nil {
		return g.fresh.Size
	}
	if e := g.stamp.entry(""); e.Type != image.Regular {
		return 0
	}
	return g.stamp.size
}

// builder builds trees. Several directories are built at the same time.
type builder struct {
	*scan
	ctx  context.Context
	free chan struct{}
}

func (b *builder) build(d *dir) error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	if err := b.children(d); err != nil {
		return err
	}
	if err := b.make(d); err != nil {
		return err
	}
	d.noted = b.noteOf(d)
	return nil
}

// make builds the tree of d, unless the old one is still valid.
func (b *builder) make(d *dir) error {
	if d.unchanged() {
		d.tree, d.bytes = d.note.tree, d.note.bytes
		return nil
	}
	if d.same {
		b.itemize(d, d.note.entries)
	}
	t, err := b.compose(d)
	if err != nil {
		return err
	}
	d.tree, err = b.batch.PutTree(t)
	if err != nil {
		return fmt.Errorf("/%s: %w", d.path(), err)
	}
	return nil
}

func (b *builder) children(d *dir) error {
	var g errgroup.Group
	for _, child := range d.children {
		if child.gone {
			continue
		}
		select {
		case b.free <- struct{}{}:
			g.Go(func() error {
				defer func() { <-b.free }()
				return b.build(child)
			})
		default:
			if err := b.build(child); err != nil {
				return errors.Join(err, g.Wait())
			}
		}
	}
	return g.Wait()
}

// unchanged reports whether the tree of the note is still valid.
func (d *dir) unchanged() bool {
	if !d.same {
		return false
	}
	for _, c := range d.children {
		if c.gone || !c.known || c.note == nil || c.tree != c.note.tree {
			return false
		}
	}
	return true
}

// compose builds the tree of d from the items that were read and the entries of the old tree.
func (b *builder) compose(d *dir) (image.Tree, error) {
	var old image.Tree
	if slices.ContainsFunc(d.items, func(it item) bool { return it.note >= 0 }) {
		var err error
		if old, err = b.store.Tree(d.note.tree); err != nil {
			return nil, fmt.Errorf("%w: %w", errStaleNotes, err)
		}
	}
	t := make(image.Tree, 0, len(d.items))
	for i := range d.items {
		it := &d.items[i]
		if it.gone || it.child != nil && it.child.gone {
			continue
		}
		e := it.entry
		if it.note >= 0 {
			o, ok := old.Lookup(it.name)
			if !ok {
				return nil, fmt.Errorf("%w: %q is not in tree %s", errStaleNotes, it.name, d.note.tree)
			}
			e = *o
		}
		it.complete(&e)
		if e.Type == image.Regular && it.group == nil && (it.note < 0 || !it.stamp.linked()) {
			d.bytes += e.Size
		}
		t = append(t, e)
	}
	slices.SortFunc(t, func(a, b image.Entry) int { return strings.Compare(a.Name, b.Name) })
	// A directory that changes while it is listed may have a name twice.
	return slices.CompactFunc(t, func(a, b image.Entry) bool { return a.Name == b.Name }), nil
}

// complete sets the fields of e that are known only after the scan.
func (it *item) complete(e *image.Entry) {
	if c := it.child; c != nil {
		if !c.known {
			*e = c.stamp.entry(it.name)
			e.Xattrs = c.xattrs
		}
		e.Digest = c.tree
	} else if e.Type == image.Directory && it.stamp.flags&flagOmitted != 0 {
		e.Digest = emptyTree()
	}
	g := it.group
	if g == nil {
		return
	}
	if g.fresh != nil {
		*e = *g.fresh
		e.Name = it.name
	}
	e.Link, e.Nlink = "", 1
	if g.count > 1 {
		e.Link, e.Nlink = g.first, g.count
	}
}

func emptyTree() image.Digest {
	b, err := image.Tree(nil).Encode()
	if err != nil {
		panic(err) // an empty tree is always valid
	}
	return image.Sum(b)
}

// unreadable sorts the problems and returns those that make the capture fail.
func (c *scan) unreadable() []Problem { return unreadable(c.problems) }

func unreadable(all []Problem) []Problem {
	slices.SortFunc(all, func(a, b Problem) int { return image.ComparePaths(a.Path, b.Path) })
	var bad []Problem
	for _, p := range all {
		if p.Kind == Unreadable {
			bad = append(bad, p)
		}
	}
	return bad
}
