// Package checkout writes a version from the store as a directory, a tar archive or an EROFS image, for use by other
// programs.
//
// # What is preserved
//
// All that a version has: owner, mode, mtime to the nanosecond, hard links, devices, FIFOs, holes, and xattrs, which
// include ACLs and file capabilities. Files of a directory are reflinks of their blobs if the file system supports
// that, and copies without the holes otherwise.
//
// # Invariants
//
// Nothing outside the destination is changed. Names are created relative to the descriptor of a directory that was
// created a moment before, and no symbolic link is followed. A blob whose size is not the one in the version is an
// error.
//
// It must not know what a node is.
package checkout

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/sysfile"
)

// Source provides trees and blobs. *store.Store implements it.
type Source interface {
	Tree(image.Digest) (image.Tree, error)
	OpenBlob(image.Digest) (*os.File, error)
}

// writeDir writes the version with the given root to the new directory dir. If it fails, it leaves what it has written.
// Owners and devices need the rights of the superuser.
func writeDir(ctx context.Context, from Source, root image.Entry, dir string) error {
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
	links   map[string]bool // groups of hard links whose first name exists
	noClone bool            // the file system cannot share blocks with the one of the store
}

// fill creates the entries of the directory with path at and descriptor fd. Then it sets the directory's attributes,
// because new names would change its mtime.
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
	return pathError(at, setAttributes(fd, "", dir))
}

func pathError(at string, err error) error {
	if err != nil {
		return fmt.Errorf("/%s: %w", at, err)
	}
	return nil
}

func (w *writer) directory(parent int, at string, e *image.Entry) error {
	if err := unix.Mkdirat(parent, e.Name, 0o700); err != nil {
		return pathError(at, err)
	}
	fd, err := unix.Openat(parent, e.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return pathError(at, err)
	}
	defer unix.Close(fd)
	return w.fill(fd, at, e)
}

// entry creates an entry that is not a directory.
func (w *writer) entry(parent int, at string, e *image.Entry) error {
	if e.Link != "" && w.links[e.Link] {
		return pathError(at, w.link(parent, e))
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
		err = setAttributes(parent, e.Name, e)
	}
	if e.Link != "" {
		w.links[e.Link] = true
	}
	return pathError(at, err)
}

// link creates a further name of a group of hard links, whose first name is e.Link.
func (w *writer) link(parent int, e *image.Entry) error {
	old, err := unix.Openat2(w.top, e.Link, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
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
		return fmt.Errorf("blob %s does not have %d bytes: %w", e.Digest, e.Size, io.ErrUnexpectedEOF)
	}
	if !w.noClone && e.Size > 0 {
		if unix.IoctlFileClone(fd, int(blob.Fd())) == nil {
			return nil
		}
		w.noClone = true
	}
	for _, x := range extents(e) {
		data := io.NewSectionReader(blob, int64(x.Offset), int64(x.Length))
		if _, err := io.Copy(io.NewOffsetWriter(f, int64(x.Offset)), data); err != nil {
			return err
		}
	}
	return f.Truncate(int64(e.Size))
}

// extents returns the ranges of a regular file that are not holes.
func extents(e *image.Entry) []image.Extent {
	if e.Data == nil && e.Size > 0 {
		return []image.Extent{{Offset: 0, Length: e.Size}}
	}
	return e.Data
}

// setAttributes sets the owner, xattrs, mode and times of the entry name of the directory fd, or of the directory
// itself if name is "". The order matters: a change of the owner removes setuid and file capabilities.
func setAttributes(fd int, name string, e *image.Entry) error {
	if err := unix.Fchownat(fd, name, int(e.UID), int(e.GID), unix.AT_SYMLINK_NOFOLLOW|unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	at := sysfile.ProcPath(fd, orDot(name)) // setxattrat(2) needs Linux 6.13
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
	mtime := unix.Timespec{Sec: e.Mtime.Sec, Nsec: int64(e.Mtime.Nsec)}
	if err := unix.UtimesNanoAt(fd, orDot(name), []unix.Timespec{mtime, mtime}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
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
