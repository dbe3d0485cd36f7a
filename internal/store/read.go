package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/sysfile"
)

func (s *Store) has(o object) bool {
	return unix.Faccessat(int(s.root.Fd()), objectPath(o.kind, o.digest), unix.F_OK, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// HasBlob reports whether the store has a blob. It does not read it.
func (s *Store) HasBlob(d image.Digest) bool { return s.has(object{blobsDir, d}) }

// OpenBlob opens a blob for reading. Its bytes were verified when they were stored, and are by Check. Errors may be
// ErrNotFound.
func (s *Store) OpenBlob(d image.Digest) (*os.File, error) {
	f, err := os.OpenFile(s.blobPath(d), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open blob %s: %w", d, ErrNotFound)
	}
	return f, err
}

// Tree returns the tree with the given digest, verified. Errors may be ErrNotFound.
func (s *Store) Tree(d image.Digest) (image.Tree, error) { return s.TreeInto(d, nil) }

// TreeInto is Tree and reuses the memory of tree, whose content is lost.
func (s *Store) TreeInto(d image.Digest, tree image.Tree) (image.Tree, error) {
	var room [4096]byte // on the stack, enough for nearly all trees; ParseTree keeps no reference to it
	b, err := s.encodedTree(d, room[:0])
	if err != nil {
		return nil, err
	}
	return image.ParseTree(b, tree)
}

// Root returns the entry of the root directory of the version with the given digest, verified. Errors may be
// ErrNotFound.
func (s *Store) Root(d image.Digest) (image.Entry, error) {
	b, err := s.encodedTree(d, nil)
	if err != nil {
		return image.Entry{}, err
	}
	return image.ParseRoot(b)
}

// encodedTree returns the bytes of a tree or root, verified. It uses room as far as that is enough.
func (s *Store) encodedTree(d image.Digest, room []byte) ([]byte, error) {
	b, err := s.readFile(objectPath(treesDir, d), room)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("read tree %s: %w", d, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read tree %s: %w", d, err)
	}
	if image.Sum(b) != d {
		return nil, fmt.Errorf("read tree %s: %w: its digest is %s", d, errCorrupt, image.Sum(b))
	}
	return b, nil
}

// readFile is os.ReadFile into b, without the system calls that a regular file does not need: trees are read by the
// thousand.
func (s *Store) readFile(path string, b []byte) ([]byte, error) {
	var fd int
	err := sysfile.Retry(func() (err error) {
		fd, err = unix.Openat(int(s.root.Fd()), path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if cap(b) == 0 {
		b = make([]byte, 0, 4096)
	}
	for {
		n, err := unix.Read(fd, b[len(b):cap(b)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return b, nil
		}
		b = b[:len(b)+n]
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
	}
}
