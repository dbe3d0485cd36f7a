package replica

import (
	"slices"

	"golang.org/x/sys/unix"

	"dim/internal/layer"
	"dim/internal/vfs"
)

// Rename has the semantics of rename(2). What is not in the layer is copied up first, a small directory of the
// version with all that is in it. For a large one the answer is EXDEV, and mv(1) copies it.
func (r *Replica) Rename(
	c *vfs.Cred, from vfs.Handle, fromName string, to vfs.Handle, toName string,
) (rc vfs.RenameChange, err error) {
	err = r.update(func(o *op) error {
		m := renaming{op: o, c: c, fromName: fromName, toName: toName}
		err := m.plan(from, to)
		if err == nil && m.moves {
			err = m.prepare()
		}
		if err == nil && m.moves {
			err = m.do()
		}
		rc = m.result(err)
		return err
	})
	return rc, err
}

// renaming is one call of Rename.
type renaming struct {
	*op
	c                *vfs.Cred
	from, to         vnode // the directories
	fromAttr, toAttr *vfs.Attr
	fromName, toName string
	src, dst         vnode
	hasDst           bool
	moves            bool // there is something to do
}

func (m *renaming) result(err error) vfs.RenameChange {
	var rc vfs.RenameChange
	if m.fromAttr == nil || m.toAttr == nil {
		return rc
	}
	if err != nil || !m.moves {
		rc.From, rc.To = unchanged(m.fromAttr), unchanged(m.toAttr)
		return rc
	}
	rc.From = m.r.changed(m.r.refresh(m.from), m.fromAttr)
	rc.To = rc.From
	if m.fromAttr.ID != m.toAttr.ID {
		rc.To = m.r.changed(m.r.refresh(m.to), m.toAttr)
	}
	return rc
}

// plan decides, in the order in which Linux does (fs/namei.c: do_renameat2, vfs_rename).
func (m *renaming) plan(from, to vfs.Handle) (err error) {
	if m.from, m.fromAttr, err = m.dirOf(from); err != nil {
		return err
	}
	if m.to, m.toAttr, err = m.dirOf(to); err != nil {
		return err
	}
	for _, n := range []string{m.fromName, m.toName} {
		if err := checkName(n); err != nil {
			return err
		}
		if isDot(n) {
			return vfs.EINVAL
		}
	}
	if !m.c.Permits(m.fromAttr, vfs.MayExec) || !m.c.Permits(m.toAttr, vfs.MayExec) {
		return vfs.EACCES
	}
	var ok bool
	if m.src, ok = m.r.child(m.from, m.fromName); !ok {
		return vfs.ENOENT
	}
	m.dst, m.hasDst = m.r.child(m.to, m.toName)
	if m.hasDst && m.r.id(m.src) == m.r.id(m.dst) {
		return nil // two names of one object, or one name: nothing happens
	}
	m.moves = true
	if err := m.may(); err != nil {
		return err
	}
	return m.mayMove()
}

func (m *renaming) dirOf(h vfs.Handle) (vnode, *vfs.Attr, error) {
	d, err := m.r.resolveDir(h)
	if err != nil {
		return d, nil, err
	}
	a := new(vfs.Attr)
	return d, a, m.r.attr(d, a)
}

// may checks for cycles, then permissions, then types.
func (m *renaming) may() error {
	r := m.r
	isDir := r.kind(m.src) == vfs.Directory
	kind := vfs.Regular
	if isDir {
		kind = vfs.Directory
	}
	if m.fromAttr.ID != m.toAttr.ID {
		if isDir && r.within(m.to, m.src) {
			return vfs.EINVAL
		}
		if m.hasDst && r.kind(m.dst) == vfs.Directory && r.within(m.from, m.dst) {
			return vfs.ENOTEMPTY
		}
	}
	if err := r.mayRemove(&parentDir{m.from, m.c, m.fromAttr}, m.src, kind); err != nil {
		return err
	}
	switch {
	case m.hasDst:
		if err := r.mayRemove(&parentDir{m.to, m.c, m.toAttr}, m.dst, kind); err != nil {
			return err
		}
	case !m.c.Permits(m.toAttr, vfs.MayWrite):
		return vfs.EACCES
	case m.to.gone != nil:
		return vfs.ENOENT
	}
	// A directory that moves gets another "..", which is a write to it.
	if isDir && m.fromAttr.ID != m.toAttr.ID && !r.permits(m.c, m.src, vfs.MayWrite) {
		return vfs.EACCES
	}
	return nil
}

// within reports whether directory d is top or lies below it.
func (r *Replica) within(d, top vnode) bool {
	want := r.id(top)
	for {
		at := r.id(d)
		if at == want {
			return true
		}
		up := r.parent(d)
		if r.id(up) == at {
			return false
		}
		d = up
	}
}

// mayMove checks what Linux does not know of: shared paths, path lengths, cookies.
func (m *renaming) mayMove() error {
	r := m.r
	if err := r.checkShared(m.from, m.fromName); err != nil {
		return err
	}
	if err := r.checkShared(m.to, m.toName); err != nil {
		return err
	}
	if err := r.checkPathLength(m.to, m.toName); err != nil {
		return err
	}
	isDir := r.kind(m.src) == vfs.Directory
	switch {
	case isDir && m.hasDst && !r.empty(m.dst):
		return vfs.ENOTEMPTY
	case !m.hasDst && r.crowded(m.to, m.toName):
		return vfs.ENOSPC
	}
	return nil
}

// The most that a directory of the version may hold to be renamed.
const (
	moveEntries = 1024
	moveBytes   = 64 << 20
)

// prepare copies up what is to be moved. A directory is then the layer's alone.
func (m *renaming) prepare() (err error) {
	if m.r.kind(m.src) != vfs.Directory {
		m.src, err = m.copyUp(m.src, whole)
		return err
	}
	if m.src.at.ownOnly() {
		return nil
	}
	var t subtreeSize
	if err := m.r.measure(m.src, &t); err != nil {
		return err
	}
	// First the content of all files together, then all entries, from the top.
	if err := m.copyTree(m.src, vfs.Regular); err != nil {
		return err
	}
	if m.needed != nil {
		return errContentMissing
	}
	if err := m.copyTree(m.src, vfs.Directory); err != nil {
		return err
	}
	if m.src, err = m.copyUp(m.src, whole); err != nil {
		return err
	}
	return m.makeOpaque(m.src)
}

type subtreeSize struct {
	entries int
	bytes   uint64
}

// measure adds up what is in directory d and comes from the version or a node file. It refuses what may not be
// moved.
func (r *Replica) measure(d vnode, t *subtreeSize) error {
	if r.lost(d) {
		return vfs.EIO
	}
	m := r.merge(d, 0)
	for {
		name, s, _, ok := m.next()
		if !ok {
			return nil
		}
		if err := r.checkShared(d, name); err != nil {
			return err
		}
		t.entries++
		if s.obj == nil && r.kind(s) == vfs.Regular {
			t.bytes += r.contentSize(s, whole)
		}
		if t.entries > moveEntries || t.bytes > moveBytes {
			return vfs.EXDEV
		}
		if r.kind(s) == vfs.Directory {
			if err := r.measure(s, t); err != nil {
				return err
			}
		}
	}
}

// copyTree copies up what is in directory d. In a pass for regular files it only collects the contents that are
// needed.
func (m *renaming) copyTree(d vnode, pass vfs.Type) error {
	for _, s := range m.r.entries(d) {
		kind := m.r.kind(s)
		isDir := kind == vfs.Directory
		switch {
		case pass == vfs.Regular && kind == vfs.Regular && s.obj == nil && m.r.contentSize(s, whole) > 0:
			if l := m.staged[m.r.id(s)]; l == nil || l.view != m.r.view || l.keep != whole {
				if err := m.needContent(s, whole); err != errContentMissing {
					return err
				}
			}
		case pass == vfs.Directory:
			var err error
			if s, err = m.copyUp(m.r.refresh(s), whole); err != nil {
				return err
			}
		}
		if isDir {
			if err := m.copyTree(s, pass); err != nil {
				return err
			}
		}
	}
	return nil
}

// entries returns all that directory d shows.
func (r *Replica) entries(d vnode) []vnode {
	var list []vnode
	m := r.merge(d, 0)
	for {
		_, s, _, ok := m.next()
		if !ok {
			return list
		}
		list = append(list, s)
	}
}

// makeOpaque makes the directory s opaque. Everything that shows in it is in the layer already.
func (m *renaming) makeOpaque(s vnode) error {
	d, name, err := m.r.where(s.obj)
	if err != nil {
		return err
	}
	defer d.Release()
	if err := layer.At(d.FD, name).SetOpaque(); err != nil {
		return err
	}
	s.obj.opaque = true
	m.r.hide(s.at)
	return m.removeWhiteouts(s.at)
}

// removeWhiteouts removes the whiteouts below p. They hide nothing any more, and overlayfs would list their
// names.
func (m *renaming) removeWhiteouts(p *dentry) error {
	if p.obj == nil || p.obj.kind != vfs.Directory || len(p.kids) == 0 {
		return nil
	}
	d, err := m.r.layerDir(p)
	if err != nil {
		return err
	}
	defer d.Release()
	for _, k := range slices.Clone(p.kids) {
		if err := m.removeWhiteouts(k); err != nil {
			return err
		}
		if !k.white {
			continue
		}
		err := layer.Dir(d.FD).KeepTimes(func() error {
			err := unix.Unlinkat(d.FD, k.name, 0)
			if err == nil {
				m.r.change(k, func() { k.white = false })
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
