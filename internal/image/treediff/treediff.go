// Package treediff compares two captures.
//
// It must not know where trees are.
package treediff

import (
	"context"
	"strings"

	"dim/internal/image"
)

// Loader loads the tree with a digest.
type Loader func(image.Digest) (image.Tree, error)

// Change is a path at which two versions differ. Old is nil if the path was added, New is nil if it was removed. Both
// point into loaded trees and must not be modified.
type Change struct {
	Path     string // slash-separated, from the root, without a leading slash; "" is the root
	Old, New *image.Entry
}

// Diff calls yield for every path at which the directories old and new differ, in walk order: a directory before the
// paths below it, names bytewise. Either directory may be nil, for none: then all paths of the other one differ. Diff
// ends with an error of yield or ctx. It does not call load concurrently.
//
// A directory differs if its own attributes do. Diff only loads subtrees whose digests differ. It yields all names of a
// group of hard links.
func Diff(ctx context.Context, load Loader, old, new *image.Entry, yield func(Change) error) error {
	w := differ{ctx: ctx, load: load, yield: yield}
	return w.entry("", old, new)
}

// Walk calls yield for root and all paths below it, in walk order.
func Walk(ctx context.Context, load Loader, root *image.Entry, yield func(path string, e *image.Entry) error) error {
	return Diff(ctx, load, nil, root, func(c Change) error { return yield(c.Path, c.New) })
}

type differ struct {
	ctx   context.Context
	load  Loader
	yield func(Change) error
}

func (w *differ) entry(path string, old, new *image.Entry) error {
	if old == nil || new == nil || !old.SameAttributes(new) {
		if err := w.yield(Change{Path: path, Old: old, New: new}); err != nil {
			return err
		}
	}
	oldDir, newDir := isDir(old), isDir(new)
	switch {
	case oldDir && newDir:
		if old.Digest == new.Digest {
			return nil
		}
	case !oldDir && !newDir:
		return nil
	}
	if err := w.ctx.Err(); err != nil {
		return err
	}
	var a, b image.Tree
	var err error
	if oldDir {
		if a, err = w.load(old.Digest); err != nil {
			return err
		}
	}
	if newDir {
		if b, err = w.load(new.Digest); err != nil {
			return err
		}
	}
	return w.trees(path, a, b)
}

func isDir(e *image.Entry) bool { return e != nil && e.Type == image.Directory }

// trees merges two sorted listings.
func (w *differ) trees(path string, a, b image.Tree) error {
	for len(a) > 0 || len(b) > 0 {
		var old, new *image.Entry
		order := 0
		switch {
		case len(a) == 0:
			order = 1
		case len(b) == 0:
			order = -1
		default:
			order = strings.Compare(a[0].Name, b[0].Name)
		}
		var name string
		if order <= 0 {
			old, a = &a[0], a[1:]
			name = old.Name
		}
		if order >= 0 {
			new, b = &b[0], b[1:]
			name = new.Name
		}
		if old != nil && new != nil && old.Digest == new.Digest && old.SameAttributes(new) {
			continue
		}
		if err := w.entry(image.JoinPath(path, name), old, new); err != nil {
			return err
		}
	}
	return nil
}
