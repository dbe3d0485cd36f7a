package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/layer"
	"dim/internal/sysfile"
)

// tree reads a directory tree.
type tree struct {
	root   layer.Dir
	prefix string                 // path of the root in the backup
	skip   func(path string) bool // of paths from the root; nil: nothing
	emit   func(e *entry, c content) error
	failed func(path string, err error) // an entry cannot be read

	origins bool                   // files are those of the layer itself, and their origin is computed
	links   map[layer.Inode]string // the first path of each file with several names
}

// readError is a failure to read what is backed up.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// walk emits the directory path, from the root, and all that is in it. A directory comes before what is in it.
func (t *tree) walk(path string) error {
	if t.links == nil {
		t.links = map[layer.Inode]string{}
	}
	fd, err := t.root.OpenDir(path)
	if err != nil {
		return t.unreadable(path, err)
	}
	below, err := t.level(layer.Dir(fd), path)
	unix.Close(fd)
	for _, sub := range below {
		if err == nil {
			err = t.walk(sub)
		}
	}
	return err
}

// unreadable reports what cannot be read. An entry that has vanished is none.
func (t *tree) unreadable(path string, err error) error {
	if !errors.Is(err, unix.ENOENT) {
		t.failed(t.full(path), err)
	}
	return nil
}

// full returns the path in the backup of a path from the root.
func (t *tree) full(path string) string {
	if path == "." {
		return t.prefix
	}
	return image.JoinPath(t.prefix, path)
}

// level emits an open directory and its entries, and returns the directories in it.
func (t *tree) level(dir layer.Dir, path string) (below []string, err error) {
	e, err := readDir(dir, t.full(path))
	if err != nil {
		return nil, t.unreadable(path, err)
	}
	if err := t.emit(e, nil); err != nil {
		return nil, err
	}
	names, err := dir.Names()
	if err != nil {
		return nil, t.unreadable(path, err)
	}
	slices.Sort(names)
	for _, name := range names {
		at := name
		if path != "." {
			at = path + "/" + name
		}
		if t.skip != nil && t.skip(at) {
			continue
		}
		isDir, err := t.one(dir, at)
		if err != nil {
			return nil, err
		}
		if isDir {
			below = append(below, at)
		}
	}
	return below, nil
}

// one emits the entry at path in an open directory, unless it is a directory.
func (t *tree) one(dir layer.Dir, path string) (isDir bool, err error) {
	at := layer.At(int(dir), path[strings.LastIndexByte(path, '/')+1:])
	var st unix.Stat_t
	if err := unix.Fstatat(at.FD, at.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, t.unreadable(path, err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return true, nil
	}
	ino := layer.Inode{Dev: st.Dev, Ino: st.Ino}
	if first, ok := t.links[ino]; ok && st.Nlink > 1 {
		return false, t.emit(&entry{path: t.full(path), kind: fileKind, hardLink: first}, nil)
	}
	e, err := readEntry(at, t.full(path), &st)
	if err != nil {
		return false, t.unreadable(path, err)
	}
	var c content
	if e.kind == fileKind {
		if o, ok := (&layer.CopyEntry{Stat: st}).Origin(time.Now()); ok && t.origins {
			e.origin = (*origin)(&o)
		}
		f := &namedContent{at: at, size: e.size}
		defer f.close()
		c = f
	}
	err = t.emit(e, c)
	if r, ok := errors.AsType[*readError](err); ok {
		return false, t.unreadable(path, r.err)
	}
	if st.Nlink > 1 && err == nil {
		t.links[ino] = t.full(path)
	}
	return false, err
}

func kindOf(mode uint32) kind {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return dirKind
	case unix.S_IFLNK:
		return symlinkKind
	case unix.S_IFCHR:
		return charKind
	case unix.S_IFBLK:
		return blockKind
	case unix.S_IFIFO:
		return fifoKind
	case unix.S_IFSOCK:
		return socketKind
	}
	return fileKind
}

// readDir reads an open directory as an entry.
func readDir(dir layer.Dir, path string) (*entry, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir), &st); err != nil {
		return nil, err
	}
	return readEntry(layer.At(int(dir), "."), path, &st)
}

// readEntry reads all of an entry with the status st but its content.
func readEntry(at layer.Entry, path string, st *unix.Stat_t) (*entry, error) {
	e := &entry{
		path: path, kind: kindOf(st.Mode), mode: st.Mode & 0o7777, uid: st.Uid, gid: st.Gid,
		mtime: image.Time{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)},
	}
	switch e.kind {
	case fileKind:
		e.size = uint64(st.Size)
	case charKind, blockKind:
		e.major, e.minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	case symlinkKind:
		var err error
		if e.target, err = os.Readlink(sysfile.ProcPath(at.FD, at.Name)); err != nil {
			return nil, err
		}
	}
	return e, e.readXattrs(at)
}

// originXattr describes a copy of a layer's file, not the file itself.
const originXattr = "trusted.dim.of"

func (e *entry) readXattrs(at layer.Entry) error {
	path := sysfile.ProcPath(at.FD, at.Name)
	list, err := grown(func(buf []byte) (int, error) { return unix.Llistxattr(path, buf) })
	if err == unix.EOPNOTSUPP {
		return nil
	}
	if err != nil {
		return err
	}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(list, []byte{0}), []byte{0}) {
		if len(name) == 0 {
			continue
		}
		value, err := grown(func(buf []byte) (int, error) { return unix.Lgetxattr(path, string(name), buf) })
		if err == unix.ENODATA {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if string(name) == originXattr {
			if o := (origin{}); len(value) == len(o) {
				o = origin(value)
				e.origin = &o
			}
			continue
		}
		e.xattrs = append(e.xattrs, image.Xattr{Name: string(name), Value: value})
	}
	slices.SortFunc(e.xattrs, func(a, b image.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// grown calls read with a buffer that is large enough.
func grown(read func([]byte) (int, error)) ([]byte, error) {
	for _, size := range []int{256, 4 << 10, 64 << 10, 1 << 20} {
		buf := make([]byte, size)
		n, err := read(buf)
		if err == unix.ERANGE {
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
	return nil, unix.E2BIG
}

// namedContent is the content of a file that is opened when it is needed.
type namedContent struct {
	at   layer.Entry
	size uint64
	file *fileContent
}

func (c *namedContent) open() (*fileContent, error) {
	if c.file != nil {
		return c.file, nil
	}
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOATIME | unix.O_CLOEXEC
	fd, err := unix.Openat(c.at.FD, c.at.Name, flags, 0)
	if err != nil {
		return nil, &readError{err}
	}
	c.file = &fileContent{fd: fd, size: c.size}
	return c.file, nil
}

func (c *namedContent) close() {
	if c.file != nil {
		unix.Close(c.file.fd)
	}
}

func (c *namedContent) extents() ([]image.Extent, error) {
	f, err := c.open()
	if err != nil {
		return nil, err
	}
	return f.extents()
}

func (c *namedContent) each(write func(b []byte, off uint64) error) error {
	f, err := c.open()
	if err != nil {
		return err
	}
	return f.each(write)
}

// fileContent is the content of an open file.
type fileContent struct {
	fd   int
	size uint64
}

func (f *fileContent) extents() (list []image.Extent, err error) {
	size := int64(f.size)
	for at := int64(0); at < size; {
		data, err := unix.Seek(f.fd, at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return list, nil // a hole to the end
		}
		end := size
		if err != nil {
			data = at // the file system does not tell
		} else if hole, err := unix.Seek(f.fd, data, unix.SEEK_HOLE); err == nil {
			end = min(hole, size)
		}
		if data >= end {
			return list, nil
		}
		list = append(list, image.Extent{Offset: uint64(data), Length: uint64(end - data)})
		at = end
	}
	return list, nil
}

func (f *fileContent) each(write func(b []byte, off uint64) error) error {
	list, err := f.extents()
	if err != nil {
		return &readError{err}
	}
	return f.eachOf(list, write)
}

// eachOf calls write with the data of the given extents.
func (f *fileContent) eachOf(list []image.Extent, write func(b []byte, off uint64) error) error {
	buf := make([]byte, min(f.size, 1<<20))
	for _, x := range list {
		for off, end := x.Offset, x.Offset+x.Length; off < end; {
			n, err := unix.Pread(f.fd, buf[:min(uint64(len(buf)), end-off)], int64(off))
			switch {
			case err == unix.EINTR:
				continue
			case err == nil && n == 0:
				err = io.ErrUnexpectedEOF
			}
			if err != nil {
				return &readError{err}
			}
			if err := write(buf[:n], off); err != nil {
				return err
			}
			off += uint64(n)
		}
	}
	return nil
}
