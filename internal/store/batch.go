package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"dim/internal/durable"
	"dim/internal/image"
	"dim/internal/sysfile"
)

// Batch adds objects to the store. Others can read them once Commit has returned nil, not before. All objects of a
// batch are synced together, so many objects cost little more than a few.
//
// An object that the store has is read and compared, because its bytes may have been damaged since they were stored.
// Commit replaces it if they were, see Damaged.
//
// A Batch ends with Commit or Abort. Abort after Commit does nothing.
type Batch struct {
	s     *Store
	prune *Lock
	dir   *os.File // staging/NAME, locked as long as the batch lives
	fans  [2][256]fan
	temps atomic.Uint64

	unsynced atomic.Int64   // bytes written since the last writeback was started
	syncing  sync.WaitGroup // for the goroutines that write back

	buffers sync.Pool // of *[chunk]byte
	hashed  func(bytes uint64)
	noClone atomic.Bool // a clone has failed: the source is on another file system, or this one cannot clone

	mu      sync.Mutex
	staged  map[object]struct{}
	sound   map[object]struct{} // in the store, and not damaged
	damaged []Problem           // of the store's objects that are staged again
	bytes   uint64
	err     error // the first failure; Commit returns it
	ended   bool
}

type object struct {
	kind   string
	digest image.Digest
}

// fan is one directory of the fan-out, blobs/ab or trees/ab.
type fan struct {
	made    sync.Once // in the staging directory
	checked sync.Once
	absent  bool // the store had no such directory when the batch checked, so none of its objects either
}

func (b *Batch) fan(o object) *fan {
	if o.kind == treesDir {
		return &b.fans[1][o.digest[0]]
	}
	return &b.fans[0][o.digest[0]]
}

// has reports whether the store has o. It may miss an object that another batch is adding; the object is then written
// twice.
func (b *Batch) has(o object) bool {
	f := b.fan(o)
	f.checked.Do(func() {
		f.absent = unix.Faccessat(int(b.s.root.Fd()), fanout(o), unix.F_OK, unix.AT_SYMLINK_NOFOLLOW) != nil
	})
	return !f.absent && b.s.has(o)
}

var errEnded = errors.New("batch has ended")

// OnHashed lets f be called while PutFile hashes files, with the number of bytes that it has hashed since the last
// call, holes included. It is called before the first Put. F is called by many goroutines.
func (b *Batch) OnHashed(f func(bytes uint64)) { b.hashed = f }

// Begin starts a batch.
func (s *Store) Begin() (*Batch, error) { return s.begin("") }

func (s *Store) begin(prefix string) (*Batch, error) {
	prune, err := s.lock(pruneLock, unix.LOCK_SH)
	if err != nil {
		return nil, err
	}
	dir, err := s.makeStaging(prefix)
	if err != nil {
		prune.Unlock()
		return nil, fmt.Errorf("begin batch: %w", err)
	}
	return &Batch{s: s, prune: prune, dir: dir, staged: map[object]struct{}{}, sound: map[object]struct{}{},
		hashed: func(uint64) {}}, nil
}

// makeStaging makes a staging directory whose name has a prefix, and locks it. Between the two, removeAbandoned of
// another process may remove the directory; then it tries again.
func (s *Store) makeStaging(prefix string) (*os.File, error) {
	for range 100 {
		name, err := os.MkdirTemp(s.path(stagingDir), prefix+"*")
		if err != nil {
			return nil, err
		}
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		err = flock(f, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			if _, err = os.Lstat(name); err == nil {
				err = errors.Join(os.Mkdir(name+"/tmp", 0o700),
					os.Mkdir(name+"/"+blobsDir, 0o700), os.Mkdir(name+"/"+treesDir, 0o700))
				if err == nil {
					return f, nil
				}
			}
		}
		f.Close()
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, err
		}
	}
	return nil, errors.New("another process removes every new staging directory")
}

// PutBytes stores content as a blob.
func (b *Batch) PutBytes(content []byte) (image.Digest, error) {
	d := image.Sum(content)
	return d, b.put(object{blobsDir, d}, content)
}

// PutNamed stores content as the blob d. If it has another digest, the error is ErrMismatch, and nothing is stored.
func (b *Batch) PutNamed(d image.Digest, content []byte) error {
	if got := image.Sum(content); got != d {
		return fmt.Errorf("put blob %s: %w: its digest is %s", d, ErrMismatch, got)
	}
	return b.put(object{blobsDir, d}, content)
}

// PutTree stores a directory's tree.
func (b *Batch) PutTree(t image.Tree) (image.Digest, error) {
	enc, err := t.Encode()
	if err != nil {
		return image.Digest{}, err
	}
	d := image.Sum(enc)
	return d, b.put(object{treesDir, d}, enc)
}

// PutRoot stores the entry of a root directory. The digest is that of a version.
func (b *Batch) PutRoot(root image.Entry) (image.Digest, error) {
	enc, err := root.EncodeRoot()
	if err != nil {
		return image.Digest{}, err
	}
	d := image.Sum(enc)
	return d, b.put(object{treesDir, d}, enc)
}

func (b *Batch) put(o object, content []byte) error {
	return b.putWith(o, uint64(len(content)), func(fd int) error {
		b.written(uint64(len(content)))
		return sysfile.Write(fd, content)
	})
}

// putWith stores an object of size bytes, which fill writes, unless the store or the batch has it.
func (b *Batch) putWith(o object, size uint64, fill func(fd int) error) error {
	fresh, err := b.claim(context.Background(), o, size)
	if err != nil || !fresh {
		return err
	}
	if err := b.s.step("put"); err != nil {
		return b.fail(err)
	}
	if err := b.makeFanout(o); err != nil {
		return b.fail(err)
	}
	fd, err := b.create(objectPath(o.kind, o.digest))
	if err != nil {
		return b.fail(err)
	}
	err = fill(fd)
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return b.fail(&fs.PathError{Op: "write", Path: objectPath(o.kind, o.digest), Err: err})
	}
	b.count(size)
	return nil
}

// writeBehind is the number of bytes after which writeback is started. Without it, a file system with delayed
// allocation is idle while a capture reads and hashes, and does all its work when the batch commits.
const writeBehind = 64 << 20

// written counts bytes that were written, and starts writeback whenever writeBehind bytes have come together. A failure
// of writeback fails the batch, because the kernel reports it only once.
func (b *Batch) written(n uint64) {
	n = max(n, block)
	if now := b.unsynced.Add(int64(n)); now < writeBehind || now-int64(n) >= writeBehind {
		return
	}
	b.syncing.Go(func() {
		if err := unix.Syncfs(int(b.dir.Fd())); err != nil {
			_ = b.fail(os.NewSyscallError("syncfs", err))
		}
		b.unsynced.Store(0)
	})
}

// claim reports whether the caller has to write o, which has size bytes: it is neither in the store nor, by an earlier
// claim, in the batch, or the one in the store is damaged.
func (b *Batch) claim(ctx context.Context, o object, size uint64) (bool, error) {
	have := b.has(o)
	if done, err := b.done(o); done || err != nil {
		return false, err
	}
	var damage error
	if have {
		if damage = b.verify(ctx, o, size); ctx.Err() != nil {
			return false, ctx.Err()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.staged[o]; ok {
		return false, nil
	}
	if have && damage == nil {
		b.sound[o] = struct{}{}
		return false, nil
	}
	if damage != nil {
		b.damaged = append(b.damaged, Problem{objectPath(o.kind, o.digest), damage, o.digest})
	}
	b.staged[o] = struct{}{}
	return true, nil
}

// done reports whether a claim of o has been decided before.
func (b *Batch) done(o object) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return false, b.err
	}
	if b.ended {
		return false, errEnded
	}
	_, staged := b.staged[o]
	_, sound := b.sound[o]
	return staged || sound, nil
}

// verify returns the damage of an object in the store, which should have size bytes; nil: there is none.
func (b *Batch) verify(ctx context.Context, o object, size uint64) error {
	f, err := os.OpenFile(b.s.path(objectPath(o.kind, o.digest)), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !st.Mode().IsRegular() || uint64(st.Size()) != size:
		return fmt.Errorf("%w: %d bytes, not %d", errCorrupt, st.Size(), size)
	}
	w := b.newHashWriter(ctx, -1)
	w.room, w.hashed = nil, func(uint64) {}
	defer b.buffers.Put((*[chunk]byte)(w.buf))
	if err := w.file(int(f.Fd())); err != nil {
		return err
	}
	if got := w.content().Digest; got != o.digest {
		return fmt.Errorf("%w: its digest is %s", errCorrupt, got)
	}
	return nil
}

// Damaged returns the objects of the store whose bytes were damaged, and which Commit replaces or has replaced.
func (b *Batch) Damaged() []Problem {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.damaged)
}

func (b *Batch) fail(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
	return err
}

func (b *Batch) count(n uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes += n
}

// Staged returns how many objects the batch adds to the store, and their bytes.
func (b *Batch) Staged() (objects int, bytes uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.staged), b.bytes
}

func (b *Batch) makeFanout(o object) (err error) {
	b.fan(o).made.Do(func() {
		err = unix.Mkdirat(int(b.dir.Fd()), fanout(o), 0o700)
	})
	return err
}

func fanout(o object) string { return o.kind + "/" + o.digest.String()[:2] }

// create makes a file in the staging directory, if the disk has room.
func (b *Batch) create(name string) (fd int, err error) {
	if err := b.room(); err != nil {
		return -1, err
	}
	const flags = unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC | unix.O_NOFOLLOW
	err = sysfile.Retry(func() error {
		fd, err = unix.Openat(int(b.dir.Fd()), name, flags, 0o400)
		return err
	})
	if err != nil {
		return -1, &fs.PathError{Op: "create", Path: name, Err: err}
	}
	return fd, nil
}

// createTemp makes a file in the staging directory whose digest is not known yet.
func (b *Batch) createTemp() (fd int, name string, err error) {
	name = "tmp/" + strconv.FormatUint(b.temps.Add(1), 10)
	fd, err = b.create(name)
	return fd, name, err
}

// Abort drops everything that was put.
func (b *Batch) Abort() error {
	if !b.end() {
		return nil
	}
	b.syncing.Wait()
	return b.release()
}

// end marks the batch as ended. It reports false if it was already.
func (b *Batch) end() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	ended := b.ended
	b.ended = true
	return !ended
}

func (b *Batch) release() error {
	defer b.prune.Unlock()
	defer b.dir.Close()
	return os.RemoveAll(b.dir.Name())
}

// few is the largest number of objects that are synced one by one. For more, one syncfs is cheaper, although it also
// waits for what other processes wrote to the file system.
const few = 32

// Commit syncs the objects, renames them into the store, and syncs the names. After an error some objects may be
// in the store already, which does no harm. No Put may run at the same time.
func (b *Batch) Commit(ctx context.Context) error {
	if !b.end() {
		return errEnded
	}
	b.syncing.Wait()
	err := b.commit(ctx)
	return errors.Join(err, b.release())
}

func (b *Batch) commit(ctx context.Context) error {
	if b.err != nil {
		return b.err
	}
	if err := ctx.Err(); err != nil || len(b.staged) == 0 {
		return err
	}
	if err := b.s.step("sync objects"); err != nil {
		return err
	}
	if err := b.syncObjects(); err != nil {
		return fmt.Errorf("commit batch: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := b.publish(); err != nil {
		return fmt.Errorf("commit batch: %w", err)
	}
	if err := b.s.step("sync names"); err != nil {
		return err
	}
	if err := b.syncNames(); err != nil {
		return fmt.Errorf("commit batch: %w", err)
	}
	return b.s.step("committed")
}

func (b *Batch) syncObjects() error {
	if len(b.staged) > few {
		return unix.Syncfs(int(b.dir.Fd()))
	}
	var g errgroup.Group
	for o := range b.staged {
		g.Go(func() error { return syncFile(b.stagedPath(o)) })
	}
	return g.Wait()
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// publish renames the objects into the store, blobs before the trees that name them. A directory of the fan-out that
// the store does not have yet is renamed as a whole; this is the usual case of a first capture.
func (b *Batch) publish() error {
	var left []object
	whole := map[string]bool{}
	for _, kind := range []string{blobsDir, treesDir} {
		for o := range b.staged {
			if o.kind != kind {
				continue
			}
			dir := fanout(o)
			moved, tried := whole[dir]
			if !tried {
				if err := b.s.step("publish " + kind); err != nil {
					return err
				}
				err := os.Rename(b.dir.Name()+"/"+dir, b.s.path(dir))
				if err != nil && !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTEMPTY) {
					return err
				}
				moved = err == nil
				whole[dir] = moved
			}
			if !moved {
				left = append(left, o)
			}
		}
	}
	for _, o := range left {
		if err := b.s.step("publish object"); err != nil {
			return err
		}
		name := objectPath(o.kind, o.digest)
		if err := os.Rename(b.dir.Name()+"/"+name, b.s.path(name)); err != nil {
			return err
		}
	}
	return nil
}

func (b *Batch) syncNames() error {
	if len(b.staged) > few {
		return unix.Syncfs(int(b.dir.Fd()))
	}
	dirs := map[string]bool{blobsDir: true, treesDir: true}
	for o := range b.staged {
		dirs[fanout(o)] = true
	}
	var g errgroup.Group
	for dir := range dirs {
		g.Go(func() error { return durable.SyncDir(b.s.path(dir)) })
	}
	return g.Wait()
}
