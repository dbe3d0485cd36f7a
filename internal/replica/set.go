package replica

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/durable"
	"dim/internal/image"
	"dim/internal/image/pathmatch"
	"dim/internal/image/treediff"
	"dim/internal/layer"
	"dim/internal/replica/commit"
	"dim/internal/replica/fds"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// Source has the trees and blobs of versions. What it returns is verified and never changes.
type Source interface {
	Tree(image.Digest) (image.Tree, error)
	TreeInto(image.Digest, image.Tree) (image.Tree, error) // reuses the memory of another tree
	OpenBlob(image.Digest) (*os.File, error)
}

// Durability tells what a reply promises. What was acknowledged always survives a crash of the server process.
type Durability uint8

// With Synced, as NFS demands, what was acknowledged survives a power cut. With AsyncNames the file system
// decides when new, other and removed names and attributes reach the disk (seconds later, in their order);
// content that was committed survives. With Relaxed the file system decides everything.
const (
	Synced Durability = iota
	AsyncNames
	Relaxed
)

// comparison returns all paths at which two versions differ, in walk order. The caller does not change them.
type comparison = func(ctx context.Context, from, to *image.Version) ([]treediff.Change, error)

// Options of a Set. Dir and Source are needed.
type Options struct {
	Dir    string // where the layers are; made if it does not exist
	Source Source
	// Await opens a blob that Source answers with vfs.ELATER, for a reader that may wait. No lock is held meanwhile.
	// Nil: readers do not wait either.
	Await      func(image.Digest) (*os.File, error)
	Compare    comparison // nil: the trees of Source are compared
	Log        *slog.Logger
	Now        func() time.Time
	Expiry     func() time.Time // the time by which old things are removed; nil: Now
	Durability Durability       // of all replicas; a Spec may have less

	// How long, and for how many switches, replaced content stays readable.
	RetainFor      time.Duration // 0: a day
	RetainSwitches int           // 0: 1024

	Reserve uint64 // percent of the disk that nodes may not take; 0: none

	OpenFiles int // how many files to keep open at most; 0: as the process and the memory allow

	// Fault is for tests. It is called between the steps of a change. If it returns an error the change ends
	// there, as in a crash.
	Fault func(point string) error
}

// Spec says what a node's replica is to show.
type Spec struct {
	Node    string
	Image   string
	Version image.Version
	Files   NodeFiles
	Keep    pathmatch.List // what stays the node's when the master changes it
	Shared  pathmatch.List // what the node may not write

	Durability Durability
	Rules      Rules
}

// Set is all replicas of one image server.
type Set struct {
	path     string
	root     layer.Dir // open directory; -1 when there is none
	source   Source
	await    func(image.Digest) (*os.File, error) // nil: readers do not wait
	compare  comparison
	log      *slog.Logger
	now      func() time.Time
	expiry   func() time.Time
	least    Durability
	retain   retention
	verifier atomic.Pointer[[8]byte]
	files    *fds.Cache
	temps    atomic.Uint64
	named    atomic.Bool // the file system cannot make files without a name
	commit   *commit.Group
	batches  sync.Pool
	rendered rendered
	merges   merges

	disk      diskRoom
	lingering lingering
	indexes   indexes

	journal *journal
	fault   func(point string) error // see Options.Fault

	removing  sync.Mutex // held while directories of replicas are removed; taken before switching
	switching sync.Mutex // held while replicas are attached, detached or switched

	mu            sync.RWMutex
	replicas      map[Tree]*Replica
	compared      map[[2]image.Digest]*changes
	historyLoaded map[*step]loadedHistory
}

// Open opens the replicas below o.Dir. Only one Set may have a directory open.
func Open(o Options) (*Set, error) {
	s := newSet(o)
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, err
	}
	fd, err := unix.Open(o.Dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open replicas %s: %w", o.Dir, err)
	}
	s.path, s.root = o.Dir, layer.Dir(fd)
	if err = durable.CheckFormat(filepath.Join(s.path, "format"), 1); err == nil {
		s.commit, err = commit.Open(fd)
	}
	if err == nil {
		if err = s.unstageAll(); err == nil {
			err = s.openJournal()
		}
		if err == nil {
			if err = s.resumeRename(); err != nil {
				_ = s.journal.log.Close()
			}
		}
		if err != nil {
			s.commit.Close()
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open replicas %s: %w", o.Dir, err)
	}
	return s, nil
}

// openJournal opens the journal. One in which records were lost is written anew at once.
func (s *Set) openJournal() (err error) {
	if s.journal, err = openJournal(s.path); err != nil {
		return err
	}
	if s.journal.foundDamaged == "" {
		return nil
	}
	s.log.Error("journal of switches was damaged", "error", s.Damage())
	if err = s.shortenJournal(); err != nil {
		_ = s.journal.log.Close()
	}
	return err
}

func (s *Set) failAt(point string) error {
	if s.fault == nil {
		return nil
	}
	return s.fault(point)
}

func newSet(o Options) *Set {
	s := &Set{
		root: -1, source: o.Source, await: o.Await,
		log: o.Log, now: o.Now, fault: o.Fault, least: o.Durability, retain: retainFor(&o),
		replicas: make(map[Tree]*Replica), compared: make(map[[2]image.Digest]*changes),
		historyLoaded: make(map[*step]loadedHistory), files: fds.New(openFiles(o.OpenFiles)),
	}
	s.indexes.source = o.Source
	s.disk.percent = o.Reserve
	if s.compare = o.Compare; s.compare == nil {
		s.compare = compareTrees(o.Source)
	}
	s.lingering.lasts = lingerFor
	s.batches.New = func() any { return new([batch]vfs.DirEntry) }
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.expiry = o.Expiry; s.expiry == nil {
		s.expiry = s.now
	}
	s.changeVerifier()
	return s
}

// Bounds of how many files are kept open if Options does not say. The kernel holds about 2 KiB for each.
const (
	openFilesLeast = 16 << 10
	openFilesMost  = 128 << 10
	memoryPerFile  = 64 << 10 // so that they take 3 percent of the memory
)

// openFiles returns how many files to keep open: want, or as many as the process may have and the memory allows. A file
// of a node that is not kept open costs three times as much to read: its path is looked up for the attributes and again
// for the content.
func openFiles(want int) int {
	var limit unix.Rlimit
	var memory unix.Sysinfo_t
	if want == 0 && unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && unix.Sysinfo(&memory) == nil {
		files := uint64(memory.Totalram) * uint64(memory.Unit) / memoryPerFile
		want = int(min(limit.Cur/3, max(openFilesLeast, min(files, openFilesMost))))
	}
	return max(want, 64)
}

// Close closes all files. No call may be running or follow.
func (s *Set) Close() error {
	s.lingering.end()
	s.files.Close()
	if s.root < 0 {
		return nil
	}
	return errors.Join(s.journal.log.Close(), s.commit.Close(), unix.Close(int(s.root)))
}

// Find returns the replica that the handles of tree belong to.
func (s *Set) Find(t Tree) (*Replica, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r, ok := s.replicas[t]
	return r, ok
}

// Replicas returns the attached replicas, in no order.
func (s *Set) Replicas() []*Replica {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []*Replica
	for _, r := range s.replicas {
		if r.dir != "" {
			all = append(all, r)
		}
	}
	return all
}

// Disk returns the directory of all replicas.
func (s *Set) Disk() layer.Dir { return s.root }

// Expiry returns the time by which old things are removed.
func (s *Set) Expiry() time.Time { return s.expiry() }

// Expiry returns the time by which old things are removed.
func (r *Replica) Expiry() time.Time { return r.set.expiry() }

// retained returns the stamp from which on replaced content stays readable.
func (s *Set) retained() int64 { return s.expiry().Add(-s.retain.age).UnixNano() }

// ReadOnly serves a bare version; every change is EROFS.
func (s *Set) ReadOnly(v image.Version) (*Replica, error) {
	index, err := s.indexes.get(v)
	if err != nil {
		return nil, err
	}
	r := &Replica{set: s, image: v.Image, view: &view{index: index}, historyLoaded: true}
	r.tree = VersionTree(v.Image, v.Digest)
	r.history.made = v.Created.UnixNano()
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.replicas[r.tree]; old != nil {
		return old, nil
	}
	s.replicas[r.tree] = r
	return r, nil
}

// temp returns a name for a temporary file in a work directory.
func (s *Set) temp() string { return "#" + strconv.FormatUint(s.temps.Add(1), 36) }

// makePath makes the directory path below the set's, with those above it, and returns it open.
func (s *Set) makePath(path string) (int, error) {
	return s.root.MakePath(path, func(dir int) error {
		if s.orderly() {
			return nil
		}
		return layer.Dir(dir).Fsync()
	})
}

// sync makes c durable. After a failure another verifier tells all clients to send again what they have not
// committed.
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

// Flushes returns how often calls waited for the disk, how many flushes that took, and how many of these
// failed.
func (s *Set) Flushes() (waits, flushes, failures uint64) { return s.commit.Counts() }

// orderly reports whether a directory needs no sync of its own before others depend on it.
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

// get returns the index of v, loading it once. A version is loaded on top of the one loaded before, which is
// usually similar.
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

// loaded returns the indexes that are in memory.
func (c *indexes) loaded() (list []*lower.Index) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.all {
		if l.index != nil {
			list = append(list, l.index)
		}
	}
	return list
}

// prune drops the indexes that no view uses.
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

// retention says for how long replaced content stays readable.
type retention struct {
	age      time.Duration
	switches int
}

func retainFor(o *Options) retention {
	r := retention{age: o.RetainFor, switches: o.RetainSwitches}
	if r.age == 0 {
		r.age = 24 * time.Hour
	}
	if r.switches == 0 {
		r.switches = 1024
	}
	return r
}
