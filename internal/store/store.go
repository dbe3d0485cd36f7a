// Package store is one machine's content-addressed store: a directory of blobs, trees, versions and tags.
//
// # Concepts
//
// A blob is the content of a regular file, a plain file named by its SHA-256; a tree is a directory's listing in the form
// of package image, named likewise. A version is a small JSON file that names a root. docs/formats/store.md has it all.
//
// # Invariants
//
// Every byte that enters is hashed on its way, in Batch: what is stored under a digest has that digest. Nothing can be
// seen under its name before it is on disk, whole: a batch writes into a directory of its own, syncs once, and only then
// renames. A version is written after everything it names is durable. Objects are never changed.
//
// # Concurrency
//
// All methods of Store and Batch may be called from any number of goroutines, and any number of processes may
// have the store open. Batches of different processes do not disturb each other. Named locks (Lock) keep
// an operation, such as the capture of one image, to one process. No method waits for a lock longer than it takes to
// write one version, but Hold and Begin, which wait for a Sweep. Lock order: prune lock, named locks, versions lock.
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

// Errors to branch on.
var (
	// ErrNotFound is wrapped by errors about blobs, trees, images, versions and tags that are not in the store.
	ErrNotFound = errors.New("not found")
	// ErrCorrupt is wrapped by errors about objects whose bytes are not what their name says.
	ErrCorrupt = errors.New("corrupt")
)

// Options tunes a store; the zero value works.
type Options struct {
	// Now is the clock that stamps versions; time.Now when nil.
	Now func() time.Time

	fault func(step string) error // tests: called between any two steps that a crash could part
}

// Store is an open store.
type Store struct {
	dir  string
	root *os.File // dir, open: short paths from it save time that counts when there are a hundred thousand
	o    Options
}

const format = "1\n"

// The directories of a store.
const (
	blobsDir    = "blobs"
	treesDir    = "trees"
	versionsDir = "versions"
	tagsDir     = "tags"
	stagingDir  = "staging"
	locksDir    = "locks"
)

// Open opens the store in dir, and makes it when there is none. What a process that is no more left unfinished is removed.
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
	for _, sub := range []string{blobsDir, treesDir, versionsDir, tagsDir, stagingDir, locksDir} {
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
	return s.dropLeftovers()
}

func (s *Store) checkFormat() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	b, err := os.ReadFile(s.path("format"))
	if errors.Is(err, fs.ErrNotExist) {
		return durable.WriteFile(s.path("format"), []byte(format), 0o600)
	}
	if err == nil && string(b) != format {
		err = fmt.Errorf("its format is %q, this program knows only %q: use a newer one",
			strings.TrimSpace(string(b)), strings.TrimSpace(format))
	}
	return err
}

// Close releases the store. Batches must have ended.
func (s *Store) Close() error { return s.root.Close() }

// Dir returns the store's directory.
func (s *Store) Dir() string { return s.dir }

// BlobPath returns where the blob d is or would be; it may be opened, never written.
func (s *Store) BlobPath(d image.Digest) string { return s.path(objectPath(blobsDir, d)) }

func (s *Store) path(elem ...string) string {
	return s.dir + "/" + strings.Join(elem, "/")
}

// objectPath returns a blob's or tree's place in the store.
func objectPath(kind string, d image.Digest) string {
	hex := d.String()
	return kind + "/" + hex[:2] + "/" + hex
}

// step is a place at which tests let the process die.
func (s *Store) step(name string) error {
	if s.o.fault == nil {
		return nil
	}
	return s.o.fault(name)
}
