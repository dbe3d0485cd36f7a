package draft

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"dim/internal/image"
	"dim/internal/image/pathmatch"
)

// Batch stores trees; it is a *store.Batch.
type Batch interface {
	PutTree(image.Tree) (image.Digest, error)
}

// Sum describes the trees that Store has stored.
type Sum struct {
	Root  image.Entry
	Files uint64 // names, without the root
	Bytes uint64 // of content; a hard-linked file counts once
}

// Missing returns the paths of files whose content was not read although they are needed under another name.
func (t *Tree) Missing() []string {
	s := t.survey()
	var list []string
	for n := range s.groups {
		if n.noContent {
			list = append(list, n.from)
		}
	}
	slices.Sort(list)
	return list
}

// Store stores the trees in b. Missing must return nothing.
func (t *Tree) Store(ctx context.Context, b Batch) (Sum, error) {
	w := &writer{survey: t.survey(), ctx: ctx, batch: b}
	var err error
	w.sum.Root = t.root.entry
	w.sum.Root.Digest, err = w.dir(t.root, "", t.o.Exclude.Matcher())
	for n := range w.groups {
		w.sum.Bytes += n.entry.Size
	}
	return w.sum, err
}

// group describes the names of an object.
type group struct {
	first string // in walk order
	count uint32
}

// survey has the objects that are not excluded, without directories.
type survey struct{ groups map[*node]group }

func (t *Tree) survey() *survey {
	s := &survey{groups: map[*node]group{}}
	s.dir(t.root, "", t.o.Exclude.Matcher())
	return s
}

func (s *survey) dir(d *node, path string, m pathmatch.Matcher) {
	for last, n := range each(d, path, m) {
		at := image.JoinPath(path, last)
		if n.names != nil {
			s.dir(n, at, m.Enter(last))
			continue
		}
		g := s.groups[n]
		if g.count == 0 || image.ComparePaths(at, g.first) < 0 {
			g.first = at
		}
		g.count++
		s.groups[n] = g
	}
}

// each yields the names in d that are not excluded, sorted.
func each(d *node, path string, m pathmatch.Matcher) func(func(string, *node) bool) {
	return func(yield func(string, *node) bool) {
		if alwaysEmpty(path) || m.Everything() {
			return
		}
		for _, last := range slices.Sorted(maps.Keys(d.names)) {
			if m.Covers(last) {
				continue
			}
			if !yield(last, d.names[last].node) {
				return
			}
		}
	}
}

// writer stores trees from the leaves up.
type writer struct {
	*survey
	ctx   context.Context
	batch Batch
	sum   Sum
}

func (w *writer) dir(d *node, path string, m pathmatch.Matcher) (image.Digest, error) {
	if err := w.ctx.Err(); err != nil {
		return image.Digest{}, err
	}
	tree := make(image.Tree, 0, len(d.names))
	for last, n := range each(d, path, m) {
		e, at := n.entry, image.JoinPath(path, last)
		e.Name = last
		if n.names != nil {
			below := m.Enter(last)
			if alwaysEmpty(at) || below.Everything() { // as package capture does
				e.Mtime = image.Time{}
			}
			var err error
			if e.Digest, err = w.dir(n, at, below); err != nil {
				return image.Digest{}, err
			}
		} else if g := w.groups[n]; g.count > 1 {
			e.Link, e.Nlink = g.first, g.count
		}
		tree = append(tree, e)
	}
	w.sum.Files += uint64(len(tree))
	digest, err := w.batch.PutTree(tree)
	if err != nil {
		return digest, fmt.Errorf("/%s: %w", path, err)
	}
	return digest, nil
}
