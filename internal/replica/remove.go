package replica

import (
	"slices"

	"golang.org/x/sys/unix"

	"dim/internal/layer"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// Remove unlinks an entry that is no directory.
func (r *Replica) Remove(c *vfs.Cred, dir vfs.Handle, name string) (vfs.Change, error) {
	return r.remove(c, dir, name, vfs.Regular)
}

// Rmdir removes an empty directory.
func (r *Replica) Rmdir(c *vfs.Cred, dir vfs.Handle, name string) (vfs.Change, error) {
	return r.remove(c, dir, name, vfs.Directory)
}

func (r *Replica) remove(c *vfs.Cred, dir vfs.Handle, name string, kind vfs.Type) (ch vfs.Change, err error) {
	err = r.withRoom(func() error {
		ch, err = r.removeOnce(c, dir, name, kind)
		return err
	})
	return ch, err
}

func (r *Replica) removeOnce(c *vfs.Cred, dir vfs.Handle, name string, kind vfs.Type) (ch vfs.Change, err error) {
	o, err := r.begin()
	if err != nil {
		return ch, err
	}
	from, err := o.enter(c, dir, name)
	d, before := from.vnode, from.attr
	if err == nil {
		err = o.removeEntry(&from, name, kind)
	}
	switch {
	case err == nil:
		ch = r.changed(r.refresh(d), before)
	case before != nil:
		ch = unchanged(before)
	}
	return ch, o.end(err)
}

func (o *op) removeEntry(from *parentDir, name string, kind vfs.Type) error {
	r, d := o.r, from.vnode
	if kind == vfs.Directory && name == "." {
		return vfs.EINVAL
	}
	if kind == vfs.Directory && name == ".." {
		return vfs.ENOTEMPTY
	}
	s, ok := r.entry(d, name)
	if !ok {
		return vfs.ENOENT
	}
	if err := r.mayRemove(from, s, kind); err != nil {
		return err
	}
	if err := r.checkShared(d, name); err != nil {
		return err
	}
	if kind == vfs.Directory && !r.empty(s) {
		return vfs.ENOTEMPTY
	}
	dir := r.dentry(d)
	fd, err := o.dir(dir)
	if err != nil {
		r.prune(dir)
		return err
	}
	p := r.need(dir, name, lower.Hash(name))
	err = o.removeAt(p, fd)
	r.prune(p)
	return err
}

// mayRemove decides whether s may be removed from directory d (Linux fs/namei.c: may_delete).
func (r *Replica) mayRemove(d *parentDir, s vnode, kind vfs.Type) error {
	isDir := r.kind(s) == vfs.Directory
	var a vfs.Attr
	if err := r.attr(s, &a); err != nil {
		return err
	}
	switch {
	case !d.c.Permits(d.attr, vfs.MayWrite|vfs.MayExec):
		return vfs.EACCES
	case d.c.Sticky(d.attr, &a):
		return vfs.EPERM
	case kind == vfs.Directory && !isDir:
		return vfs.ENOTDIR
	case kind != vfs.Directory && isDir:
		return vfs.EISDIR
	case d.gone != nil:
		return vfs.ENOENT
	}
	return nil
}

// empty reports whether directory s shows no entries. What is lost may have had some.
func (r *Replica) empty(s vnode) bool {
	if r.lost(s) {
		return false
	}
	m := r.merge(s, 0)
	_, _, _, some := m.next()
	return !some
}

// removeAt makes p, which shows something, show nothing. fd is the open directory that p is in.
func (o *op) removeAt(p *dentry, fd int) error {
	r := o.r
	covers := p.covers()
	if p.obj == nil {
		if err := unix.Mknodat(fd, p.name, unix.S_IFCHR, 0); err != nil {
			return err
		}
		r.lingerShown(p)
		r.whiteOut(p)
		return nil
	}
	work, err := o.work()
	if err != nil {
		return err
	}
	tmp := r.set.temp()
	isDir := p.obj.kind == vfs.Directory
	if covers {
		if err := unix.Mknodat(work, tmp, unix.S_IFCHR, 0); err != nil {
			return err
		}
	}
	switch {
	case covers && isDir:
		err = layer.Dir(work).Exchange(tmp, layer.Dir(fd), p.name)
	case covers:
		err = unix.Renameat(work, tmp, fd, p.name)
	case isDir:
		err = unix.Renameat(fd, p.name, work, tmp)
	default:
		err = unix.Unlinkat(fd, p.name, 0)
	}
	if err != nil {
		if covers {
			unix.Unlinkat(work, tmp, 0)
		}
		return err
	}
	if isDir {
		if err := layer.Dir(work).RemoveAll(tmp); err != nil { // only whiteouts are in it; the next start tries again
			r.set.log.Warn("clean up after a removed directory", "replica", r.dir, "error", err)
		}
	}
	r.detach(p, covers)
	return nil
}

// whiteOut makes p show nothing. The disk has the whiteout already.
func (r *Replica) whiteOut(p *dentry) {
	r.change(p, func() { p.white = true })
	r.clear(p)
}

// detach removes the layer's object from p, leaving a whiteout or nothing. The disk has that already. If it was
// the last name the object is removed too.
func (r *Replica) detach(p *dentry, white bool) {
	obj := p.obj
	if obj.kind == vfs.Directory {
		r.clear(p)
	}
	obj.names = slices.DeleteFunc(obj.names, func(n *dentry) bool { return n == p })
	if len(obj.names) == 0 {
		delete(r.objects, obj.id)
		r.lingerObject(obj, obj.used.Load())
		r.count(obj, 0)
		r.drop(obj)
	}
	r.change(p, func() { p.obj, p.white = nil, white })
}

// drop closes what is open for obj.
func (r *Replica) drop(obj *object) {
	kinds := []byte{keyFile, keyReadOnly}
	if obj.kind == vfs.Directory {
		kinds = []byte{keyDir}
	}
	for _, kind := range kinds {
		r.set.files.Drop(r.key(kind, uint64(obj.id)))
	}
}
