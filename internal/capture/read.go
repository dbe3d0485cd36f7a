package capture

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/capture/draft"
	"dim/internal/image"
	"dim/internal/sysfile"
)

// readItems reads the items that differ from their notes.
func (w *worker) readItems(d *dir, from, to int) error {
	for i := from; i < to; i++ {
		it := &d.items[i]
		if it.note >= 0 || it.child != nil {
			continue
		}
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if err := w.readMember(d, it); err != nil {
			return err
		}
	}
	return nil
}

// readMember reads an item. A file with several names is read once.
func (w *worker) readMember(d *dir, it *item) error {
	g := it.group
	if g == nil {
		return w.readItem(d, it)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fresh != nil && g.stamp == it.stamp {
		it.entry = *g.fresh
		return nil
	}
	if err := w.readItem(d, it); err != nil || it.gone {
		return err
	}
	e := it.entry
	g.fresh, g.stamp = &e, it.stamp
	return nil
}

const (
	tries      = 3
	retryAfter = 20 * time.Millisecond
)

// errOtherKind is returned for an entry whose type has changed while it was read.
var errOtherKind = errors.New("became another kind of file")

// readItem reads an item, again if it changes meanwhile, within limits. It returns errors of the store and of the
// context. Errors of the item become Problems.
func (w *worker) readItem(d *dir, it *item) error {
	for try := 1; ; try++ {
		after, err := w.readOnce(d, it)
		var read *fs.PathError
		switch {
		case err == nil && after == it.stamp:
			return nil
		case w.ctx.Err() != nil:
			return w.ctx.Err()
		case err != nil && !errors.Is(err, errOtherKind):
			if !errors.As(err, &read) || read.Op != "read" {
				return err
			}
			it.gone = true
			w.reportError(image.JoinPath(d.path(), it.name), read.Err)
			return nil
		}
		if try == tries || w.o.settled() {
			it.gone = err != nil
			w.report(Problem{Path: image.JoinPath(d.path(), it.name), Kind: Changing, Err: err})
			return nil
		}
		it.stamp = after
		time.Sleep(retryAfter)
	}
}

// readOnce sets it.entry, sets it.stamp to the stamp before reading, and returns the stamp after reading. Errors of the
// master are *fs.PathError with Op "read".
func (w *worker) readOnce(d *dir, it *item) (after stamp, err error) {
	if it.stamp.flags&flagMount != 0 {
		it.entry = it.stamp.entry(it.name)
		return it.stamp, nil
	}
	if it.stamp.kind() == unix.S_IFREG {
		return w.readFile(d, it)
	}
	it.entry = it.stamp.entry(it.name)
	if it.entry.Type == image.Symlink {
		if it.entry.Target, err = readlink(d.fd, it.name); err != nil {
			return after, readErr(err)
		}
	}
	if it.entry.Xattrs, err = readXattrs(pathXattrs(sysfile.ProcPath(d.fd, it.name))); err != nil {
		return after, readErr(err)
	}
	if it.stamp.isDir() {
		return it.stamp, nil // omitted: its stamp is not that of the kernel
	}
	var x unix.Statx_t
	if err := statxName(d.fd, it.name, &x); err != nil {
		return after, readErr(err)
	}
	after = w.dev.stamp(&x)
	if after.kind() != it.stamp.kind() {
		return after, errOtherKind
	}
	return after, nil
}

func readErr(err error) error { return &fs.PathError{Op: "read", Err: err} }

func (w *worker) readFile(d *dir, it *item) (after stamp, err error) {
	fd, err := openAt(d.fd, it.name, 0)
	if err != nil {
		return after, readErr(err)
	}
	defer unix.Close(fd)
	var x unix.Statx_t
	if err := statxFD(fd, &x); err != nil {
		return after, readErr(err)
	}
	it.stamp = w.dev.stamp(&x)
	if it.stamp.kind() != unix.S_IFREG {
		return it.stamp, errOtherKind
	}
	if it.stamp.size > image.MaxFile {
		return after, readErr(fmt.Errorf("%d bytes are too many for a file: at most %d", it.stamp.size,
			uint64(image.MaxFile)))
	}
	it.entry = it.stamp.entry(it.name)
	if it.entry.Xattrs, err = readXattrs(fdXattrs(fd)); err != nil {
		return after, readErr(err)
	}
	c, err := w.batch.PutFile(w.ctx, fd, it.name)
	if err != nil {
		return after, err
	}
	it.entry.Size, it.entry.Digest, it.entry.Data = c.Size, c.Digest, c.Data
	w.filesRead.Add(1)
	w.bytesRead.Add(it.entry.Size)
	if err := statxFD(fd, &x); err != nil {
		return after, readErr(err)
	}
	return w.dev.stamp(&x), nil
}

func readlink(dir int, name string) (string, error) {
	b := make([]byte, unix.PathMax)
	n := 0
	err := sysfile.Retry(func() (err error) {
		n, err = unix.Readlinkat(dir, name, b)
		return err
	})
	return string(b[:max(n, 0)]), err
}

// xattrSource is an entry with xattrs: the calls of listxattr(2) and getxattr(2).
type xattrSource interface {
	list(b []byte) (int, error)
	get(name string, b []byte) (int, error)
}

type fdXattrs int

func (fd fdXattrs) list(b []byte) (int, error)             { return unix.Flistxattr(int(fd), b) }
func (fd fdXattrs) get(name string, b []byte) (int, error) { return unix.Fgetxattr(int(fd), name, b) }

type pathXattrs string

func (p pathXattrs) list(b []byte) (int, error) { return unix.Llistxattr(string(p), b) }
func (p pathXattrs) get(name string, b []byte) (int, error) {
	return unix.Lgetxattr(string(p), name, b)
}

// readXattrs returns the xattrs that are captured, sorted.
func readXattrs(src xattrSource) ([]image.Xattr, error) {
	size, err := src.list(nil) // most entries have none
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil || size == 0 {
		return nil, err
	}
	names, err := grow(make([]byte, size), src.list)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	var list []image.Xattr
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		if !draft.CapturedXattr(name) {
			continue
		}
		var small [1024]byte
		value, err := grow(small[:], func(b []byte) (int, error) { return src.get(name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, image.Xattr{Name: name, Value: slices.Clone(value)})
	}
	slices.SortFunc(list, func(a, b image.Xattr) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// grow calls read with b, and again with a larger buffer as long as that is too small.
func grow(b []byte, read func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := read(b)
		switch {
		case err == nil:
			return b[:n], nil
		case errors.Is(err, unix.ERANGE) && len(b) < 1<<20:
			b = make([]byte, 4*len(b))
		case !errors.Is(err, unix.EINTR):
			return nil, err
		}
	}
}
