package replica

import (
	"golang.org/x/sys/unix"

	"dim/internal/layer"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// do moves the layer's object. Every step leaves a tree that shows either the old state or the new one.
func (m *renaming) do() error {
	r := m.r
	fromDir, toDir := r.dentry(m.from), r.dentry(m.to)
	toFD, err := m.dir(toDir)
	if err != nil {
		r.prune(toDir)
		return err
	}
	fromFD, err := m.dir(fromDir)
	if err != nil {
		return err
	}
	src := m.src.at
	dst := r.need(toDir, m.toName, lower.Hash(m.toName))
	if m.src.obj.kind == vfs.Directory {
		err = m.moveDir(src, fromFD, dst, toFD)
	} else {
		err = m.moveFile(src, fromFD, dst, toFD)
	}
	if err != nil {
		r.prune(dst)
	}
	return err
}

func (m *renaming) moveFile(src *dentry, fromFD int, dst *dentry, toFD int) error {
	white := src.covers()
	moved, err := renameLeaving(layer.At(fromFD, src.name), layer.At(toFD, dst.name), white)
	if moved {
		m.moveDentries(src, dst, white && err == nil)
	}
	return err
}

// renameLeaving renames, replacing what is there. If white is true it leaves a whiteout behind. An error after the
// rename says that there is no whiteout.
func renameLeaving(from, to layer.Entry, white bool) (moved bool, err error) {
	if white {
		err = unix.Renameat2(from.FD, from.Name, to.FD, to.Name, unix.RENAME_WHITEOUT)
		if err != unix.EINVAL { // a file system without the flag
			return err == nil, err
		}
	}
	if err = unix.Renameat(from.FD, from.Name, to.FD, to.Name); err != nil {
		return false, err
	}
	if white {
		err = unix.Mknodat(from.FD, from.Name, unix.S_IFCHR, 0)
	}
	return true, err
}

// moveDir moves a directory that is the layer's alone.
func (m *renaming) moveDir(src *dentry, fromFD int, dst *dentry, toFD int) error {
	if dst.pathLen()+src.longestBelow() > layer.PathMax {
		return vfs.ENAMETOOLONG
	}
	if err := m.storeIDs(src); err != nil {
		return err
	}
	if dst.covers() && !src.obj.opaque {
		if err := layer.At(fromFD, src.name).SetOpaque(); err != nil {
			return err
		}
		src.obj.opaque = true
	}
	if dst.obj != nil { // an empty directory: whiteouts at most
		if err := m.emptyOut(dst, toFD); err != nil {
			return err
		}
	}
	white := src.covers()
	if dst.white {
		return m.exchangeDir(src, fromFD, dst, toFD)
	}
	moved, err := renameLeaving(layer.At(fromFD, src.name), layer.At(toFD, dst.name), white)
	if moved {
		m.moveDentries(src, dst, white && err == nil)
	}
	return err
}

// exchangeDir swaps the directory src with the whiteout dst, and removes the whiteout if it hides nothing at its new
// place. The memory follows each step: the second one can fail.
func (m *renaming) exchangeDir(src *dentry, fromFD int, dst *dentry, toFD int) error {
	hides := src.covers()
	if err := layer.Dir(fromFD).Exchange(src.name, layer.Dir(toFD), dst.name); err != nil {
		return err
	}
	m.moveDentries(src, dst, true)
	if hides {
		return nil
	}
	err := unix.Unlinkat(fromFD, src.name, 0)
	if err == nil {
		m.r.change(src, func() { src.white = false })
	}
	return err
}

// storeIDs stores the ids of all directories at p and below in extended attributes. Until then they may follow
// from the path, which changes.
func (m *renaming) storeIDs(p *dentry) error {
	if obj := p.obj; obj != nil && !obj.named {
		d, name, err := m.r.where(obj)
		if err != nil {
			return err
		}
		err = layer.At(d.FD, name).SetID(obj.id, nil)
		d.Release()
		if err != nil {
			return err
		}
		obj.named = true
	}
	for _, k := range p.kids {
		if err := m.storeIDs(k); err != nil {
			return err
		}
	}
	return nil
}

// emptyOut makes the directory at p opaque and removes the whiteouts in it, so that it stays empty.
func (m *renaming) emptyOut(p *dentry, fd int) error {
	if len(p.kids) == 0 && !p.merges() {
		return nil
	}
	if err := layer.At(fd, p.name).SetOpaque(); err != nil {
		return err
	}
	p.obj.opaque = true
	d, err := m.r.layerDir(p)
	if err != nil {
		return err
	}
	defer d.Release()
	for _, k := range p.kids {
		if !k.white {
			continue
		}
		if err := unix.Unlinkat(d.FD, k.name, 0); err != nil {
			return err
		}
	}
	m.r.clear(p)
	return nil
}

// moveDentries does in memory what the rename has done on the disk.
func (m *renaming) moveDentries(src, dst *dentry, white bool) {
	r := m.r
	obj := src.obj
	kids := src.kids
	files := src.files
	if toDir := dst.up; dst.obj != nil {
		r.detach(dst, false)
		dst = r.need(toDir, m.toName, lower.Hash(m.toName))
	}
	r.lingerShown(dst)
	src.kids = nil
	src.subdirs.Store(-1)
	for i, n := range obj.names {
		if n == src {
			obj.names[i] = dst
		}
	}
	r.hide(dst)
	r.change(dst, func() {
		dst.obj, dst.white, dst.kids = obj, false, kids
		for _, k := range kids {
			k.up = dst
		}
		dst.subdirs.Store(-1)
	})
	src.files = files
	r.change(src, func() { src.obj, src.white = nil, white })
	if white {
		r.hide(src)
	}
}
