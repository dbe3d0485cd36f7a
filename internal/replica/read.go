package replica

import (
	"errors"
	"math"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/diskroom"
	"dim/internal/image"
	"dim/internal/layer"
	"dim/internal/replica/fds"
	"dim/internal/replica/lower"
	"dim/internal/sysfile"
	"dim/internal/vfs"
)

// Access returns which of the wanted permissions c has by the mode bits. Writing below a shared path is granted
// here and answered with EROFS by the write: a client would turn a refusal into EACCES.
func (r *Replica) Access(c *vfs.Cred, h vfs.Handle, want uint32, a *vfs.Attr) (uint32, error) {
	if err := r.Attr(h, a); err != nil {
		return 0, err
	}
	if r.dir == "" {
		want &^= vfs.AccessModify | vfs.AccessExtend | vfs.AccessDelete
	}
	return c.Grant(a, want), nil
}

// Lookup finds name in dir.
func (r *Replica) Lookup(c *vfs.Cred, dir vfs.Handle, name string, a *vfs.Attr) (vfs.Handle, error) {
	if err := r.rlock(); err != nil {
		return vfs.Handle{}, err
	}
	defer r.mu.RUnlock()
	d, err := r.resolveDir(dir)
	if err != nil {
		return vfs.Handle{}, err
	}
	if err := checkName(name); err != nil {
		return vfs.Handle{}, err
	}
	if !r.permits(c, d, vfs.MayExec) {
		return vfs.Handle{}, vfs.EACCES
	}
	s, ok := d, true
	switch name {
	case ".":
	case "..":
		s = r.parent(d)
	default:
		s, ok = r.child(d, name)
	}
	if !ok {
		return vfs.Handle{}, vfs.ENOENT
	}
	if err := r.attr(s, a); err != nil {
		return vfs.Handle{}, r.edge(err)
	}
	return r.handle(s), nil
}

func (r *Replica) resolveDir(h vfs.Handle) (vnode, error) {
	s, err := r.resolve(h)
	if err == nil && r.kind(s) != vfs.Directory {
		err = vfs.ENOTDIR
	}
	if err == nil && r.lost(s) {
		err = vfs.EIO
	}
	return s, err
}

// permits decides by owner and mode alone, which are in memory for everything.
func (r *Replica) permits(c *vfs.Cred, s vnode, want uint32) bool {
	var a vfs.Attr
	switch {
	case s.obj != nil:
		a = vfs.Attr{Type: s.obj.kind, Mode: s.obj.mode, UID: s.obj.uid, GID: s.obj.gid}
	case s.low != lower.None && s.gone == nil && s.file == nil:
		if c.UID == 0 && r.view.index.IsDir(s.low) {
			return true
		}
		r.view.index.Attr(s.low, &a)
	default:
		if r.attr(s, &a) != nil {
			return false
		}
	}
	return c.Permits(&a, want)
}

// Readlink returns a symbolic link's target.
func (r *Replica) Readlink(_ *vfs.Cred, h vfs.Handle) (string, error) {
	if err := r.rlock(); err != nil {
		return "", err
	}
	defer r.mu.RUnlock()
	s, err := r.resolve(h)
	if err != nil {
		return "", err
	}
	if r.kind(s) != vfs.Symlink {
		return "", vfs.EINVAL
	}
	switch {
	case s.gone != nil:
		return s.gone.target, nil
	case s.obj == nil:
		return r.view.index.Target(s.low), nil
	}
	d, name, err := r.where(s.obj)
	if err != nil {
		return "", r.edge(err)
	}
	defer d.Release()
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(d.FD, name, buf)
	if err != nil {
		return "", r.edge(err)
	}
	return string(buf[:n]), nil
}

// body is the content of a regular file: an open file, or bytes in memory.
type body struct {
	file  *fds.File
	bytes []byte
	size  uint64 // if fixed; else the file is asked for it
	fixed bool
	data  []image.Extent // the ranges that are no holes; only for copying
}

func (b *body) release() {
	if b.file != nil {
		b.file.Release()
	}
}

// Read reads as vfs.FS describes. Execute permission is enough, to page a program in.
func (r *Replica) Read(c *vfs.Cred, h vfs.Handle, p []byte, off uint64) (int, bool, error) {
	b, err := r.body(c, h)
	if err != nil {
		return 0, false, r.edge(err)
	}
	defer b.release()
	n, eof, err := b.read(p, off)
	return n, eof, r.edge(err)
}

// Share opens the blob that has the bytes of h. A file of the layer has none, for it may be written to.
func (r *Replica) Share(c *vfs.Cred, h vfs.Handle) (vfs.Shared, bool) {
	b, err := r.body(c, h)
	if err != nil || b.file == nil {
		return nil, false
	}
	if !b.fixed {
		b.release()
		return nil, false
	}
	return b.file, true
}

// body opens the bytes of h for c. They stay right after the lock is released: a blob never changes, and a
// layer's file that is moved or set aside is still the same file.
func (r *Replica) body(c *vfs.Cred, h vfs.Handle) (b body, err error) {
	if err := r.rlock(); err != nil {
		return b, err
	}
	s, err := r.mayRead(c, h)
	if err != nil {
		r.mu.RUnlock()
		return b, err
	}
	if s.obj != nil {
		b.file, err = r.readable(s.obj)
		r.mu.RUnlock()
		return b, err
	}
	var digest *image.Digest
	b.fixed = true
	switch {
	case s.file != nil:
		b.bytes, err = r.set.nodeFileContent(s.file)
		b.size = uint64(len(b.bytes))
	case s.gone != nil:
		digest, b.size, b.bytes = s.gone.origin, s.gone.size, s.gone.content
	default:
		digest, b.size = r.view.index.Digest(s.low), r.view.index.FileSize(s.low)
	}
	r.mu.RUnlock()
	if err == nil && digest != nil && b.bytes == nil && b.size > 0 {
		b.file, err = r.set.awaitBlob(digest)
	}
	return b, err
}

func (r *Replica) mayRead(c *vfs.Cred, h vfs.Handle) (vnode, error) {
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
	if c.UID == 0 {
		return s, nil
	}
	var a vfs.Attr
	if err := r.attr(s, &a); err != nil {
		return s, err
	}
	if c.UID != a.UID && !c.Permits(&a, vfs.MayRead) && !c.Permits(&a, vfs.MayExec) {
		return s, vfs.EACCES
	}
	return s, nil
}

func (b *body) read(p []byte, off uint64) (n int, eof bool, err error) {
	if b.fixed {
		if off >= b.size {
			return 0, true, nil
		}
		p = p[:min(uint64(len(p)), b.size-off)]
	}
	if b.file == nil {
		n = copy(p, b.bytes[off:])
		return n, off+uint64(n) >= b.size, nil
	}
	if off > math.MaxInt64 {
		return 0, true, nil
	}
	wanted := len(p)
	p = p[:min(uint64(len(p)), math.MaxInt64-off)]
	for n < len(p) {
		m, err := b.file.ReadAt(p[n:], int64(off)+int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return n, false, err
		}
		if m == 0 {
			if b.fixed {
				return n, false, errShortBlob
			}
			return n, true, nil
		}
		n += m
	}
	return n, n < wanted || b.fixed && off+uint64(n) >= b.size, nil
}

var errShortBlob = errors.New("blob is shorter than its entry says")

// StatFS returns what the file system of the layers has left. For a file that has no name any more the size of
// the file system is 0: by this a node learns that a file which is open or mapped was replaced.
func (r *Replica) StatFS(h vfs.Handle) (vfs.StatFS, error) {
	if err := r.rlock(); err != nil {
		return vfs.StatFS{}, err
	}
	s, err := r.resolve(h)
	version, use := r.view.index.Version, r.quotaUse()
	r.mu.RUnlock()
	if err != nil {
		return vfs.StatFS{}, err
	}
	if r.dir == "" {
		return vfs.StatFS{Bytes: max(version.Bytes, 1), Files: version.Files + 1, NameMax: nameMax}, nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(r.set.root), &st); err != nil {
		return vfs.StatFS{}, r.edge(err)
	}
	bs := uint64(st.Bsize)
	fs := vfs.StatFS{
		Bytes: st.Blocks * bs, BytesFree: st.Bfree * bs, BytesAvail: st.Bavail * bs,
		Files: st.Files, FilesFree: st.Ffree, FilesAvail: st.Ffree, NameMax: nameMax,
	}
	soon := r.set.lingering.room() // it is freed when room is needed
	fs.BytesFree, fs.BytesAvail = min(fs.BytesFree+soon, fs.Bytes), min(fs.BytesAvail+soon, fs.Bytes)
	bytes, files := diskroom.Reserve(fs.Bytes, fs.Files, r.set.disk.percent)
	fs.BytesFree, fs.BytesAvail = fs.BytesFree-min(bytes, fs.BytesFree), fs.BytesAvail-min(bytes, fs.BytesAvail)
	fs.FilesFree, fs.FilesAvail = fs.FilesFree-min(files, fs.FilesFree), fs.FilesAvail-min(files, fs.FilesAvail)
	use.statFS(&fs)
	if s.gone != nil || s.obj != nil && (s.obj.aside != "" || s.obj.removed) {
		fs.Bytes = 0
	}
	return fs, nil
}

const xattrMax = 64 << 10 // XATTR_SIZE_MAX and XATTR_LIST_MAX

// Xattr returns the value of one extended attribute.
func (r *Replica) Xattr(h vfs.Handle, name string) ([]byte, error) {
	if err := r.rlock(); err != nil {
		return nil, err
	}
	defer r.mu.RUnlock()
	s, err := r.resolve(h)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(name, hiddenXattrs) {
		return nil, vfs.ENODATA
	}
	if s.obj != nil {
		d, at, err := r.where(s.obj)
		if err != nil {
			return nil, r.edge(err)
		}
		defer d.Release()
		value, err := layer.At(d.FD, at).Xattr(name, make([]byte, xattrMax))
		return slices.Clip(value), r.edge(err)
	}
	for _, x := range r.versionXattrs(s) {
		if x.Name == name {
			return slices.Clone(x.Value), nil
		}
	}
	return nil, vfs.ENODATA
}

// Xattrs lists the names of h's extended attributes.
func (r *Replica) Xattrs(h vfs.Handle) ([]string, error) {
	if err := r.rlock(); err != nil {
		return nil, err
	}
	defer r.mu.RUnlock()
	s, err := r.resolve(h)
	if err != nil {
		return nil, err
	}
	var names []string
	if s.obj != nil {
		d, at, err := r.where(s.obj)
		if err != nil {
			return nil, r.edge(err)
		}
		defer d.Release()
		buf := make([]byte, xattrMax)
		n, err := unix.Llistxattr(sysfile.ProcPath(d.FD, at), buf)
		if err != nil {
			return nil, r.edge(err)
		}
		names = strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	}
	for _, x := range r.versionXattrs(s) {
		names = append(names, x.Name)
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == "" || strings.HasPrefix(n, hiddenXattrs) }), nil
}

func (r *Replica) versionXattrs(s vnode) []image.Xattr {
	if s.obj != nil || s.file != nil || s.gone != nil || s.low == lower.None {
		return nil
	}
	return r.view.index.Xattrs(s.low)
}
