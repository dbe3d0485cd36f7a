// Package store is the content-addressed store of one machine: a directory of blobs, trees and versions.
//
// # Concepts
//
// A blob is the content of a regular file. It is a plain file named by its SHA-256. A tree is the listing of a
// directory in the form of package image, named in the same way. A version is a small JSON file that names a root.
// docs/formats/store.md is the specification.
//
// # Invariants
//
// Every byte that is stored is hashed by the Batch that stores it, so a file named by a digest has that digest. No
// object has its name before all of it is on the disk: a batch writes into a directory of its own, syncs, and then
// renames. A version is written when everything that it leads to is durable. Objects never change, but a batch that
// gets the right bytes of an object which the disk or a person has damaged replaces it.
//
// # Concurrency
//
// All methods of Store and Batch may be called from any number of goroutines. Any number of processes may have the
// store open; their batches do not disturb each other. Named locks (Lock) allow an operation, such as the capture of
// one image, in one process at a time. Hold and Begin wait for a Sweep; other methods wait at most until another
// process has written a version.
//
// Lock order:
//
//  1. the prune lock (Hold, Begin, Sweep)
//  2. named locks
//  3. the versions lock
//
// # What it must not know
//
// Where content comes from or who wants it: masters, nodes, networks.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"dim/internal/durable"
	"dim/internal/image"
)

// ErrNotFound is wrapped by errors about blobs, trees, images and versions that are not in the store.
var ErrNotFound = errors.New("not found")

// ErrMismatch is wrapped by errors about content that has another digest than it was announced with.
var ErrMismatch = errors.New("wrong content")

// errCorrupt is wrapped by errors about files whose bytes are damaged.
var errCorrupt = errors.New("corrupt")

// Options tunes a store; the zero value works.
type Options struct {
	// Now is the clock that stamps versions; time.Now when nil.
	Now func() time.Time
	// Reserve is the part of the disk, in percent, of which batches take nothing; 0: none.
	Reserve uint64

	fault func(step string) error // for tests: called before each step at which a crash matters
}

// Store is an open store.
type Store struct {
	dir  string
	root *os.File // dir, open: short paths relative to it save much time with a hundred thousand files
	o    Options

	zeros zeros
}

const format = 1

// The directories of a store.
const (
	blobsDir    = "blobs"
	treesDir    = "trees"
	versionsDir = "versions"
	stagingDir  = "staging"
	locksDir    = "locks"
)

// Open opens the store in dir, and creates it if there is none. It removes the unfinished batches of processes that
// have ended, but for resumable ones.
func Open(dir string, o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	s := &Store{dir: abs, o: o}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	if s.root, err = os.Open(abs); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return s, nil
}

func (s *Store) prepare() error {
	if err := s.checkFormat(); err != nil {
		return err
	}
	made := false
	for _, sub := range []string{blobsDir, treesDir, versionsDir, stagingDir, locksDir} {
		err := os.Mkdir(s.path(sub), 0o700)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		made = made || err == nil
	}
	if made {
		if err := durable.SyncDir(s.dir); err != nil {
			return err
		}
	}
	return s.removeAbandoned(func(name string) bool { return isResumable(name) || name == filepath.Base(partsDir) })
}

func (s *Store) checkFormat() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	return durable.CheckFormat(s.path("format"), format)
}

// Close closes the store. Batches must have ended.
func (s *Store) Close() error { return s.root.Close() }

// Dir returns the store's directory.
func (s *Store) Dir() string { return s.dir }

// blobPath returns the path that the blob d has or would have.
func (s *Store) blobPath(d image.Digest) string { return s.path(objectPath(blobsDir, d)) }

func (s *Store) path(elem ...string) string {
	return s.dir + "/" + strings.Join(elem, "/")
}

// objectPath returns the path of a blob or tree in the store.
func objectPath(kind string, d image.Digest) string {
	hex := d.String()
	return kind + "/" + hex[:2] + "/" + hex
}

// step is called before a step at which tests end the process.
func (s *Store) step(name string) error {
	if s.o.fault == nil {
		return nil
	}
	return s.o.fault(name)
}
