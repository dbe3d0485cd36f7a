package replica

import (
	"math"

	"golang.org/x/sys/unix"

	"dim/internal/replica/fds"
	"dim/internal/vfs"
)

const whole = math.MaxUint64 // all of a file's content is still wanted

// Write writes all of p or returns an error. The first write to a file of the version copies it up.
//
// The replica is locked only to find the file. Then the file's own lock orders the writers, so that one node's bulk
// data does not hold up its other calls; a switch in the meantime may set the file aside, and the bytes go with it.
func (r *Replica) Write(c *vfs.Cred, h vfs.Handle, p []byte, off uint64, s vfs.Stability) (vfs.Change, error) {
	obj, f, err := r.writable(c, h)
	if err != nil {
		return vfs.Change{}, err
	}
	defer f.Release()
	ch, err := r.write(c, obj, f.FD, p, off)
	if err == nil && !r.set.relaxed && len(p) > 0 {
		switch s {
		case vfs.DataSync:
			err = unix.Fdatasync(f.FD)
		case vfs.FileSync:
			err = fsync(f.FD)
		}
	}
	return ch, r.edge(err)
}

// writable finds the layer's file h for c to write to, copying it up when it is not there yet.
func (r *Replica) writable(c *vfs.Cred, h vfs.Handle) (*object, *fds.File, error) {
	if r.dir == "" {
		return nil, nil, vfs.EROFS
	}
	if err := r.rlock(); err != nil {
		return nil, nil, err
	}
	s, err := r.resolve(h)
	if err == nil {
		err = r.mayWrite(c, s)
	}
	if err == nil && s.obj != nil {
		f, err := r.content(s.obj)
		r.mu.RUnlock()
		return s.obj, f, r.edge(err)
	}
	r.mu.RUnlock()
	if err != nil {
		return nil, nil, r.edge(err)
	}
	o, s, err := r.edit(h, whole, func(s spot) error { return r.mayWrite(c, s) })
	if o == nil {
		return nil, nil, err
	}
	var f *fds.File
	if err == nil {
		f, err = r.content(s.obj)
	}
	if err = o.end(err); err != nil && f != nil {
		f.Release()
	}
	return s.obj, f, err
}

// mayWrite decides whether c may write to the content of s; the owner always may.
func (r *Replica) mayWrite(c *vfs.Cred, s spot) error {
	switch r.kind(s) {
	case vfs.Regular:
	case vfs.Directory:
		return vfs.EISDIR
	default:
		return vfs.EINVAL
	}
	if err := r.mayChange(s); err != nil || c.UID == 0 {
		return err
	}
	var a vfs.Attr
	if err := r.attr(s, &a); err != nil {
		return err
	}
	if c.UID != a.UID && !c.Permits(&a, vfs.MayWrite) {
		return vfs.EACCES
	}
	return nil
}

// mayChange refuses what nobody may change: what is below a shared path, and what a switch has replaced.
func (r *Replica) mayChange(s spot) error {
	if s.gone != nil {
		return vfs.EROFS
	}
	if len(r.shared) == 0 || s.obj != nil && s.obj.aside != "" {
		return nil
	}
	if r.shared.Cover(r.path(s)) {
		return vfs.EROFS
	}
	return nil
}

func (r *Replica) write(c *vfs.Cred, obj *object, fd int, p []byte, off uint64) (vfs.Change, error) {
	obj.write.Lock()
	defer obj.write.Unlock()
	var before vfs.Attr
	if err := r.fileAttr(obj, fd, &before); err != nil {
		return vfs.Change{}, err
	}
	if off > math.MaxInt64-uint64(len(p)) {
		return unchanged(&before), vfs.EFBIG
	}
	if len(p) == 0 {
		return unchanged(&before), nil
	}
	err := r.dropPrivileges(c, fd, before.Mode)
	if err == nil {
		err = writeAll(fd, p, int64(off))
	}
	ch := vfs.Change{Valid: true, Before: brief(&before)}
	if aerr := r.fileAttr(obj, fd, &ch.After); aerr != nil {
		return vfs.Change{}, err
	}
	r.freshen(obj, &ch)
	return ch, err
}

// fileAttr fills a with the attributes of an open file of the layer. It needs the replica's lock only for a moment, for
// what is in memory.
func (r *Replica) fileAttr(obj *object, fd int, a *vfs.Attr) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	r.fillAttr(obj, &st, a)
	return nil
}

// dropPrivileges clears setuid and setgid of a file that c writes to. The kernel does so by itself, but not for
// root, as whom this process writes.
func (r *Replica) dropPrivileges(c *vfs.Cred, fd int, mode uint32) error {
	kept := mode &^ 0o4000
	if kept&0o010 != 0 {
		kept &^= 0o2000
	}
	if c.UID == 0 || kept == mode {
		return nil
	}
	return unix.Fchmod(fd, kept)
}

// Commit syncs the file.
func (r *Replica) Commit(c *vfs.Cred, h vfs.Handle) (vfs.Change, error) {
	if r.dir == "" {
		return vfs.Change{}, vfs.EROFS
	}
	if err := r.rlock(); err != nil {
		return vfs.Change{}, err
	}
	s, err := r.resolve(h)
	if err == nil {
		err = r.mayCommit(c, s)
	}
	var a vfs.Attr
	if err == nil {
		err = r.attr(s, &a)
	}
	var f *fds.File
	if err == nil && s.obj != nil {
		f, err = r.content(s.obj)
	}
	r.mu.RUnlock()
	if err != nil {
		return vfs.Change{}, r.edge(err)
	}
	if f != nil {
		defer f.Release()
		if !r.set.relaxed {
			err = unix.Fdatasync(f.FD)
		}
	}
	return unchanged(&a), r.edge(err)
}

// mayCommit: there is nothing to sync of a file that is not in the layer, and nothing to refuse.
func (r *Replica) mayCommit(c *vfs.Cred, s spot) error {
	if s.obj == nil {
		s.gone = nil
		switch r.kind(s) {
		case vfs.Regular:
			return nil
		case vfs.Directory:
			return vfs.EISDIR
		}
		return vfs.EINVAL
	}
	return r.mayWrite(c, s)
}
