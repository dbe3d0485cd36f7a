package fuse

import (
	"fmt"
	"sync"

	gofuse "github.com/hanwen/go-fuse/v2/fuse"

	"dim/internal/vfs"
)

// node is one object to which the kernel refers. The lock of the table guards all but id and h.
type node struct {
	id uint64
	h  vfs.Handle

	lookups uint64    // the count of the kernel
	opens   int       // of a file, not of a directory
	hidden  string    // its only name, in the root directory, if it was removed while in use
	removed *vfs.Attr // its attributes when its last name was removed
}

// table holds the nodes, and the open files and directories.
type table struct {
	root *node

	mu       sync.Mutex
	lastID   uint64
	byID     map[uint64]*node
	byHandle map[vfs.Handle]*node
	open     map[uint64]any // *node of an open file, *dirStream of an open directory
}

func newTable(root vfs.Handle) *table {
	n := &node{id: gofuse.FUSE_ROOT_ID, h: root, lookups: 1}
	return &table{
		root: n, lastID: n.id,
		byID:     map[uint64]*node{n.id: n},
		byHandle: map[vfs.Handle]*node{root: n},
		open:     make(map[uint64]any),
	}
}

// addLookup returns the node of h, which it makes if there is none, and counts one more lookup of it.
func (t *table) addLookup(h vfs.Handle) *node {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byHandle[h]
	if n == nil {
		t.lastID++
		n = &node{id: t.lastID, h: h}
		t.byID[n.id], t.byHandle[h] = n, n
	}
	n.lookups++
	return n
}

// get returns the node of an id. If there is none, the request of the kernel is wrong.
func (t *table) get(id uint64) (*node, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.byID[id]
	return n, ok
}

// forget subtracts lookups. It returns the hidden name that is to be removed now, or "".
func (t *table) forget(id, lookups uint64) (hidden string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byID[id]
	if n == nil || n == t.root {
		return ""
	}
	n.lookups -= min(n.lookups, lookups)
	return t.drop(n)
}

// drop removes a node that is no longer in use, and returns its hidden name. The RELEASE of a file may follow its
// FORGET.
func (t *table) drop(n *node) (hidden string) {
	if n.lookups > 0 || n.opens > 0 {
		return ""
	}
	delete(t.byID, n.id)
	delete(t.byHandle, n.h)
	return n.hidden
}

// openFile counts an open of n, and returns a number for the open file.
func (t *table) openFile(n *node) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	n.opens++
	return t.addOpen(n)
}

// addOpen returns a number for an open file or directory.
func (t *table) addOpen(what any) uint64 {
	t.lastID++
	t.open[t.lastID] = what
	return t.lastID
}

// closeFile drops an open file. It returns the hidden name that is to be removed now, or "".
func (t *table) closeFile(fh uint64) (hidden string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, ok := t.open[fh].(*node)
	if !ok {
		return ""
	}
	delete(t.open, fh)
	n.opens--
	return t.drop(n)
}

func (t *table) openDir(s *dirStream) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.addOpen(s)
}

func (t *table) dir(fh uint64) (*dirStream, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.open[fh].(*dirStream)
	return s, ok
}

func (t *table) closeDir(fh uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, fh)
}

// inUse reports whether the kernel refers to the object h, and whether it is open as a file.
func (t *table) inUse(h vfs.Handle) (known, open bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.byHandle[h]
	return n != nil, n != nil && n.opens > 0
}

// hiddenPrefix is the prefix of hidden names.
const hiddenPrefix = ".fuse_hidden"

// newHidden returns a fresh hidden name.
func (t *table) newHidden() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastID++
	return fmt.Sprintf("%s%016x", hiddenPrefix, t.lastID)
}

// hide records that a hidden name is the only name of h.
func (t *table) hide(h vfs.Handle, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.byHandle[h]; n != nil {
		n.hidden = name
	}
}

func (t *table) hiddenName(n *node) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.hidden
}

// setRemoved keeps the attributes of an object whose last name was removed, for processes that have it as their working
// directory or hold it by O_PATH.
func (t *table) setRemoved(h vfs.Handle, a vfs.Attr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := t.byHandle[h]; n != nil {
		a.Nlink = 0
		n.removed = &a
	}
}

func (t *table) removedAttr(n *node) *vfs.Attr {
	t.mu.Lock()
	defer t.mu.Unlock()
	return n.removed
}

// allHidden returns the hidden names.
func (t *table) allHidden() (names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range t.byID {
		if n.hidden != "" {
			names = append(names, n.hidden)
		}
	}
	return names
}
