package dirfs

import (
	"golang.org/x/sys/unix"

	"dim/internal/vfs"
)

// Lookup finds name in dir.
func (f *FS) Lookup(c *vfs.Cred, dir vfs.Handle, name string, a *vfs.Attr) (vfs.Handle, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	d, err := f.openDir(dir)
	if err != nil {
		return vfs.Handle{}, err
	}
	defer d.close()
	if err := checkName(name); err != nil {
		return vfs.Handle{}, err
	}
	if !c.Permits(&d.attr, vfs.MayExec) {
		return vfs.Handle{}, vfs.EACCES
	}
	o, err := f.child(d, name)
	if err != nil {
		return vfs.Handle{}, err
	}
	defer o.close()
	*a = o.attr
	return f.handleOf(o.fd)
}

// entryChange changes one entry of the directory d. It returns the object that must be synced before d, if any, and
// whether d changed.
type entryChange func(d *object) (o *object, changed bool, err error)

// inDir calls do for the directory dir, in which c must have search permission, and makes the change durable.
func (f *FS) inDir(c *vfs.Cred, dir vfs.Handle, name string, do entryChange) (vfs.Change, error) {
	if f.opt.ReadOnly {
		return vfs.Change{}, vfs.EROFS
	}
	d, o, ch, err := f.lockedInDir(c, dir, name, do)
	if d != nil {
		defer d.close()
	}
	if o != nil {
		defer o.close()
	}
	if err == nil && o != nil {
		err = f.syncEntry(o)
	}
	if err == nil {
		err = f.sync(d)
	}
	return ch, err
}

// syncEntry syncs a new regular file or directory. Other objects are synced with their directory.
func (f *FS) syncEntry(o *object) error {
	if o.attr.Type == vfs.Regular || o.attr.Type == vfs.Directory {
		return f.sync(o)
	}
	return nil
}

func (f *FS) lockedInDir(
	c *vfs.Cred, dir vfs.Handle, name string, do entryChange,
) (d, o *object, ch vfs.Change, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d, err = f.openDir(dir); err != nil {
		return nil, nil, ch, err
	}
	changed := false
	if err = mayEnter(c, d, name); err == nil {
		o, changed, err = do(d)
	}
	return d, o, d.change(changed), err
}

func mayEnter(c *vfs.Cred, d *object, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if !c.Permits(&d.attr, vfs.MayExec) {
		return vfs.EACCES
	}
	return nil
}

// Remove removes the name of an object that is no directory.
func (f *FS) Remove(c *vfs.Cred, dir vfs.Handle, name string) (vfs.Change, error) {
	return f.remove(c, dir, name, 0)
}

// Rmdir removes an empty directory.
func (f *FS) Rmdir(c *vfs.Cred, dir vfs.Handle, name string) (vfs.Change, error) {
	switch name {
	case ".":
		return vfs.Change{}, vfs.EINVAL
	case "..":
		return vfs.Change{}, vfs.ENOTEMPTY
	}
	return f.remove(c, dir, name, unix.AT_REMOVEDIR)
}

func (f *FS) remove(c *vfs.Cred, dir vfs.Handle, name string, flags int) (vfs.Change, error) {
	return f.inDir(c, dir, name, func(d *object) (*object, bool, error) {
		o, err := f.child(d, name)
		if err != nil {
			return nil, false, err
		}
		defer o.close()
		if err := mayRemove(c, d, o, flags == unix.AT_REMOVEDIR); err != nil {
			return nil, false, err
		}
		err = unix.Unlinkat(d.fd, name, flags)
		return nil, err == nil, vfs.ErrnoOf(err)
	})
}

// mayRemove returns nil if c may remove the entry o of d (Linux fs/namei.c: may_delete).
func mayRemove(c *vfs.Cred, d, o *object, dir bool) error {
	isDir := o.attr.Type == vfs.Directory
	switch {
	case !c.Permits(&d.attr, vfs.MayWrite|vfs.MayExec):
		return vfs.EACCES
	case c.Sticky(&d.attr, &o.attr):
		return vfs.EPERM
	case dir && !isDir:
		return vfs.ENOTDIR
	case !dir && isDir:
		return vfs.EISDIR
	}
	return nil
}

// Rename has the semantics of rename(2).
func (f *FS) Rename(
	c *vfs.Cred, from vfs.Handle, fromName string, to vfs.Handle, toName string,
) (vfs.RenameChange, error) {
	if f.opt.ReadOnly {
		return vfs.RenameChange{}, vfs.EROFS
	}
	r := rename{fs: f, c: c, fromName: fromName, toName: toName}
	defer r.close()
	rc, err := r.locked(from, to)
	if err == nil {
		err = f.sync(r.to, r.from) // the new name first: a crash in between may leave both names, never none
	}
	return rc, err
}

// rename is one call of Rename.
type rename struct {
	fs               *FS
	c                *vfs.Cred
	from, to         *object
	fromName, toName string
}

func (r *rename) close() {
	for _, o := range []*object{r.from, r.to} {
		if o != nil {
			o.close()
		}
	}
}

func (r *rename) locked(from, to vfs.Handle) (rc vfs.RenameChange, err error) {
	r.fs.mu.Lock()
	defer r.fs.mu.Unlock()
	if r.from, err = r.fs.openDir(from); err != nil {
		return rc, err
	}
	if r.to, err = r.fs.openDir(to); err != nil {
		return rc, err
	}
	moved, err := r.do()
	return vfs.RenameChange{From: r.from.change(moved), To: r.to.change(moved)}, err
}

// do renames. If both names are of one object, it does nothing and moved is false.
func (r *rename) do() (changed bool, err error) {
	for _, n := range []string{r.fromName, r.toName} {
		if err := checkName(n); err != nil {
			return false, err
		}
		if isDot(n) {
			return false, vfs.EINVAL
		}
	}
	if !r.c.Permits(&r.from.attr, vfs.MayExec) || !r.c.Permits(&r.to.attr, vfs.MayExec) {
		return false, vfs.EACCES
	}
	o, err := r.fs.child(r.from, r.fromName)
	if err != nil {
		return false, err
	}
	defer o.close()
	old, err := r.fs.child(r.to, r.toName)
	if err != nil && err != vfs.ENOENT {
		return false, err
	}
	if err == nil {
		defer old.close()
		if old.attr.ID == o.attr.ID {
			return false, nil
		}
	}
	if err := r.may(o, old); err != nil {
		return false, err
	}
	err = unix.Renameat(r.from.fd, r.fromName, r.to.fd, r.toName)
	return err == nil, vfs.ErrnoOf(err)
}

// may makes the checks of Linux in its order (fs/namei.c: do_renameat2, vfs_rename): position in the tree, permissions,
// types.
func (r *rename) may(o, old *object) error {
	if r.from.attr.ID != r.to.attr.ID {
		if o.attr.Type == vfs.Directory && r.fs.within(r.to, o) {
			return vfs.EINVAL
		}
		if old != nil && old.attr.Type == vfs.Directory && r.fs.within(r.from, old) {
			return vfs.ENOTEMPTY
		}
	}
	isDir := o.attr.Type == vfs.Directory
	if err := mayRemove(r.c, r.from, o, isDir); err != nil {
		return err
	}
	if old == nil {
		if !r.c.Permits(&r.to.attr, vfs.MayWrite) {
			return vfs.EACCES
		}
	} else if err := mayRemove(r.c, r.to, old, isDir); err != nil {
		return err
	}
	// A directory that moves to another one gets another "..", which needs write permission.
	if isDir && r.from.attr.ID != r.to.attr.ID && !r.c.Permits(&o.attr, vfs.MayWrite) {
		return vfs.EACCES
	}
	return nil
}

// within reports whether directory d is top or lies below it.
func (f *FS) within(d, top *object) bool {
	at := *d
	for {
		if at.attr.ID == top.attr.ID {
			return true
		}
		if at.attr.ID == f.rootAttr.ID {
			return false
		}
		up, err := f.parent(&at)
		if at.fd != d.fd {
			at.close()
		}
		if err != nil {
			return false
		}
		at = *up
	}
}
