package replica

import (
	"math"

	"golang.org/x/sys/unix"

	"dim/internal/replica/commit"
	"dim/internal/replica/fds"
	"dim/internal/sysfile"
	"dim/internal/vfs"
)

const whole = math.MaxUint64 // all of a file's content is needed

// Write writes all of p or returns an error. The first write to a file of the version copies it up.
//
// The replica is locked only to find the file. Then the file's own lock orders the writers, so that bulk data
// of a node does not delay its other calls. A switch in the meantime may set the file aside; the bytes are then
// written to the set-aside file.
func (r *Replica) Write(c *vfs.Cred, h vfs.Handle, p []byte, off uint64, s vfs.Stability) (vfs.Change, error) {
	w, err := r.writable(c, h, off, len(p))
	if err != nil || w.file == nil {
		return w.nothing, err
	}
	defer w.file.Release()
	failures := w.file.Failures()
	ch, err := r.write(c, &w, p, off)
	r.snaps.changed()
	if w.nothing.Valid && ch.Valid {
		ch.Before = w.nothing.Before // the file was not in the layer before
	}
	if err == nil && s != vfs.Unstable {
		err = r.syncContent(w.file, failures)
	}
	return ch, r.edge(err)
}

// syncContent makes the content of f durable. failures is how many failures f had before the content was
// written. If it had more since, the content may be lost, whoever got the error.
func (r *Replica) syncContent(f *fds.File, failures uint64) error {
	if r.durability() == Relaxed {
		return nil
	}
	err := r.set.sync(commit.Changes{Data: []*fds.File{f}})
	if err == nil && f.Failures() != failures {
		err = unix.EIO
	}
	return err
}

// target is a file that is ready to be written to.
type target struct {
	obj     *object
	file    *fds.File  // nil: there is nothing to do
	nothing vfs.Change // the file before the call, if there is nothing to do or the call has copied the file up
}

// writable returns the layer's file h for c to write n bytes at off. It copies the file up if it is not in the
// layer.
func (r *Replica) writable(c *vfs.Cred, h vfs.Handle, off uint64, n int) (w target, err error) {
	if r.dir == "" {
		return w, vfs.EROFS
	}
	if err := r.rlock(); err != nil {
		return w, err
	}
	s, err := r.resolve(h)
	if err != nil || n == 0 || c.UID != 0 || s.obj == nil || s.obj.kind != vfs.Regular || r.mayChange(s) != nil {
		s, err = r.mayWrite(c, h, &w) // else no check can fail
	}
	if err == nil && off > math.MaxInt64-uint64(n) {
		err = vfs.EFBIG
	}
	if err == nil && n > 0 && s.obj != nil {
		w.obj, w.nothing = s.obj, vfs.Change{}
		w.file, err = r.content(s.obj)
	}
	r.mu.RUnlock()
	if err != nil || n == 0 || s.obj != nil {
		return w, r.edge(err)
	}
	err = r.update(func(o *op) error {
		s, err := r.mayWrite(c, h, &w)
		if err != nil {
			return err
		}
		if s, err = o.copyUp(s, whole); err != nil {
			return err
		}
		w.obj = s.obj
		w.file, err = r.content(s.obj)
		return err
	})
	if err != nil && w.file != nil {
		w.file.Release()
	}
	return w, err
}

// mayWrite finds h and decides whether c may write to its content. The owner always may.
func (r *Replica) mayWrite(c *vfs.Cred, h vfs.Handle, w *target) (vnode, error) {
	s, err := r.resolve(h)
	if err != nil {
		return s, err
	}
	switch r.kind(s) {
	case vfs.Regular:
	case vfs.Directory:
		return s, vfs.EISDIR
	default:
		return s, vfs.EINVAL
	}
	var a vfs.Attr
	if err := r.attr(s, &a); err != nil {
		return s, err
	}
	w.nothing = unchanged(&a)
	if err := r.mayChange(s); err != nil {
		return s, err
	}
	if c.UID != 0 && c.UID != a.UID && !c.Permits(&a, vfs.MayWrite) {
		return s, vfs.EACCES
	}
	return s, nil
}

// mayChange refuses changes of what is below a shared path, and of what a switch has replaced.
func (r *Replica) mayChange(s vnode) error {
	if s.gone != nil && s.removed() {
		return vfs.ESTALE
	}
	if s.gone != nil {
		return vfs.EROFS
	}
	if len(r.shared) == 0 || s.obj != nil && (s.obj.aside != "" || s.obj.removed) {
		return nil
	}
	if r.shared.Cover(r.path(s)) {
		return vfs.EROFS
	}
	return nil
}

func (r *Replica) write(c *vfs.Cred, w *target, p []byte, off uint64) (vfs.Change, error) {
	obj, fd := w.obj, w.file.FD
	obj.write.Lock()
	defer obj.write.Unlock()
	var before vfs.Attr
	if err := r.fileAttr(obj, fd, &before); err != nil {
		return vfs.Change{}, err
	}
	kept, err := r.reserve(w, &before, off, len(p))
	if sparse := before.Used < upward(before.Size); err == nil && (sparse || off+uint64(len(p)) > before.Size) {
		err = r.set.mayTake(int64(len(p)))
	}
	if err == nil {
		err = r.dropPrivileges(c, fd, before.Mode)
	}
	if err == nil {
		err = sysfile.WriteAt(fd, p, int64(off))
		if noRoom(err) && r.set.lingering.freeAll() {
			err = sysfile.WriteAt(fd, p, int64(off))
		}
	}
	defer r.reserved.Add(-kept)
	ch := vfs.Change{Valid: true, Before: brief(&before)}
	if aerr := r.fileAttr(obj, fd, &ch.After); aerr != nil {
		return vfs.Change{}, err
	}
	r.growCtime(obj, &ch)
	return ch, err
}

// fileAttr fills a with the attributes of an open file of the layer. It holds the replica's lock only for a
// moment.
func (r *Replica) fileAttr(obj *object, fd int, a *vfs.Attr) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	r.fillAttr(obj, &st, a)
	r.recount(obj, &st)
	return nil
}

// dropPrivileges clears setuid and setgid of a file that c writes to. The kernel does so only for processes
// without privileges, and this one is root.
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

// Commit syncs the file. If that fails, content that others have not committed may be lost too; another
// verifier tells them.
func (r *Replica) Commit(c *vfs.Cred, h vfs.Handle) (vfs.Change, error) {
	if r.dir == "" {
		return vfs.Change{}, vfs.EROFS
	}
	if err := r.rlock(); err != nil {
		return vfs.Change{}, err
	}
	var w target
	s, err := r.mayWrite(c, h, &w)
	var f *fds.File
	if err == nil && s.obj != nil {
		if f, err = r.content(s.obj); err == unix.EROFS {
			f, err = r.readable(s.obj)
		}
	}
	r.mu.RUnlock()
	if err == vfs.EROFS {
		err = nil // nothing was written, so there is nothing to sync and nothing to refuse
	}
	if f != nil {
		defer f.Release()
		err = r.syncContent(f, f.Failures())
	}
	return w.nothing, r.edge(err)
}
