package replica

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// lifted is a regular file's content on its way into the layer: copied and synced under a temporary name in work/, while the
// replica is not locked.
type lifted struct {
	view *view // of which it was a part
	id   image.ID
	keep uint64 // how much of the content was copied
	tmp  string
	work int
	mold *mold
}

// edit locks r and finds h, copied up into the layer if it was not there, or set aside. may decides under the lock whether
// the call goes on; it may be called several times. keep is how many bytes of a regular file's content are
// still wanted.
//
// The content of a large file is copied without the lock, for it never changes, and other calls of the node go on.
func (r *Replica) edit(h vfs.Handle, keep uint64, may func(s spot) error) (*op, spot, error) {
	var l *lifted
	defer func() { l.discard() }()
	for {
		o, err := r.begin()
		if err != nil {
			return nil, spot{}, err
		}
		s, err := r.resolve(h)
		if err == nil {
			err = may(s)
		}
		if err == nil && s.obj == nil {
			err = r.frozen(s)
		}
		if err != nil || s.obj != nil {
			return o, s, err
		}
		if r.kind(s) == vfs.Regular && r.wanted(s, keep) > 0 && !l.fits(r.view, r.id(s)) {
			l.discard()
			if l, err = r.lift(o, s, keep); err != nil {
				return o, s, err
			}
			o.end(nil)
			if err := l.copy(r, s.file, s.low); err != nil {
				return nil, spot{}, r.edge(err)
			}
			continue
		}
		s, err = o.copyUp(s, l)
		if err == nil {
			l = nil
		}
		return o, s, err
	}
}

// frozen refuses changes of what is not there any more.
func (r *Replica) frozen(s spot) error {
	if s.gone != nil {
		return vfs.EROFS
	}
	return nil
}

// wanted returns how many bytes must be copied when keep bytes of s are wanted.
func (r *Replica) wanted(s spot, keep uint64) uint64 {
	if s.file != nil {
		return min(keep, s.file.Size)
	}
	return min(keep, r.view.index.FileSize(s.low))
}

func (l *lifted) fits(v *view, id image.ID) bool { return l != nil && l.view == v && l.id == id }

// lift prepares the copy of s, with the lock held.
func (r *Replica) lift(o *op, s spot, keep uint64) (*lifted, error) {
	if _, err := o.work(); err != nil {
		return nil, err
	}
	m, _, err := r.moldOf(s)
	if err != nil {
		return nil, err
	}
	return &lifted{view: r.view, id: r.id(s), keep: keep, mold: m, work: -1}, nil
}

// copy makes the temporary file, without the lock: neither a version nor a node file ever changes.
func (l *lifted) copy(r *Replica, file *nodeFile, low lower.Ref) error {
	src, err := r.set.lowerBody(l.view, file, low)
	if err != nil {
		return err
	}
	defer src.release()
	w, err := r.workDir()
	if err != nil {
		return err
	}
	defer w.Release()
	if l.work, err = unix.FcntlInt(uintptr(w.FD), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return err
	}
	l.mold.fill = func(fd int) error { return src.copyTo(fd, l.keep) }
	tmp, fd, err := r.cast(l.work, l.mold)
	if err != nil {
		l.close()
		return err
	}
	l.tmp = tmp
	defer unix.Close(fd)
	if r.set.relaxed {
		return nil
	}
	return fsync(fd)
}

func (l *lifted) close() {
	if l.work >= 0 {
		unix.Close(l.work)
		l.work = -1
	}
}

// discard removes a copy that was not used. It may be called on nil.
func (l *lifted) discard() {
	if l == nil {
		return
	}
	if l.tmp != "" {
		unix.Unlinkat(l.work, l.tmp, 0)
	}
	l.close()
}

// copyUp brings s, which is no directory's content but one entry, into the layer under all its names. l is its content,
// nil when there is none to be copied.
func (o *op) copyUp(s spot, l *lifted) (spot, error) {
	r := o.r
	p := r.place(s)
	if r.kind(s) == vfs.Directory {
		err := o.raise(p)
		if err != nil {
			r.prune(p)
		}
		return spot{at: p, obj: p.obj, low: lower.None}, err
	}
	low := s.low
	m, obj, err := r.moldOf(s)
	if err != nil {
		r.prune(p)
		return s, err
	}
	if l != nil {
		work, werr := o.work()
		if err = werr; err == nil {
			err = o.putLifted(p, work, l, obj)
		}
	} else {
		err = o.copyInto(p, m, obj)
	}
	if err != nil {
		r.prune(p)
		return s, err
	}
	if s.file == nil {
		err = o.linkGroup(obj, low)
	}
	return spot{at: p, obj: obj, low: lower.None}, err
}

func (o *op) putLifted(p *place, work int, l *lifted, obj *object) error {
	dir, err := o.dir(p.up)
	if err != nil {
		return err
	}
	err = keepTimes(dir, func() error { return o.put(p, dir, work, l.tmp, obj) })
	if err == nil {
		l.tmp = ""
		l.close()
	}
	return err
}

// source opens the bytes of a node file, or when that is nil of a version's file.
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
		return writeAll(fd, b.bytes[:keep], 0)
	}
	if keep == b.size && len(b.data) == 1 && unix.IoctlFileClone(fd, b.file.FD) == nil {
		return nil
	}
	for _, x := range b.data {
		if x.Offset >= keep {
			break
		}
		if err := copyRange(fd, b.file.FD, x.Offset, min(x.Offset+x.Length, keep)); err != nil {
			return err
		}
	}
	return unix.Ftruncate(fd, int64(keep))
}

// copyRange copies the bytes from up to end between two files, at the same places.
func copyRange(to, from int, at, end uint64) error {
	var buf []byte
	for at < end {
		in, out := int64(at), int64(at)
		n, err := 0, unix.ENOSYS
		if buf == nil {
			n, err = fileRange(from, &in, to, &out, int(min(end-at, 1<<30)))
		}
		if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
			if buf == nil {
				buf = make([]byte, 256<<10)
			}
			n, err = copyBytes(to, from, buf[:min(uint64(len(buf)), end-at)], int64(at))
		}
		if err != 0 {
			if err == unix.EINTR {
				continue
			}
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		at += uint64(n)
	}
	return nil
}

func fileRange(from int, in *int64, to int, out *int64, n int) (int, unix.Errno) {
	n, err := unix.CopyFileRange(from, in, to, out, n, 0)
	return n, errnoOf(err)
}

func copyBytes(to, from int, buf []byte, at int64) (int, unix.Errno) {
	n, err := unix.Pread(from, buf, at)
	if err == nil && n > 0 {
		err = writeAll(to, buf[:n], at)
	}
	return n, errnoOf(err)
}

func errnoOf(err error) unix.Errno {
	var e unix.Errno
	if err != nil && !errors.As(err, &e) {
		e = unix.EIO
	}
	return e
}

// writeAll writes all of p at off.
func writeAll(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrShortWrite
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}
