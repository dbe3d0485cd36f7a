// Package checkout writes a version out of the store, for what is not DIM: as a directory, or as a tar archive.
//
// # What is kept
//
// Everything that a version holds: owner, mode, mtime to the nanosecond, hard links, devices, FIFOs, holes, and xattrs with ACLs and
// capabilities among them. A directory gets its blobs by reflink where the file system can, else by copying what is no hole.
//
// # Invariants
//
// Nothing outside the given directory is touched: every name is made relative to a directory that is open, in a directory that was made
// just before, and no link is followed. Content is what the version says: a blob that is shorter or longer is an error.
//
// It must not know why, nor what a node is.
package checkout

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"dim/internal/image"
)

// Source is where trees and blobs are; *store.Store is one.
type Source interface {
	Tree(image.Digest) (image.Tree, error)
	OpenBlob(image.Digest) (*os.File, error)
}

// Dir writes the version whose root is given into dir, which must not be there yet; when it fails, what was written stays. It needs
// the superuser's rights for owners and devices.
func Dir(ctx context.Context, from Source, root image.Entry, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	w := writer{ctx: ctx, from: from, top: int(f.Fd()), links: map[string]bool{}}
	if err := w.fill(int(f.Fd()), "", &root); err != nil {
		return err
	}
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return os.NewSyscallError("syncfs", err)
	}
	return nil
}

type writer struct {
	ctx     context.Context
	from    Source
	top     int
	links   map[string]bool // groups of which the first name was made
	noClone bool            // the file system cannot share blocks with the store's
}

// fill makes what is in the directory at, open as fd, and gives it its attributes, which making names in it would change.
func (w *writer) fill(fd int, at string, dir *image.Entry) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	t, err := w.from.Tree(dir.Digest)
	if err != nil {
		return fmt.Errorf("/%s: %w", at, err)
	}
	for i := range t {
		e := &t[i]
		p := image.JoinPath(at, e.Name)
		if e.Type == image.Directory {
			err = w.directory(fd, p, e)
		} else {
			err = w.entry(fd, p, e)
		}
		if err != nil {
			return err
		}
	}
	return told(at, attributes(fd, "", dir))
}

func told(at string, err error) error {
	if err != nil {
		return fmt.Errorf("/%s: %w", at, err)
	}
	return nil
}

func (w *writer) directory(parent int, at string, e *image.Entry) error {
	if err := unix.Mkdirat(parent, e.Name, 0o700); err != nil {
		return told(at, err)
	}
	fd, err := unix.Openat(parent, e.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return told(at, err)
	}
	defer unix.Close(fd)
	return w.fill(fd, at, e)
}

// entry makes what is no directory.
func (w *writer) entry(parent int, at string, e *image.Entry) error {
	if e.Link != "" && w.links[e.Link] {
		return told(at, w.link(parent, e))
	}
	var err error
	switch e.Type {
	case image.Regular:
		err = w.file(parent, e)
	case image.Symlink:
		err = unix.Symlinkat(e.Target, parent, e.Name)
	case image.CharDevice:
		err = unix.Mknodat(parent, e.Name, unix.S_IFCHR|0o600, int(unix.Mkdev(e.Major, e.Minor)))
	case image.BlockDevice:
		err = unix.Mknodat(parent, e.Name, unix.S_IFBLK|0o600, int(unix.Mkdev(e.Major, e.Minor)))
	case image.FIFO:
		err = unix.Mknodat(parent, e.Name, unix.S_IFIFO|0o600, 0)
	}
	if err == nil {
		err = attributes(parent, e.Name, e)
	}
	if e.Link != "" {
		w.links[e.Link] = true
	}
	return told(at, err)
}

// link gives the first name of a group another one. That stands where the group says, below directories that were made here.
func (w *writer) link(parent int, e *image.Entry) error {
	old, err := unix.Openat2(w.top, e.Link, &unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return err
	}
	defer unix.Close(old)
	return unix.Linkat(old, "", parent, e.Name, unix.AT_EMPTY_PATH)
}

func (w *writer) file(parent int, e *image.Entry) error {
	blob, err := w.from.OpenBlob(e.Digest)
	if err != nil {
		return err
	}
	defer blob.Close()
	fd, err := unix.Openat(parent, e.Name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), e.Name)
	defer f.Close()
	if fi, err := blob.Stat(); err != nil || uint64(fi.Size()) != e.Size {
		return fmt.Errorf("blob %s is not of %d bytes: %w", e.Digest, e.Size, io.ErrUnexpectedEOF)
	}
	if !w.noClone && e.Size > 0 {
		if unix.IoctlFileClone(fd, int(blob.Fd())) == nil {
			return nil
		}
		w.noClone = true
	}
	for _, x := range extents(e) {
		if _, err := io.Copy(io.NewOffsetWriter(f, int64(x.Offset)), io.NewSectionReader(blob, int64(x.Offset), int64(x.Length))); err != nil {
			return err
		}
	}
	return f.Truncate(int64(e.Size))
}

// extents returns what is no hole of a regular file.
func extents(e *image.Entry) []image.Extent {
	if e.Data == nil && e.Size > 0 {
		return []image.Extent{{Offset: 0, Length: e.Size}}
	}
	return e.Data
}

// attributes gives what is called name in the directory open as fd, or the directory itself when name is "", its owner, xattrs, mode and
// times, in this order: a change of the owner takes setuid and capabilities away.
func attributes(fd int, name string, e *image.Entry) error {
	if err := unix.Fchownat(fd, name, int(e.UID), int(e.GID), unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	// By the path of the open directory, for xattrs have no call that takes both.
	at := fmt.Sprintf("/proc/self/fd/%d/%s", fd, name)
	if name == "" {
		at += "."
	}
	for _, x := range e.Xattrs {
		if err := unix.Lsetxattr(at, x.Name, x.Value, 0); err != nil {
			return fmt.Errorf("set xattr %s: %w", x.Name, err)
		}
	}
	if e.Type != image.Symlink {
		if err := unix.Fchmodat(fd, orDot(name), e.Mode, 0); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	ts := []unix.Timespec{{Sec: e.Mtime.Sec, Nsec: int64(e.Mtime.Nsec)}, {Sec: e.Mtime.Sec, Nsec: int64(e.Mtime.Nsec)}}
	if err := unix.UtimesNanoAt(fd, orDot(name), ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

func orDot(name string) string {
	if name == "" {
		return "."
	}
	return name
}
