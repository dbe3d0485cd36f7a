package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"dim/internal/image"
)

// HasBlob reports whether the blob is in the store.
func (s *Store) HasBlob(d image.Digest) bool { return s.has(object{blobsDir, d}) }

// HasTree reports whether the tree or root is in the store.
func (s *Store) HasTree(d image.Digest) bool { return s.has(object{treesDir, d}) }

func (s *Store) has(o object) bool {
	return unix.Faccessat(int(s.root.Fd()), objectPath(o.kind, o.digest), unix.F_OK, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// OpenBlob opens the blob for reading, or returns an error that is ErrNotFound. Its bytes were verified when they came in; Check does it
// again.
func (s *Store) OpenBlob(d image.Digest) (*os.File, error) {
	f, err := os.OpenFile(s.BlobPath(d), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open blob %s: %w", d, ErrNotFound)
	}
	return f, err
}

// Tree returns the tree with the given digest. Errors may be ErrNotFound or ErrCorrupt.
func (s *Store) Tree(d image.Digest) (image.Tree, error) { return s.TreeInto(d, nil) }

// TreeInto is Tree, but uses the memory of tree, whatever is in it, as far as that reaches.
func (s *Store) TreeInto(d image.Digest, tree image.Tree) (image.Tree, error) {
	var room [4096]byte // of the stack, enough for nearly all: ParseTree keeps nothing of it
	b, err := s.encodedTree(d, room[:0])
	if err != nil {
		return nil, err
	}
	return image.ParseTreeInto(tree, b)
}

// Root returns the root directory's entry of the version with the given digest. Errors may be ErrNotFound or ErrCorrupt.
func (s *Store) Root(d image.Digest) (image.Entry, error) {
	b, err := s.EncodedTree(d)
	if err != nil {
		return image.Entry{}, err
	}
	return image.ParseRoot(b)
}

// EncodedTree returns the bytes of a tree or root, verified. Errors may be ErrNotFound or ErrCorrupt.
func (s *Store) EncodedTree(d image.Digest) ([]byte, error) {
	return s.encodedTree(d, make([]byte, 0, 4096))
}

func (s *Store) encodedTree(d image.Digest, room []byte) ([]byte, error) {
	b, err := s.readFile(objectPath(treesDir, d), room)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("read tree %s: %w", d, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("read tree %s: %w", d, err)
	}
	if image.Sum(b) != d {
		return nil, fmt.Errorf("read tree %s: %w: its digest is %s", d, ErrCorrupt, image.Sum(b))
	}
	return b, nil
}

// readFile is os.ReadFile, into b, without the calls that a regular file does not need: trees are read by the thousand.
func (s *Store) readFile(path string, b []byte) ([]byte, error) {
	fd, err := unix.Openat(int(s.root.Fd()), path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Openat(int(s.root.Fd()), path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
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
