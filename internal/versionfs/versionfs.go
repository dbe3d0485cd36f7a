// Package versionfs presents a version as an io/fs file system. The server reads single files of an image through it:
// the kernel and its modules, and the originals of node files. Nodes are not served through it.
//
// Symbolic links are followed within the version: an absolute target starts at the version's root, and ".." of the root
// is the root. An FS keeps the trees that it has read, so it is meant for a short use. Its methods may be called
// concurrently.
//
// It must not know what a node or a master is.
package versionfs

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"dim/internal/image"
)

// Source provides trees and blobs. *store.Store implements it.
type Source interface {
	Tree(image.Digest) (image.Tree, error)
	OpenBlob(image.Digest) (*os.File, error)
}

// FS is a version's file system. It implements fs.ReadLinkFS, fs.ReadFileFS, fs.ReadDirFS and fs.StatFS.
type FS struct {
	source Source
	root   image.Entry

	mu    sync.Mutex
	trees map[image.Digest]image.Tree
}

// maxLinks bounds the symbolic links in the resolution of a name, as in Linux (path_resolution(7)).
const maxLinks = 40

// New returns the file system below root, a version's Root.
func New(source Source, root image.Entry) *FS {
	root.Name = "."
	return &FS{source: source, root: root, trees: map[image.Digest]image.Tree{}}
}

// Entry returns the entry at name. It follows symbolic links except at the last element. name has no leading slash; "."
// is the root.
func (f *FS) Entry(name string) (image.Entry, error) { return f.entry("lstat", name, false) }

// Open implements fs.FS.
func (f *FS) Open(name string) (fs.File, error) {
	e, err := f.entry("open", name, true)
	if err != nil {
		return nil, err
	}
	switch e.Type {
	case image.Regular:
		blob, err := f.source.OpenBlob(e.Digest)
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return &file{info: info{&e}, blob: blob}, nil
	case image.Directory:
		entries, err := f.ReadDir(name)
		return &dir{info: info{&e}, rest: entries}, err
	}
	return &file{info: info{&e}}, nil
}

// Stat implements fs.StatFS.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	e, err := f.entry("stat", name, true)
	if err != nil {
		return nil, err
	}
	return info{&e}, nil
}

// Lstat implements fs.ReadLinkFS.
func (f *FS) Lstat(name string) (fs.FileInfo, error) {
	e, err := f.entry("lstat", name, false)
	if err != nil {
		return nil, err
	}
	return info{&e}, nil
}

// ReadLink implements fs.ReadLinkFS.
func (f *FS) ReadLink(name string) (string, error) {
	e, err := f.entry("readlink", name, false)
	if err == nil && e.Type != image.Symlink {
		err = &fs.PathError{Op: "readlink", Path: name, Err: fs.ErrInvalid}
	}
	return e.Target, err
}

// ReadDir implements fs.ReadDirFS.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	e, err := f.entry("readdir", name, true)
	if err != nil {
		return nil, err
	}
	t, err := f.tree(&e)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	list := make([]fs.DirEntry, len(t))
	for i := range t {
		list[i] = fs.FileInfoToDirEntry(info{&t[i]})
	}
	return list, nil
}

// ReadFile implements fs.ReadFileFS.
func (f *FS) ReadFile(name string) ([]byte, error) {
	opened, err := f.Open(name)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	return io.ReadAll(opened)
}

// Digest returns a string that changes whenever name, or a name below it, changes.
func (f *FS) Digest(name string) (string, error) {
	e, err := f.entry("digest", name, true)
	if err != nil {
		return "", err
	}
	e.Name = "x"
	enc, err := image.Tree{e}.Encode()
	return image.Sum(enc).String(), err
}

func (f *FS) entry(op, name string, follow bool) (image.Entry, error) {
	if !fs.ValidPath(name) {
		return image.Entry{}, &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	e, err := f.walk(name, follow)
	if err != nil {
		return image.Entry{}, &fs.PathError{Op: op, Path: name, Err: err}
	}
	return e, nil
}

// walk resolves name element by element. above are the directories on the way, the root first.
func (f *FS) walk(name string, follow bool) (image.Entry, error) {
	above := []image.Entry{f.root}
	rest := strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			above = above[:max(1, len(above)-1)]
			continue
		}
		e, err := f.child(&above[len(above)-1], part)
		if err != nil {
			return image.Entry{}, err
		}
		if e.Type == image.Symlink && (follow || len(rest) > 0) {
			if links++; links > maxLinks {
				return image.Entry{}, fmt.Errorf("more than %d symbolic links", maxLinks)
			}
			if path.IsAbs(e.Target) {
				above = above[:1]
			}
			rest = slices.Concat(strings.Split(e.Target, "/"), rest)
			continue
		}
		above = append(above, *e)
	}
	return above[len(above)-1], nil
}

func (f *FS) child(dir *image.Entry, name string) (*image.Entry, error) {
	t, err := f.tree(dir)
	if err != nil {
		return nil, err
	}
	i, ok := slices.BinarySearchFunc(t, name, func(e image.Entry, name string) int {
		return strings.Compare(e.Name, name)
	})
	if !ok {
		return nil, fs.ErrNotExist
	}
	return &t[i], nil
}

func (f *FS) tree(dir *image.Entry) (image.Tree, error) {
	if dir.Type != image.Directory {
		return nil, fs.ErrNotExist
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if t, ok := f.trees[dir.Digest]; ok {
		return t, nil
	}
	t, err := f.source.Tree(dir.Digest)
	if err == nil {
		f.trees[dir.Digest] = t
	}
	return t, err
}

// info implements fs.FileInfo.
type info struct{ e *image.Entry }

func (i info) Name() string       { return i.e.Name }
func (i info) Size() int64        { return int64(i.e.Size) }
func (i info) ModTime() time.Time { return time.Unix(i.e.Mtime.Sec, int64(i.e.Mtime.Nsec)) }
func (i info) IsDir() bool        { return i.e.Type == image.Directory }
func (i info) Sys() any           { return i.e }

func (i info) Mode() fs.FileMode {
	m := fs.FileMode(i.e.Mode & 0o777)
	for bit, mode := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if i.e.Mode&bit != 0 {
			m |= mode
		}
	}
	switch i.e.Type {
	case image.Directory:
		m |= fs.ModeDir
	case image.Symlink:
		m |= fs.ModeSymlink
	case image.CharDevice:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case image.BlockDevice:
		m |= fs.ModeDevice
	case image.FIFO:
		m |= fs.ModeNamedPipe
	}
	return m
}

// file is an open file that is not a directory. blob is nil if it is not a regular file.
type file struct {
	info info
	blob *os.File
}

func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }

func (f *file) Read(p []byte) (int, error) {
	if f.blob == nil {
		return 0, &fs.PathError{Op: "read", Path: f.info.Name(), Err: fs.ErrInvalid}
	}
	return f.blob.Read(p)
}

// ReadAt implements io.ReaderAt.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if f.blob == nil {
		return 0, &fs.PathError{Op: "read", Path: f.info.Name(), Err: fs.ErrInvalid}
	}
	return f.blob.ReadAt(p, off)
}

func (f *file) Close() error {
	if f.blob == nil {
		return nil
	}
	return f.blob.Close()
}

// dir is an open directory.
type dir struct {
	info info
	rest []fs.DirEntry
}

func (d *dir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *dir) Close() error               { return nil }

func (d *dir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.Name(), Err: fs.ErrInvalid}
}

func (d *dir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		n = len(d.rest)
	} else if len(d.rest) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.rest))
	list := d.rest[:n]
	d.rest = d.rest[n:]
	return list, nil
}
