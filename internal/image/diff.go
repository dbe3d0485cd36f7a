package image

import (
	"bytes"
	"context"
	"slices"
	"strings"
)

// Loader loads the tree with a digest.
type Loader func(Digest) (Tree, error)

// Change is a path at which two versions differ. Old is nil if the path was added, New is nil if it was removed. Both
// point into loaded trees and must not be modified.
type Change struct {
	Path     string // slash-separated, from the root, without a leading slash; "" is the root
	Old, New *Entry
}

// Subtrees selects what Diff yields of a directory that was added or removed.
type Subtrees uint8

// Whole yields the directory and all paths below it, Tops the directory alone.
const (
	Whole Subtrees = iota
	Tops
)

// Differ compares versions. It does not call Load concurrently.
type Differ struct {
	Load     Loader
	Subtrees Subtrees
}

// Diff calls yield for every path at which the directories old and new differ, in walk order: a directory before the
// paths below it, names bytewise. Either directory may be nil, for none. Diff ends with an error of yield or ctx.
//
// A directory differs if its own attributes do. Diff only loads subtrees whose digests differ. It yields all names of a
// group of hard links.
func (d *Differ) Diff(ctx context.Context, old, new *Entry, yield func(Change) error) error {
	w := differ{ctx: ctx, load: d.Load, subtrees: d.Subtrees, yield: yield}
	return w.entry("", old, new)
}

// Walk calls yield for root and all paths below it, in walk order.
func Walk(ctx context.Context, load Loader, root *Entry, yield func(path string, e *Entry) error) error {
	d := Differ{Load: load}
	return d.Diff(ctx, nil, root, func(c Change) error { return yield(c.Path, c.New) })
}

type differ struct {
	ctx      context.Context
	load     Loader
	subtrees Subtrees
	yield    func(Change) error
}

func (w *differ) entry(path string, old, new *Entry) error {
	if old == nil || new == nil || !old.sameAttributes(new) {
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
	case w.subtrees == Tops || !oldDir && !newDir:
		return nil
	}
	if err := w.ctx.Err(); err != nil {
		return err
	}
	var a, b Tree
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

func isDir(e *Entry) bool { return e != nil && e.Type == Directory }

// trees merges two sorted listings.
func (w *differ) trees(path string, a, b Tree) error {
	for len(a) > 0 || len(b) > 0 {
		var old, new *Entry
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
		if old != nil && new != nil && old.Digest == new.Digest && old.sameAttributes(new) {
			continue
		}
		if err := w.entry(JoinPath(path, name), old, new); err != nil {
			return err
		}
	}
	return nil
}

// sameAttributes reports whether e and o are equal, apart from their names and the content of directories.
func (e *Entry) sameAttributes(o *Entry) bool {
	return e.Type == o.Type && e.Mode == o.Mode && e.UID == o.UID && e.GID == o.GID && e.Mtime == o.Mtime &&
		e.Size == o.Size && (e.Type == Directory || e.Digest == o.Digest) && e.Target == o.Target &&
		e.Major == o.Major && e.Minor == o.Minor && e.Link == o.Link && max(e.Nlink, 1) == max(o.Nlink, 1) &&
		slices.Equal(e.Data, o.Data) && (e.Data == nil) == (o.Data == nil) &&
		slices.EqualFunc(e.Xattrs, o.Xattrs, func(a, b Xattr) bool {
			return a.Name == b.Name && bytes.Equal(a.Value, b.Value)
		})
}

// JoinPath returns the path of name in the directory at dir.
func JoinPath(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// ComparePaths compares two paths by walk order: component by component, a directory before the paths below it.
func ComparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		if a[i] == '/' {
			return -1
		}
		if b[i] == '/' {
			return 1
		}
		return int(a[i]) - int(b[i])
	}
	return len(a) - len(b)
}
