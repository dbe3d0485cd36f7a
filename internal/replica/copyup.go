package replica

import (
	"errors"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/layer"
	"dim/internal/replica/lower"
	"dim/internal/sysfile"
	"dim/internal/vfs"
)

// stagedCopy is the content of a regular file on its way into the layer. It is copied and synced under a
// temporary name in work/ while the replica is not locked.
type stagedCopy struct {
	view       *view // that the file is part of
	file       *nodeFile
	low        lower.Ref
	keep       uint64 // how many bytes of the content are needed
	objectSpec *objectSpec
	used       int64 // bytes that it takes in a quota
	work       int   // open directory
	tmp        string
}

// errContentMissing ends an attempt of update: content must be copied first.
var errContentMissing = errors.New("content must be copied up first")

// update runs do with r locked for writing. do decides everything anew each time it is called. If files must be
// copied up it returns errContentMissing before it has changed anything, and is called again when their content
// is in work/. So large files are copied without the lock, and a call is still one step for all others.
func (r *Replica) update(do func(o *op) error) error {
	return r.withRoom(func() error { return r.updateOnce(do) })
}

func (r *Replica) updateOnce(do func(o *op) error) error {
	staged := make(map[fileid.ID]*stagedCopy)
	defer func() {
		for _, l := range staged {
			l.discard()
		}
	}()
	for {
		o, err := r.begin()
		if err != nil {
			return err
		}
		o.staged = staged
		if err = do(o); err != errContentMissing {
			return o.end(err)
		}
		needed := o.needed
		if err = o.end(nil); err == nil {
			err = r.stage(needed, staged)
		}
		if err != nil {
			return r.edge(err)
		}
	}
}

// stage copies the content of the needed files, then syncs them all: the first sync does most of the work.
func (r *Replica) stage(needed map[fileid.ID]*stagedCopy, staged map[fileid.ID]*stagedCopy) error {
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for id, l := range needed {
		staged[id].discard()
		delete(staged, id)
		fd, err := l.copy(r)
		if err != nil {
			return err
		}
		staged[id] = l
		fds = append(fds, fd)
	}
	if r.durability() == Relaxed {
		return nil
	}
	for _, fd := range fds {
		if err := r.set.commit.Stage(fd); err != nil {
			return err
		}
	}
	return nil
}

// copy makes the temporary file and returns it open. It needs no lock: neither a version nor a node file ever changes.
func (l *stagedCopy) copy(r *Replica) (fd int, err error) {
	src, err := r.set.lowerBody(l.view, l.file, l.low)
	if err != nil {
		return -1, err
	}
	defer src.release()
	w, err := r.workDir()
	if err != nil {
		return -1, err
	}
	defer w.Release()
	if l.work, err = unix.FcntlInt(uintptr(w.FD), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return -1, err
	}
	l.objectSpec.fill = func(fd int) error { return src.copyTo(fd, l.keep) }
	if l.tmp, fd, err = r.createPending(l.work, l.objectSpec); err != nil {
		unix.Close(l.work)
		return fd, err
	}
	var st unix.Stat_t
	if unix.Fstat(fd, &st) == nil {
		l.used = layer.Occupied(&st)
	}
	return fd, nil
}

// discard removes a copy that was not used. It may be called on nil.
func (l *stagedCopy) discard() {
	if l == nil {
		return
	}
	if l.tmp != "" {
		unix.Unlinkat(l.work, l.tmp, 0)
	}
	unix.Close(l.work)
}

// copyUp brings s into the layer, under all its names. keep is how many bytes of a regular file's content are
// needed. It returns errContentMissing if the content is not there yet.
func (o *op) copyUp(s vnode, keep uint64) (vnode, error) {
	r := o.r
	if s.obj != nil {
		return s, nil
	}
	if s.gone != nil {
		return s, vfs.EROFS
	}
	if r.isZeroDevice(s) {
		return s, vfs.EPERM // in a layer it would be a whiteout
	}
	l := o.staged[r.id(s)]
	if r.kind(s) == vfs.Regular && (l == nil || l.view != r.view || l.keep != keep) && r.contentSize(s, keep) > 0 {
		return s, o.needContent(s, keep)
	}
	p, low := r.dentry(s), s.low
	if r.kind(s) == vfs.Directory {
		err := o.copyUpDir(p)
		if err != nil {
			r.prune(p)
		}
		return vnode{at: p, obj: p.obj, low: lower.None}, err
	}
	obj, err := o.copyUpFile(p, s, l)
	if err != nil {
		r.prune(p)
		return s, err
	}
	if s.file == nil && len(r.view.index.Names(low)) > 0 {
		err = o.linkGroup(obj, low)
	}
	return vnode{at: p, obj: obj, low: lower.None}, err
}

// isZeroDevice reports whether s is the version's character device 0:0. A master has such devices if there are
// upper directories of overlayfs in it, for example a container's.
func (r *Replica) isZeroDevice(s vnode) bool {
	if s.low == lower.None || r.view.index.Type(s.low) != image.CharDevice {
		return false
	}
	var a vfs.Attr
	r.view.index.Attr(s.low, &a)
	return a.Major == 0 && a.Minor == 0
}

// needContent notes that the content of s must be copied, and returns errContentMissing.
func (o *op) needContent(s vnode, keep uint64) error {
	if _, err := o.work(); err != nil {
		return err
	}
	m, _, err := o.r.specOf(s)
	if err == nil {
		err = o.r.room(int64(upward(o.r.contentSize(s, keep))))
	}
	if err != nil {
		return err
	}
	if o.needed == nil {
		o.needed = make(map[fileid.ID]*stagedCopy)
	}
	o.needed[o.r.id(s)] = &stagedCopy{view: o.r.view, file: s.file, low: s.low, keep: keep, objectSpec: m}
	return errContentMissing
}

// contentSize returns how many bytes must be copied if keep bytes of s are needed.
func (r *Replica) contentSize(s vnode, keep uint64) uint64 {
	if s.file != nil {
		return min(keep, s.file.Size)
	}
	return min(keep, r.view.index.FileSize(s.low))
}

// copyUpFile makes s, which is no directory, at p in the layer. l is its content, nil if it has none.
func (o *op) copyUpFile(p *dentry, s vnode, l *stagedCopy) (*object, error) {
	m, obj, err := o.r.specOf(s)
	if err == nil {
		err = o.r.roomForOne()
	}
	if err != nil {
		return nil, err
	}
	if l == nil {
		return obj, o.copyUpWithoutContent(p, m, obj)
	}
	if err := o.r.room(l.used); err != nil {
		return nil, err
	}
	work, err := o.work()
	if err != nil {
		return nil, err
	}
	dir, err := o.dir(p.up)
	if err != nil {
		return nil, err
	}
	if err = layer.Dir(dir).KeepTimes(func() error { return o.put(p, dir, layer.At(work, l.tmp), obj) }); err == nil {
		l.tmp = ""
		o.r.count(obj, l.used)
	}
	return obj, err
}

// copyUpWithoutContent is copyUpFile for an object without content.
func (o *op) copyUpWithoutContent(p *dentry, m *objectSpec, obj *object) error {
	n := occupiedByLink(len(m.target))
	err := o.r.room(n)
	if err == nil {
		err = o.createCopy(p, m, obj)
	}
	if err == nil {
		o.r.count(obj, n)
	}
	return err
}

// lowerBody opens the bytes of a node file, or if that is nil of a version's file.
func (s *Set) lowerBody(v *view, file *nodeFile, low lower.Ref) (b body, err error) {
	b.fixed = true
	if file != nil {
		b.bytes, err = s.nodeFileContent(file)
		b.size = uint64(len(b.bytes))
		return b, err
	}
	b.size = v.index.FileSize(low)
	var sparse bool
	if b.data, sparse = v.index.Data(low); !sparse {
		b.data = []image.Extent{{Length: b.size}}
	}
	b.file, err = s.blob(v.index.Digest(low))
	return b, err
}

// copyTo copies the first keep bytes into the empty file fd, holes as holes.
func (b *body) copyTo(fd int, keep uint64) error {
	keep = min(keep, b.size)
	if b.file == nil {
		return sysfile.WriteAt(fd, b.bytes[:keep], 0)
	}
	if keep == b.size && len(b.data) == 1 && unix.IoctlFileClone(fd, b.file.FD) == nil {
		return nil
	}
	for _, x := range b.data {
		if x.Offset >= keep {
			break
		}
		if err := layer.CopyRange(fd, b.file.FD, x.Offset, min(x.Offset+x.Length, keep)); err != nil {
			return err
		}
	}
	return unix.Ftruncate(fd, int64(keep))
}
