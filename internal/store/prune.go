package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"dim/internal/durable"
	"dim/internal/image"
)

// Hold prevents the removal of objects until Unlock. To make a version, call it before the first Put, and call Unlock
// when AddVersion has returned: the hold of a batch ends with Commit, when no version leads to its objects yet. Hold
// waits while Sweep removes objects.
func (s *Store) Hold() (*Lock, error) { return s.lock(pruneLock, unix.LOCK_SH) }

// OpenHeld opens a store from which nothing is removed until release, which closes it.
func OpenHeld(dir string) (s *Store, release func(), err error) {
	if s, err = Open(dir, Options{}); err != nil {
		return nil, nil, err
	}
	hold, err := s.Hold()
	if err != nil {
		return nil, nil, errors.Join(err, s.Close())
	}
	return s, func() {
		hold.Unlock()
		_ = s.Close()
	}, nil
}

// RemoveVersion removes a version. The objects that it leads to stay until Sweep. Errors may be ErrNotFound.
func (s *Store) RemoveVersion(r image.Ref) error {
	if !image.ValidName(r.Image) || r.Number <= 0 {
		return fmt.Errorf("remove version %s: not a version's name", r)
	}
	lock, err := s.lock(versionsLock, unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	name := strconv.Itoa(r.Number) + ".json"
	if _, err := os.Lstat(s.path(versionsDir, r.Image, name)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove version %s: %w", r, ErrNotFound)
	}
	if err := s.step("remove version"); err != nil {
		return err
	}
	if err := os.Remove(s.path(versionsDir, r.Image, name)); err != nil {
		return err
	}
	return durable.SyncDir(s.path(versionsDir, r.Image))
}

// Garbage describes the objects that no version leads to.
type Garbage struct {
	Objects int
	Bytes   uint64 // on the disk; fewer are freed if blobs share blocks with a master

	trees, blobs []image.Digest // each tree after all trees that name it
}

// Garbage finds the objects that no version leads to, as if the versions in without were removed. Roots are digests of
// further versions whose objects stay. It removes nothing.
func (s *Store) Garbage(ctx context.Context, without []image.Ref, roots []image.Digest) (Garbage, error) {
	m := marker{Store: s, ctx: ctx, marked: map[object]bool{}}
	if err := m.versions(without); err != nil {
		return Garbage{}, err
	}
	for _, d := range roots {
		if err := m.root(d); err != nil && !errors.Is(err, ErrNotFound) {
			return Garbage{}, fmt.Errorf("find what is in use: %w", err)
		}
	}
	return m.rest()
}

// Sweep removes the objects that neither a version nor one of roots leads to, and the batches and parts that processes
// have left behind. While a batch or a Hold is open, the error is a *LockedError, at once, and nothing is removed. If
// ctx or the process ends in the middle, a later Sweep removes the rest: at any time the store has all objects that its
// trees lead to.
func (s *Store) Sweep(ctx context.Context, roots []image.Digest) (Garbage, error) {
	lock, err := s.lock(pruneLock, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		if locked, ok := errors.AsType[*LockedError](err); ok {
			locked.Holder = s.writer()
		}
		return Garbage{}, err
	}
	defer lock.Unlock()
	if err := s.removeAbandoned(func(string) bool { return false }); err != nil {
		return Garbage{}, err
	}
	g, err := s.Garbage(ctx, nil, roots)
	if err != nil || g.Objects == 0 {
		return g, err
	}
	return g, s.sweep(ctx, &g)
}

func (s *Store) sweep(ctx context.Context, g *Garbage) error {
	for _, list := range []struct {
		kind    string
		digests []image.Digest
	}{{treesDir, g.trees}, {blobsDir, g.blobs}} {
		for _, d := range list.digests {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.step("sweep " + list.kind); err != nil {
				return err
			}
			if err := os.Remove(s.path(objectPath(list.kind, d))); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := s.step("sync " + list.kind); err != nil { // the trees are gone before the first blob is removed
			return err
		}
		if err := unix.Syncfs(int(s.root.Fd())); err != nil {
			return os.NewSyscallError("syncfs", err)
		}
	}
	return nil
}

// writer describes a process that adds objects now, if that holds a named lock. It must not try the locks: it could
// hold one just when another process wants it.
func (s *Store) writer() string {
	held := lockedInodes()
	names, _ := os.ReadDir(s.path(locksDir))
	for _, e := range names {
		info, err := e.Info()
		if err != nil || e.Name() == pruneLock || e.Name() == versionsLock {
			continue
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || !held[strconv.FormatUint(st.Ino, 10)] {
			continue
		}
		f, err := os.Open(s.path(locksDir, e.Name()))
		if err != nil {
			continue
		}
		defer f.Close()
		return fmt.Sprintf("%s: %s", e.Name(), holder(f))
	}
	return "another process"
}

// lockedInodes returns the inode numbers of the files, on any file system, that are locked by flock(2).
func lockedInodes() map[string]bool {
	held := make(map[string]bool)
	// proc_locks(5): "1: FLOCK  ADVISORY  WRITE 12 fe:00:345 0 EOF". A line "1: -> FLOCK …" is a process that waits.
	b, _ := os.ReadFile("/proc/locks")
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[1] != "FLOCK" {
			continue
		}
		if at := strings.Split(fields[5], ":"); len(at) == 3 {
			held[at[2]] = true
		}
	}
	return held
}

// marker marks the objects that are in use.
type marker struct {
	*Store
	ctx    context.Context
	marked map[object]bool
}

// versions marks the objects of all versions but those in without. A version that cannot be read is an error, because
// its objects are not known.
func (m *marker) versions(without []image.Ref) error {
	names, err := os.ReadDir(m.path(versionsDir))
	if err != nil {
		return err
	}
	skip := map[image.Ref]bool{}
	for _, r := range without {
		skip[image.Ref{Image: r.Image, Number: r.Number}] = true
	}
	for _, e := range names {
		numbers, err := m.numbers(e.Name())
		if err != nil {
			return err
		}
		for _, n := range numbers {
			if skip[image.Ref{Image: e.Name(), Number: n}] {
				continue
			}
			v, err := m.readVersionFile(e.Name(), n)
			if errors.Is(err, ErrNotFound) {
				continue // removed meanwhile
			}
			if err == nil {
				err = m.root(v.Digest)
			}
			if err != nil {
				return fmt.Errorf("find what is in use: version %s@%d: %w", e.Name(), n, err)
			}
		}
	}
	return nil
}

func (m *marker) root(d image.Digest) error {
	o := object{treesDir, d}
	if m.marked[o] {
		return nil
	}
	root, err := m.Root(d)
	if err != nil {
		return err
	}
	m.marked[o] = true
	return m.tree(root.Digest)
}

// tree marks a tree and all below it. It ignores missing trees: Check reports them, and they lead to nothing that could
// be removed.
func (m *marker) tree(d image.Digest) error {
	o := object{treesDir, d}
	if err := m.ctx.Err(); err != nil || m.marked[o] {
		return err
	}
	m.marked[o] = true
	t, err := m.Tree(d)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	for i := range t {
		switch t[i].Type {
		case image.Directory:
			if err := m.tree(t[i].Digest); err != nil {
				return err
			}
		case image.Regular:
			m.marked[object{blobsDir, t[i].Digest}] = true
		}
	}
	return nil
}

// rest returns the objects that are not marked.
func (m *marker) rest() (g Garbage, err error) {
	left := map[image.Digest]bool{}
	err = m.unmarked(treesDir, &g, func(d image.Digest) { left[d] = true })
	if err == nil {
		err = m.unmarked(blobsDir, &g, func(d image.Digest) { g.blobs = append(g.blobs, d) })
	}
	if err != nil {
		return g, err
	}
	for d := range left {
		g.trees = m.below(g.trees, left, d)
	}
	slices.Reverse(g.trees) // below lists the deepest first
	return g, nil
}

// below appends those trees of left that d leads to, the deepest first, then d.
func (m *marker) below(list []image.Digest, left map[image.Digest]bool, d image.Digest) []image.Digest {
	if !left[d] {
		return list
	}
	delete(left, d)
	enc, err := m.encodedTree(d, nil)
	if err == nil {
		t, _ := image.ParseTree(enc, nil)
		if root, rerr := image.ParseRoot(enc); rerr == nil {
			t = image.Tree{root}
		}
		for i := range t {
			if t[i].Type == image.Directory {
				list = m.below(list, left, t[i].Digest)
			}
		}
	}
	return append(list, d)
}

// unmarked calls each with the objects of a kind that are not marked. It ignores files that are not objects; Check
// reports them.
func (m *marker) unmarked(kind string, g *Garbage, each func(image.Digest)) error {
	fans, err := os.ReadDir(m.path(kind))
	if err != nil {
		return err
	}
	for _, fan := range fans {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		entries, err := os.ReadDir(m.path(kind, fan.Name()))
		if err != nil {
			return err
		}
		for _, e := range entries {
			d, err := image.ParseDigest(e.Name())
			if err != nil || !strings.HasPrefix(e.Name(), fan.Name()) || !e.Type().IsRegular() {
				continue
			}
			if m.marked[object{kind, d}] {
				continue
			}
			g.Objects++
			var st unix.Stat_t
			if unix.Lstat(m.path(objectPath(kind, d)), &st) == nil {
				g.Bytes += uint64(st.Blocks) * 512
			}
			each(d)
		}
	}
	return nil
}
