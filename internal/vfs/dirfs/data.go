package dirfs

import (
	"math"

	"golang.org/x/sys/unix"

	"dim/internal/sysfile"
	"dim/internal/vfs"
)

// Readlink returns the target of a symbolic link.
func (f *FS) Readlink(_ *vfs.Cred, h vfs.Handle) (string, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	o, err := f.open(h)
	if err != nil {
		return "", err
	}
	defer o.close()
	if o.attr.Type != vfs.Symlink {
		return "", vfs.EINVAL
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(o.fd, "", buf)
	if err != nil {
		return "", vfs.ErrnoOf(err)
	}
	return string(buf[:n]), nil
}

// openFile opens the regular file h with flags if c is its owner or may returns true.
func (f *FS) openFile(c *vfs.Cred, h vfs.Handle, flags int, may func(a *vfs.Attr) bool) (*object, int, error) {
	o, err := f.open(h)
	if err != nil {
		return nil, -1, err
	}
	fd := -1
	switch {
	case o.attr.Type == vfs.Directory:
		err = vfs.EISDIR
	case o.attr.Type != vfs.Regular:
		err = vfs.EINVAL
	case c.UID != o.attr.UID && !may(&o.attr):
		err = vfs.EACCES
	default:
		fd, err = unix.Open(o.path(), flags|unix.O_CLOEXEC, 0)
		err = vfs.ErrnoOf(err)
	}
	if err != nil {
		o.close()
		return nil, -1, err
	}
	return o, fd, nil
}

// Read reads from a file. Execute permission is enough, so that programs can be paged in.
func (f *FS) Read(c *vfs.Cred, h vfs.Handle, p []byte, off uint64) (int, bool, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	o, fd, err := f.openFile(c, h, unix.O_RDONLY, func(a *vfs.Attr) bool {
		return c.Permits(a, vfs.MayRead) || c.Permits(a, vfs.MayExec)
	})
	if err != nil {
		return 0, false, err
	}
	defer o.close()
	defer unix.Close(fd)
	if off >= o.attr.Size {
		return 0, true, nil
	}
	n := 0
	for n < len(p) && off+uint64(n) < o.attr.Size {
		m, err := unix.Pread(fd, p[n:], int64(off)+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, false, vfs.ErrnoOf(err)
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, off+uint64(n) >= o.attr.Size, nil
}

// Write writes all of p or returns an error.
func (f *FS) Write(c *vfs.Cred, h vfs.Handle, p []byte, off uint64, s vfs.Stability) (vfs.Change, error) {
	if f.opt.ReadOnly {
		return vfs.Change{}, vfs.EROFS
	}
	fd, ch, err := f.write(c, h, p, off)
	if fd >= 0 {
		defer unix.Close(fd)
	}
	if err != nil || f.opt.NoSync {
		return ch, err
	}
	switch s {
	case vfs.DataSync:
		err = unix.Fdatasync(fd)
	case vfs.FileSync:
		err = unix.Fsync(fd)
	}
	return ch, vfs.ErrnoOf(err)
}

func (f *FS) write(c *vfs.Cred, h vfs.Handle, p []byte, off uint64) (int, vfs.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o, fd, err := f.openFile(c, h, unix.O_WRONLY, func(a *vfs.Attr) bool { return c.Permits(a, vfs.MayWrite) })
	if err != nil {
		return -1, vfs.Change{}, err
	}
	defer o.close()
	if off > math.MaxInt64-uint64(len(p)) {
		return fd, o.change(false), vfs.EFBIG
	}
	if len(p) == 0 {
		return fd, o.change(false), nil
	}
	err = o.dropPrivileges(c)
	if err == nil {
		err = sysfile.WriteAt(fd, p, int64(off))
	}
	return fd, o.change(err == nil), vfs.ErrnoOf(err)
}

// Commit syncs the file.
func (f *FS) Commit(c *vfs.Cred, h vfs.Handle) (vfs.Change, error) {
	if f.opt.ReadOnly {
		return vfs.Change{}, vfs.EROFS
	}
	f.mu.RLock()
	o, fd, err := f.openFile(c, h, unix.O_RDONLY, func(a *vfs.Attr) bool { return c.Permits(a, vfs.MayWrite) })
	f.mu.RUnlock()
	if err != nil {
		return vfs.Change{}, err
	}
	defer o.close()
	defer unix.Close(fd)
	ch := o.change(false)
	if f.opt.NoSync {
		return ch, nil
	}
	return ch, vfs.ErrnoOf(unix.Fsync(fd))
}

// StatFS returns the sizes of the file system below.
func (f *FS) StatFS(h vfs.Handle) (vfs.StatFS, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	o, err := f.open(h)
	if err != nil {
		return vfs.StatFS{}, err
	}
	defer o.close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(f.root, &st); err != nil {
		return vfs.StatFS{}, vfs.ErrnoOf(err)
	}
	bs := uint64(st.Bsize)
	return vfs.StatFS{
		Bytes: st.Blocks * bs, BytesFree: st.Bfree * bs, BytesAvail: st.Bavail * bs,
		Files: st.Files, FilesFree: st.Ffree, FilesAvail: st.Ffree,
		NameMax: nameMax,
	}, nil
}

// Xattr returns the value of one extended attribute.
func (f *FS) Xattr(h vfs.Handle, name string) ([]byte, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	o, err := f.open(h)
	if err != nil {
		return nil, err
	}
	defer o.close()
	buf := make([]byte, xattrMax)
	n, err := unix.Getxattr(o.path(), name, buf)
	if err != nil {
		return nil, vfs.ErrnoOf(err)
	}
	return buf[:n:n], nil
}

// Xattrs lists the names of the extended attributes of h.
func (f *FS) Xattrs(h vfs.Handle) ([]string, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	o, err := f.open(h)
	if err != nil {
		return nil, err
	}
	defer o.close()
	buf := make([]byte, xattrMax)
	n, err := unix.Listxattr(o.path(), buf)
	if err != nil {
		return nil, vfs.ErrnoOf(err)
	}
	return splitNames(buf[:n]), nil
}

// xattrMax is XATTR_SIZE_MAX, the bound of the kernel for one value and for one list of names.
const xattrMax = 64 << 10

func splitNames(b []byte) []string {
	var names []string
	for start, i := 0, 0; i < len(b); i++ {
		if b[i] == 0 {
			names = append(names, string(b[start:i]))
			start = i + 1
		}
	}
	return names
}
