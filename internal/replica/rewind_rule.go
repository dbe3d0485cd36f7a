package replica

import (
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// rule decides about an entry of the snapshot as a switch from the snapshot's version to the present one would: where the master has changed what
// the node had too, the master wins. held is what of the entry does not come back for that.
func (w *rewinder) rule(e *treeEntry) (how choice, held []AsideKind) {
	if w.out.Unknown {
		return w.fit(e), nil
	}
	c := w.tree.find(e.path)
	if c == nil || w.hidden[e.path] || w.r.keep.Cover(e.path) {
		return how, nil
	}
	isDir := vfs.TypeOf(e.st.Mode) == vfs.Directory
	switch {
	case isWhiteout(&e.st) && c.shows:
		return choice{leave: true}, []AsideKind{AsideRemoval}
	case isWhiteout(&e.st):
		return choice{leave: c.differs && c.to == 0}, nil // there is nothing to hide any more
	case !isDir, c.differs && c.to != 0 && c.to != vfs.Directory:
		return choice{leave: true}, []AsideKind{AsideEntry}
	}
	how.empty = c.differs && c.to == 0 && e.path != ""
	attributes := c.differs && c.new != nil && c.new.Type == image.Directory
	opaque := c.shows && hasXattr(e.dir, e.name, xattrOpaque)
	if attributes {
		mine, now := dirAttrs{e.st.Mode & 0o7777, e.st.Uid, e.st.Gid}, attrsOf(c.new)
		if mine != now && (c.old == nil || c.old.Type != image.Directory || mine != attrsOf(c.old)) {
			held = append(held, AsideAttributes)
		}
	}
	if opaque {
		held = append(held, AsideOpaque)
	}
	how.dress = func(at string) error {
		if opaque {
			if err := unix.Lremovexattr(at, xattrOpaque); err != nil {
				return err
			}
		}
		if !attributes {
			return nil
		}
		return mastersDirectory(at, c)
	}
	return how, held
}

// mastersDirectory gives a directory the owner, mode and extended attributes that the master has given it.
func mastersDirectory(at string, c *change) error {
	now := attrsOf(c.new)
	if err := unix.Lchown(at, int(now.uid), int(now.gid)); err != nil {
		return err
	}
	if err := unix.Chmod(at, now.mode); err != nil {
		return err
	}
	return masterXattrs(at, c)
}

// fit makes an entry of a snapshot whose version is not known fit to the present one: a whiteout must hide something, and a directory cannot
// merge with what is none.
func (w *rewinder) fit(e *treeEntry) choice {
	low := w.r.lowAt(e.path)
	switch {
	case isWhiteout(&e.st):
		return choice{leave: low == lower.None && !w.hidden[e.path]}
	case vfs.TypeOf(e.st.Mode) != vfs.Directory, (low == lower.None || w.r.view.index.IsDir(low)) && !w.hidden[e.path]:
		return choice{}
	}
	return choice{dress: func(at string) error { return unix.Lsetxattr(at, xattrOpaque, []byte("y"), 0) }}
}

// lowAt returns the version's entry at a path, None when there is none.
func (r *Replica) lowAt(path string) lower.Ref {
	low, ok := r.view.index.Find(path)
	if !ok {
		return lower.None
	}
	return low
}

// find returns what changes at or below a path, or nil. It may be called on nil.
func (c *change) find(path string) *change {
	for path != "" && c != nil {
		name, rest, _ := strings.Cut(path, "/")
		c, path = c.kid(name), rest
	}
	return c
}
