// Package draft builds a tree in memory. Entries are added in any order, and later ones replace earlier ones. At the
// end the draft is written to a store.
//
// # Concepts
//
// A path is looked up among the entries that were added before, never on a disk, so no path leads out of the tree. Two
// names of one object, made by Link, are the same object until one of them is replaced.
//
// Layers are for images that consist of several archives. Remove and Clear take away what earlier layers have added and
// nothing of the current layer, whether it is added before or after.
//
// # Exclusion
//
// Excluded entries are in the draft, because an entry that is not excluded may be linked to one. They are not written
// to the store. Their content need not be read: see Wanted and Missing.
//
// # Invariants
//
// The same entries give the same trees. These are the trees that package capture makes of a directory with the same
// entries.
//
// A Tree may be used by one goroutine.
package draft

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dim/internal/image"
	"dim/internal/image/pathmatch"
)

// Options of a Tree. The zero Options work.
type Options struct {
	Exclude pathmatch.List // entries that are not written to the store
	// Follow makes a path lead through symlinks, as after chroot(2). Without it, a symlink in the middle of a path is
	// an error.
	Follow bool
	// Need has excluded paths whose content is needed.
	Need map[string]bool
}

// The limits of a draft. A whole distribution needs about a hundredth of them.
const (
	maxNames  = 4 << 20
	maxMemory = 1 << 30 // bytes of names, targets and xattrs
	maxLinks  = 40      // symlinks in the resolution of one path, as in Linux (namei.h, MAXSYMLINKS)
)

// Tree is a tree that is being built.
type Tree struct {
	o      Options
	root   *node
	layer  int
	names  int
	memory int

	replaced map[string]string // see ReplacedLinks
}

// node is an object. Its entry has no name, link or tree.
type node struct {
	entry     image.Entry
	names     map[string]name // of a directory
	from      string          // the path with which it was added
	noContent bool            // its content was not read
}

// name is a name in a directory.
type name struct {
	*node
	layer int
}

// New returns a draft of an empty directory.
func New(o Options) *Tree {
	return &Tree{o: o, root: newNode("", implied()), replaced: map[string]string{}}
}

// implied returns the entry of a directory that has none of its own.
func implied() image.Entry { return image.Entry{Type: image.Directory, Mode: 0o755, Nlink: 1} }

func newNode(path string, e image.Entry) *node {
	n := &node{entry: e, from: path}
	if e.Type == image.Directory {
		n.names = map[string]name{}
	}
	return n
}

// Clean returns the path of a name in an archive: slash-separated, from the root, no leading slash; "" is the root. A
// name with ".." is an error.
func Clean(s string) (string, error) {
	const margin = 2 // for a "./" in front
	if len(s) > image.MaxPath+margin {
		return "", tooLong(len(s))
	}
	var parts []string
	for part := range strings.SplitSeq(s, "/") {
		switch {
		case part == "" || part == ".":
		case part == "..":
			return "", fmt.Errorf("%q has a component \"..\", which is not taken", s)
		case !image.ValidEntryName(part):
			return "", fmt.Errorf("%q is not a path", s)
		default:
			parts = append(parts, part)
		}
	}
	path := strings.Join(parts, "/")
	if len(path) > image.MaxPath {
		return "", tooLong(len(path))
	}
	return path, nil
}

func tooLong(n int) error {
	return fmt.Errorf("a name of %d bytes is too long: at most %d", n, image.MaxPath)
}

// Put adds an entry. A directory that replaces a directory keeps its content; any other entry replaces everything at
// and below path. Name, Link and Nlink of e are ignored. A regular file with a size and no digest has no content yet.
func (t *Tree) Put(path string, e image.Entry) error {
	if err := t.account(len(path) + len(e.Target) + xattrBytes(e.Xattrs)); err != nil {
		return err
	}
	e.Name, e.Link, e.Nlink = "", "", 1
	noContent := e.Type == image.Regular && e.Digest.IsZero()
	if noContent && e.Size == 0 {
		noContent, e.Digest = false, image.Sum(nil)
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
	n.noContent = noContent
	old, ok := dir.names[last]
	if ok && old.names != nil && n.names != nil {
		n.names = old.names
	}
	delete(t.replaced, path)
	if ok && old.entry.Type == image.Symlink && n.names != nil && t.leadsToDirectory(path) {
		t.replaced[path] = old.entry.Target
	}
	return t.set(dir, last, n)
}

// leadsToDirectory reports whether the symlink at path leads to a directory.
func (t *Tree) leadsToDirectory(path string) bool {
	o := t.o
	o.Follow = true
	w := walk{t: &Tree{o: o, root: t.root}}
	dir, err := w.parent(path + "/.")
	return err == nil && dir != nil
}

// ReplacedLinks returns the targets of symlinks to directories that directories have replaced, by path. What the links
// led to is not found at these paths any more.
func (t *Tree) ReplacedLinks() map[string]string { return t.replaced }

// Has reports whether there is an entry at path.
func (t *Tree) Has(path string) bool {
	n, err := t.lookup(path)
	return err == nil && n != nil
}

// Top returns the names in the root, sorted.
func (t *Tree) Top() []string { return slices.Sorted(maps.Keys(t.root.names)) }

func xattrBytes(list []image.Xattr) (n int) {
	for i := range list {
		n += len(list[i].Name) + len(list[i].Value)
	}
	return n
}

// account counts memory that the draft needs.
func (t *Tree) account(bytes int) error {
	if t.memory += bytes; t.memory > maxMemory {
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

// Link makes path a further name of the object at to.
func (t *Tree) Link(path, to string) error {
	if err := t.account(len(path)); err != nil {
		return err
	}
	n, err := t.lookup(to)
	switch {
	case err != nil:
		return fmt.Errorf("hard link to /%s: %w", to, err)
	case n == nil:
		return fmt.Errorf("hard link to /%s, which is not before it: make the archive of the whole tree, "+
			"without --exclude and --delete, and leave out with an exclude rule", to)
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

// lookup returns the object at path, or nil.
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

// parent returns the directory of the last component of path. It adds directories that are missing.
func (t *Tree) parent(path string) (dir *node, last string, err error) {
	w := walk{t: t, make: true}
	dir, err = w.parent(path)
	return dir, w.last, err
}

// Wanted reports whether the content of a file at path may be needed in the store.
func (t *Tree) Wanted(path string) bool {
	w := walk{t: t}
	if _, err := w.parent(path); err != nil {
		return true // Put will return the error
	}
	at := w.at()
	return t.o.Need[path] || !t.excluded(at)
}

func (t *Tree) excluded(path string) bool {
	top, _, below := strings.Cut(path, "/")
	return below && alwaysEmpty(top) || t.o.Exclude.Cover(path)
}

// alwaysEmpty reports whether a directory in the root belongs to the running system, not to the installation.
func alwaysEmpty(top string) bool { return top == "proc" || top == "sys" || top == "dev" }

// NextLayer begins the next layer.
func (t *Tree) NextLayer() { t.layer++ }

// Remove removes the object at path if an earlier layer has added it.
func (t *Tree) Remove(path string) error {
	w := walk{t: t}
	dir, err := w.parent(path)
	if err != nil || dir == nil {
		return err
	}
	if n, ok := dir.names[w.last]; ok && t.clear(n.node) && n.layer < t.layer {
		t.names--
		delete(dir.names, w.last)
	}
	return nil
}

// Clear removes everything below path that earlier layers have added.
func (t *Tree) Clear(path string) error {
	w := walk{t: t}
	dir, err := w.parent(path + "/.") // path itself may be a symlink
	if err == nil && dir != nil {
		t.clear(dir)
	}
	return err
}

// clear removes everything below n that earlier layers have added, and reports whether n is empty then.
func (t *Tree) clear(n *node) bool {
	for last, below := range n.names {
		if t.clear(below.node) && below.layer < t.layer {
			t.names--
			delete(n.names, last)
		}
	}
	return len(n.names) == 0
}
