package replica

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/durable"
	"dim/internal/image"
	"dim/internal/replica/commit"
	"dim/internal/replica/fds"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// Source is where the trees and blobs of versions come from. What it returns is verified and never changes.
type Source interface {
	Tree(image.Digest) (image.Tree, error)
	TreeInto(image.Digest, image.Tree) (image.Tree, error) // uses the memory of another tree
	OpenBlob(image.Digest) (*os.File, error)
}

// Durability tells what a reply promises. What was acknowledged always survives a crash of the server process.
type Durability uint8

// Synced is what NFS demands: what was acknowledged survives a power cut. AsyncNames leaves it to the file system when new, other
// and removed names and attributes reach the disk (seconds later, in their order); content that was committed survives. Relaxed leaves
// all to the file system.
const (
	Synced Durability = iota
	AsyncNames
	Relaxed
)

// Options of a Set. Dir and Source are needed.
type Options struct {
	Dir        string // where the layers are; made when it is not there
	Source     Source
	Log        *slog.Logger
	Now        func() time.Time
	Durability Durability // of all replicas; each may have less by its Spec
	Retain     Retention
	OpenFiles  int // how many files to keep open at most; 0: 4096, or a third of what the process may
}

// Spec says what a node's replica is to show.
type Spec struct {
	Node    string
	Image   string
	Version image.Version
	Files   NodeFiles
	Keep    image.Patterns // what belongs to the node whatever the master does
	Shared  image.Patterns // what the node may not write

	Durability Durability
	Rules      Rules
}

// Set is all replicas of one image server.
type Set struct {
	path     string
	dir      int // open directory
	source   Source
	log      *slog.Logger
	now      func() time.Time
	least    Durability
	retain   Retention
	verifier atomic.Pointer[[8]byte]
	files    *fds.Cache
	temps    atomic.Uint64
	named    atomic.Bool // the file system makes no files without a name
	commit   *commit.Group
	batches  sync.Pool
	rendered rendered

	lingering lingering
	indexes   indexes

	journal *journal
	crashAt func(point string) error // for tests: an error ends what a crash would end

	switching sync.Mutex // held by who attaches or switches

	mu       sync.RWMutex
	replicas map[Tree]*Replica
	compared map[[2]image.Digest]*changes
	recalled map[*step]remembered
}

// Open opens the replicas below o.Dir. Only one Set may have a directory open.
func Open(o Options) (*Set, error) {
	s := newSet(o)
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	fd, err := unix.Open(o.Dir, openDir|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open replicas %s: %w", o.Dir, err)
	}
	s.path, s.dir = o.Dir, fd
	if err = s.checkFormat(); err == nil {
		s.commit, err = commit.Open(fd)
	}
	if err == nil {
		if s.journal, err = openJournal(o.Dir); err != nil {
			s.commit.Close()
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open replicas %s: %w", o.Dir, err)
	}
	return s, nil
}

// checkFormat refuses a directory of another format, and marks a new one.
func (s *Set) checkFormat() error {
	const format = "1\n"
	name := filepath.Join(s.path, "format")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return durable.WriteFile(name, []byte(format), 0o600)
	}
	if err == nil && string(b) != format {
		err = fmt.Errorf("format %q is not known, this program reads format 1", strings.TrimSpace(string(b)))
	}
	return err
}

func (s *Set) crash(point string) error {
	if s.crashAt == nil {
		return nil
	}
	return s.crashAt(point)
}

func newSet(o Options) *Set {
	s := &Set{
		dir: -1, source: o.Source, log: o.Log, now: o.Now, least: o.Durability, retain: o.Retain.orDefault(),
		replicas: make(map[Tree]*Replica), compared: make(map[[2]image.Digest]*changes),
		recalled: make(map[*step]remembered), files: fds.New(openFiles(o.OpenFiles)),
	}
	s.indexes.source = o.Source
	s.lingering.lasts = lingerFor
	s.batches.New = func() any { return new([batch]vfs.DirEntry) }
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.changeVerifier()
	return s
}

func openFiles(want int) int {
	var limit unix.Rlimit
	if want == 0 && unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		want = int(min(limit.Cur/3, 4096))
	}
	return max(want, 64)
}

// Close closes all files. No call may be running or follow.
func (s *Set) Close() error {
	s.lingering.end()
	s.files.Close()
	if s.dir < 0 {
		return nil
	}
	return errors.Join(s.journal.log.Close(), s.commit.Close(), unix.Close(s.dir))
}

// Find returns the replica that the handles of tree belong to.
func (s *Set) Find(t Tree) (*Replica, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.replicas[t]
	return r, ok
}

// ReadOnly serves a bare version; every change is EROFS.
func (s *Set) ReadOnly(v image.Version) (*Replica, error) {
	index, err := s.indexes.get(v)
	if err != nil {
		return nil, err
	}
	r := &Replica{set: s, image: v.Image, tree: VersionTree(v.Image, v.Digest), view: &view{index: index}, recalled: true}
	r.past.made = v.Created.UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.replicas[r.tree]; old != nil {
		return old, nil
	}
	s.replicas[r.tree] = r
	return r, nil
}

// ReadOnly serves a bare version without a Set, as dim mount does.
func ReadOnly(v image.Version, source Source) (*Replica, error) {
	return newSet(Options{Source: source}).ReadOnly(v)
}

// temp returns a name for a temporary file in a work directory.
func (s *Set) temp() string { return "#" + strconv.FormatUint(s.temps.Add(1), 36) }

// makePath makes the directory path below the set's, with those above it, and returns it open.
func (s *Set) makePath(path string) (int, error) {
	fd, err := unix.FcntlInt(uintptr(s.dir), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for part := range strings.SplitSeq(path, "/") {
		err := unix.Mkdirat(fd, part, 0o700)
		if err == nil && !s.orderly() {
			err = fsync(fd)
		}
		next := -1
		if err == nil || err == unix.EEXIST {
			next, err = unix.Openat(fd, part, openDir|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		}
		unix.Close(fd)
		if err != nil {
			return -1, fmt.Errorf("make %s: %w", path, err)
		}
		fd = next
	}
	return fd, nil
}

// sync makes c durable. After a failure all clients are told, by another verifier, to send again what they have not committed.
func (s *Set) sync(c commit.Changes) error {
	err := s.commit.Sync(c)
	if err != nil {
		s.changeVerifier()
	}
	return err
}

func (s *Set) changeVerifier() {
	var v [8]byte
	rand.Read(v[:])
	s.verifier.Store(&v)
}

// Flushes tells how often calls waited for the disk, how many flushes of it that took, and how many of these failed.
func (s *Set) Flushes() (waits, flushes, failures uint64) { return s.commit.Counts() }

// orderly reports whether a directory that others are to build upon needs no sync of its own.
func (s *Set) orderly() bool { return s.least == Relaxed || s.commit.Ordered() }

// indexes caches the index of each version for as long as a replica uses it.
type indexes struct {
	source Source

	mu   sync.Mutex
	all  map[image.Digest]*loading
	last *lower.Index
}

type loading struct {
	done  chan struct{}
	index *lower.Index
	err   error
}

// get returns the index of v, loading it once. A version is loaded on top of the one loaded before, of which it usually
// is a neighbour.
func (c *indexes) get(v image.Version) (*lower.Index, error) {
	c.mu.Lock()
	l := c.all[v.Digest]
	if l != nil {
		c.mu.Unlock()
		<-l.done
		return l.index, l.err
	}
	l = &loading{done: make(chan struct{})}
	if c.all == nil {
		c.all = make(map[image.Digest]*loading)
	}
	c.all[v.Digest] = l
	base := c.last
	c.mu.Unlock()

	l.index, l.err = lower.Load(v, c.source.TreeInto, base)
	c.mu.Lock()
	if l.err != nil {
		delete(c.all, v.Digest)
	} else {
		c.last = l.index
	}
	c.mu.Unlock()
	close(l.done)
	return l.index, l.err
}

// prune forgets the indexes that none of the views in use needs.
func (c *indexes) prune(used map[*lower.Index]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for d, l := range c.all {
		if l.index != nil && !used[l.index] && l.index != c.last {
			delete(c.all, d)
		}
	}
}

// rendered caches the content of node files by digest.
type rendered struct {
	mu    sync.Mutex
	bytes int
	all   map[image.Digest][]byte
}

const renderedMax = 16 << 20

var errNodeFile = errors.New("content differs from what was announced")

// nodeFileContent returns the bytes of f, which must not be changed.
func (s *Set) nodeFileContent(f *nodeFile) ([]byte, error) {
	s.rendered.mu.Lock()
	b, ok := s.rendered.all[f.Digest]
	s.rendered.mu.Unlock()
	if ok {
		return b, nil
	}
	b, err := f.content(f.Path)
	if err == nil && (uint64(len(b)) != f.Size || image.Sum(b) != f.Digest) {
		err = errNodeFile
	}
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", f.Path, err)
	}
	s.rendered.put(f.Digest, b)
	return b, nil
}

func (c *rendered) put(d image.Digest, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil || c.bytes+len(b) > renderedMax {
		c.all, c.bytes = make(map[image.Digest][]byte), 0
	}
	if _, ok := c.all[d]; !ok {
		c.all[d] = b
		c.bytes += len(b)
	}
}

// Retention tells for how long replaced content stays readable.
type Retention struct {
	Age      time.Duration // 0: a day
	Switches int           // 0: 1024
}

func (r Retention) orDefault() Retention {
	if r.Age == 0 {
		r.Age = 24 * time.Hour
	}
	if r.Switches == 0 {
		r.Switches = 1024
	}
	return r
}
