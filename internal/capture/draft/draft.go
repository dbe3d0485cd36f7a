// Package draft holds a tree in the making: entries come in any order, later ones replace earlier ones, and at the end all of it
// becomes trees in a store.
//
// # Concepts
//
// Nothing here is on a disk, so nothing here can lead out of the tree: a path is looked up among the entries that came before
// it. Two names of one object, made by Link, are the same object until one of them is replaced.
//
// Layers are for images that come in several archives. What hides, by Remove and Clear, hides what earlier layers brought and nothing of
// the present one, in whatever order the two come.
//
// # Exclusion
//
// What is excluded is in the draft, because something that is not may be linked to it, but it does not come into the trees.
// Its content need not be brought: see Wanted and Missing.
//
// # Invariants
//
// The same entries give the same trees, and these are the ones that package capture makes of a directory with the same entries.
//
// A Tree is for one goroutine.
package draft

import (
	"errors"
	"fmt"
	"strings"

	"dim/internal/image"
	"dim/internal/image/pathmatch"
)

// Options say what a draft is to be. The zero Options work.
type Options struct {
	Exclude pathmatch.List // what stays out
	// Follow makes a path lead through symlinks, as in a root directory that cannot be left. Without, a symlink on the way
	// is an error.
	Follow bool
	// Need has paths of which the content is wanted though they are excluded.
	Need map[string]bool
}

// The limits of a draft; a whole distribution has a hundredth of it.
const (
	maxNames = 4 << 20
	maxHeld  = 1 << 30 // bytes of names, targets and xattrs
	maxLinks = 40      // symlinks on the way to one path, as in Linux (namei.h, MAXSYMLINKS)
	maxPath  = 4095
)

// Tree is a tree in the making.
type Tree struct {
	o     Options
	root  *node
	layer int
	names int
	held  int
}

// node is an object. Its entry has no name, link or tree.
type node struct {
	entry  image.Entry
	names  map[string]name // of a directory
	from   string          // the path at which it came
	hollow bool            // its content did not come
}

// name is a name in a directory.
type name struct {
	*node
	layer int
}

// New returns a draft of an empty directory.
func New(o Options) *Tree {
	return &Tree{o: o, root: newNode("", implied())}
}

// implied is a directory that nobody described.
func implied() image.Entry { return image.Entry{Type: image.Directory, Mode: 0o755, Nlink: 1} }

func newNode(path string, e image.Entry) *node {
	n := &node{entry: e, from: path}
	if e.Type == image.Directory {
		n.names = map[string]name{}
	}
	return n
}

// Clean returns the path that a name in an archive stands for: slash-separated, from the root, no leading slash; "" is the
// root. A name that leads upwards is an error.
func Clean(s string) (string, error) {
	if len(s) > maxPath {
		return "", fmt.Errorf("a name of %d bytes is too long", len(s))
	}
	var parts []string
	for part := range strings.SplitSeq(s, "/") {
		switch {
		case part == "" || part == ".":
		case part == "..":
			return "", fmt.Errorf("%q leads out of the archive", s)
		case !image.ValidEntryName(part):
			return "", fmt.Errorf("%q is not a path", s)
		default:
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, "/"), nil
}

// Put brings an entry. A directory keeps what is in the directory that it replaces; anything else replaces all that was there.
// Name, Link and Nlink of e do not count. A regular file with a size and no digest has no content yet.
func (t *Tree) Put(path string, e image.Entry) error {
	if err := t.hold(len(path) + len(e.Target) + xattrBytes(e.Xattrs)); err != nil {
		return err
	}
	e.Name, e.Link, e.Nlink = "", "", 1
	hollow := e.Type == image.Regular && e.Digest.IsZero()
	if hollow && e.Size == 0 {
		hollow, e.Digest = false, image.Sum(nil)
	}
	if path == "" {
		if e.Type != image.Directory {
			return fmt.Errorf("the root is a %s", e.Type)
		}
		t.root.entry = e
		return nil
	}
	dir, last, err := t.parent(path)
	if err != nil {
		return err
	}
	n := newNode(path, e)
	n.hollow = hollow
	if old, ok := dir.names[last]; ok && old.names != nil && n.names != nil {
		n.names = old.names
	}
	return t.set(dir, last, n)
}

func xattrBytes(list []image.Xattr) (n int) {
	for i := range list {
		n += len(list[i].Name) + len(list[i].Value)
	}
	return n
}

func (t *Tree) hold(bytes int) error {
	if t.held += bytes; t.held > maxHeld {
		return errors.New("names and attributes of more than 1 GiB")
	}
	return nil
}

func (t *Tree) set(dir *node, last string, n *node) error {
	if _, ok := dir.names[last]; !ok {
		if t.names++; t.names > maxNames {
			return fmt.Errorf("more than %d names", maxNames)
		}
	}
	dir.names[last] = name{n, t.layer}
	return nil
}

// Link gives what is at the path to the name path, too.
func (t *Tree) Link(path, to string) error {
	if err := t.hold(len(path)); err != nil {
		return err
	}
	n, err := t.lookup(to)
	switch {
	case err != nil:
		return fmt.Errorf("hard link to /%s: %w", to, err)
	case n == nil:
		return fmt.Errorf("hard link to /%s, which is not there", to)
	case n.names != nil:
		return fmt.Errorf("hard link to /%s, which is a directory", to)
	case path == "":
		return errors.New("the root is a hard link")
	}
	dir, last, err := t.parent(path)
	if err != nil {
		return err
	}
	return t.set(dir, last, n)
}

// lookup returns what is at path, or nil.
func (t *Tree) lookup(path string) (*node, error) {
	if path == "" {
		return t.root, nil
	}
	w := walk{t: t}
	dir, err := w.parent(path)
	if err != nil || dir == nil {
		return nil, err
	}
	return dir.names[w.last].node, nil
}

// parent returns the directory in which the last component of path stands, and makes what is missing on the way.
func (t *Tree) parent(path string) (dir *node, last string, err error) {
	w := walk{t: t, make: true}
	dir, err = w.parent(path)
	return dir, w.last, err
}

// Wanted reports whether the content of a file at path can come into the trees. It may say so of one that later turns out not to.
func (t *Tree) Wanted(path string) bool {
	w := walk{t: t}
	if _, err := w.parent(path); err != nil {
		return true // Put tells what is wrong
	}
	at := w.at()
	return t.o.Need[path] || !t.excluded(at)
}

func (t *Tree) excluded(path string) bool {
	top, _, below := strings.Cut(path, "/")
	return below && alwaysEmpty(top) || t.o.Exclude.Cover(path)
}

// alwaysEmpty reports whether a directory in the root belongs to the running system and not to an installation.
func alwaysEmpty(top string) bool { return top == "proc" || top == "sys" || top == "dev" }

// NextLayer begins a layer above what came so far.
func (t *Tree) NextLayer() { t.layer++ }

// Remove takes away what earlier layers brought at path, if they did.
func (t *Tree) Remove(path string) error {
	w := walk{t: t}
	dir, err := w.parent(path)
	if err != nil || dir == nil {
		return err
	}
	if n, ok := dir.names[w.last]; ok && t.sweep(n.node) && n.layer < t.layer {
		t.names--
		delete(dir.names, w.last)
	}
	return nil
}

// Clear takes away everything that earlier layers brought below path.
func (t *Tree) Clear(path string) error {
	n, err := t.lookup(path)
	if err == nil && n != nil {
		t.sweep(n)
	}
	return err
}

// sweep takes out what earlier layers brought below n, and reports whether nothing is left there.
func (t *Tree) sweep(n *node) bool {
	for last, below := range n.names {
		if t.sweep(below.node) && below.layer < t.layer {
			t.names--
			delete(n.names, last)
		}
	}
	return len(n.names) == 0
}
