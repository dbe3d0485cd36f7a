package capture

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/pathmatch"
	"dim/internal/periodic"
	"dim/internal/store"
	"dim/internal/sysfile"
)

// scan is one walk over a master.
type scan struct {
	store *store.Store
	o     *Options
	batch *store.Batch
	old   *notes // of the previous capture, or nil
	start time.Time

	touched *touch // where the master may differ from old; nil: anywhere
	partial bool   // only touched is read

	dev  device
	fsid uint64
	own  []fileID

	seenFiles, seenBytes atomic.Uint64
	filesRead, bytesRead atomic.Uint64
	changed              atomic.Bool // an entry differs from the notes
	linksChanged         atomic.Bool // a file with several names differs in a partial scan

	mu       sync.Mutex
	problems []Problem
	groups   map[fileID]*group
}

// fileID identifies an inode.
type fileID struct {
	devMajor, devMinor uint32
	ino                uint64
}

func (s *stamp) id() fileID { return fileID{s.devMajor, s.devMinor, s.ino} }

// dir is a directory of the walk.
type dir struct {
	parent *dir
	name   string
	at     int // index of its item in the parent, or of its note if the parent is same
	stamp  stamp
	known  bool          // the stamp is that of the note, so the attributes are the old ones
	xattrs []image.Xattr // if not known
	note   *dirNote      // of the directory that had this path, or nil
	noted  *dirNote      // for the next capture, set when the tree is built
	match  pathmatch.Matcher
	gone   bool

	touch    *touch // where it may have changed; nil: nowhere
	deep     bool   // everything below is read
	listed   bool   // all of its names are read
	unlisted bool   // only the children on the way to touched directories were visited

	fd   int
	refs atomic.Int32 // tasks that still need fd

	same     bool   // every name has the stamp of its note
	items    []item // in the order of the listing; nil if same
	children []*dir
	tree     image.Digest
	bytes    uint64 // of its regular files that are in no group
}

// item is a name in a directory that is not same.
type item struct {
	name  string
	stamp stamp
	note  int // index in dir.note of the note with this stamp; -1: there is none, and the entry is read
	entry image.Entry
	child *dir
	group *group
	gone  bool
}

// group is a file with several names.
type group struct {
	mu      sync.Mutex
	members []member
	fresh   *image.Entry // set when the file was read
	stamp   stamp

	first string // set by assemble
	count uint32
}

type member struct {
	d  *dir
	at int // index of its item, or of its note if d is same
}

func (d *dir) path() string {
	if d.parent == nil {
		return ""
	}
	return image.JoinPath(d.parent.path(), d.name)
}

// pathLen returns the length of what the paths of the names in d begin with, in bytes.
func (d *dir) pathLen() (n int) {
	for ; d.parent != nil; d = d.parent {
		n += len(d.name) + 1
	}
	return n
}

// clockGrain is longer than two changes with the same ctime can be apart on any file system, even if the clock of a
// file server is a little behind.
const clockGrain = 2 * time.Second

func newScan(s *store.Store, o *Options, batch *store.Batch, old *notes) *scan {
	return &scan{store: s, o: o, batch: batch, old: old, start: o.Now(), groups: map[fileID]*group{}}
}

// scan walks the master and reads the entries that differ from the notes.
func (c *scan) scan(ctx context.Context) (*dir, error) {
	root, err := c.openRoot()
	if err != nil {
		return nil, err
	}
	p := newPool()
	p.push(task{d: root})
	var wg sync.WaitGroup
	for range c.o.Workers {
		wg.Go(func() {
			w := &worker{scan: c, pool: p, ctx: ctx, buf: make([]byte, 64<<10)}
			p.work(func(t task) error {
				if err := ctx.Err(); err != nil {
					t.drop()
					return err
				}
				return w.do(t)
			})
		})
	}
	wg.Wait()
	for _, t := range p.stack {
		t.drop()
	}
	return root, p.err
}

func (c *scan) openRoot() (*dir, error) {
	fd, err := unix.Open(c.o.Dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	root := &dir{fd: fd, match: c.o.Exclude.Matcher(), listed: true}
	if err := c.identify(root); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return root, nil
}

// identify determines the device and the file system of the master. It drops the notes if they are about another
// directory.
func (c *scan) identify(root *dir) error {
	var x unix.Statx_t
	if err := statxFD(root.fd, &x); err != nil {
		return err
	}
	c.dev = device{major: x.Dev_major, minor: x.Dev_minor}
	if x.Mask&unix.STATX_MNT_ID != 0 {
		c.dev.mount = x.Mnt_id
	}
	root.stamp = c.dev.stamp(&x)
	var err error
	if root.xattrs, err = readXattrs(fdXattrs(root.fd)); err != nil {
		return err
	}
	if err := unix.Access(sysfile.ProcPath(root.fd, "."), unix.F_OK); err != nil {
		return fmt.Errorf("find directories in /proc/self/fd: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(root.fd, &fs); err != nil {
		return err
	}
	c.fsid, c.dev.btrfs = fileSystemID(&fs, &x), fs.Type == unix.BTRFS_SUPER_MAGIC
	if c.old != nil && (c.old.fsid != c.fsid || c.old.rootIno != x.Ino) {
		c.old = nil
	}
	if c.old != nil {
		root.note = c.old.root
	}
	c.partial = c.old != nil && c.touched != nil
	root.deep, root.touch = !c.partial || c.touched.is(touchedTree), c.touched
	for _, own := range append([]string{c.store.Dir(), c.o.CacheDir}, c.o.Own...) {
		if own == "" || unix.Statx(unix.AT_FDCWD, own, 0, statxMask, &x) != nil {
			continue
		}
		s := c.dev.stamp(&x)
		c.own = append(c.own, s.id())
	}
	return nil
}

// checkRoot checks that the path of the master still leads to the same directory. If the master was removed or
// unmounted during the scan, the entries that had not been listed looked like removed ones.
func (c *scan) checkRoot(root *dir) error {
	var x unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, c.o.Dir, 0, statxMask, &x); err != nil {
		return fmt.Errorf("the master went away: %w", err)
	}
	if s := c.dev.stamp(&x); s.id() != root.stamp.id() || s.flags != root.stamp.flags {
		return errors.New("the master went away: its path leads to another directory")
	}
	return nil
}

// fileSystemID identifies the file system of the master. The result is the same after a reboot if the file system
// supports that.
func fileSystemID(fs *unix.Statfs_t, x *unix.Statx_t) uint64 {
	id := uint64(uint32(fs.Fsid.Val[0]))<<32 | uint64(uint32(fs.Fsid.Val[1]))
	if id == 0 {
		id = unix.Mkdev(x.Dev_major, x.Dev_minor)
	}
	return id ^ uint64(fs.Type)
}

func (c *scan) rootEntry(root *dir) image.Entry {
	e := root.stamp.entry("")
	e.Digest, e.Xattrs = root.tree, root.xattrs
	return e
}

func (c *scan) report(p Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = append(c.problems, p)
}

// reportError reports why path cannot be captured.
func (c *scan) reportError(path string, err error) {
	if isGone(err) {
		c.report(Problem{Path: path, Kind: Vanished})
		return
	}
	c.report(Problem{Path: path, Kind: Unreadable, Err: err})
}

// reportProgress calls Options.Progress until stop, which calls it once more.
func (c *scan) reportProgress() (stop func()) {
	var total Progress
	if c.old != nil {
		total.TotalFiles, total.TotalBytes = c.old.files(), c.old.bytes()
	}
	return reportOften(c.o.Progress, func() Progress {
		p := total
		p.Files, p.Bytes = c.seenFiles.Load(), c.seenBytes.Load()
		return p
	})
}

const reportEvery = 100 * time.Millisecond

// reportOften calls report, if it is not nil, at intervals from one goroutine. Stop ends that and calls report once
// more.
func reportOften(report func(Progress), current func() Progress) (stop func()) {
	if report == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = periodic.Run(ctx, reportEvery, func(context.Context) { report(current()) })
		report(current())
	})
	return func() { cancel(); wg.Wait() }
}

// release closes the descriptor of d when no task needs it any more.
func (d *dir) release() {
	if d.refs.Add(-1) <= 0 {
		unix.Close(d.fd)
	}
}

// task is a directory to list, or items of a directory to read.
type task struct {
	d        *dir
	from, to int // items to read; to 0: list the directory
}

// drop releases the descriptors that the task needs.
func (t task) drop() {
	switch {
	case t.to > 0:
		t.d.release()
	case t.d.parent != nil:
		t.d.parent.release()
	default:
		unix.Close(t.d.fd)
	}
}

// pool gives tasks to workers, the newest first. So few directories are open at a time, as in a depth-first walk.
type pool struct {
	mu     sync.Mutex
	wake   *sync.Cond
	stack  []task
	active int
	err    error
}

func newPool() *pool {
	p := &pool{}
	p.wake = sync.NewCond(&p.mu)
	return p
}

func (p *pool) push(ts ...task) {
	p.mu.Lock()
	p.stack = append(p.stack, ts...)
	p.mu.Unlock()
	if len(ts) == 1 {
		p.wake.Signal()
	} else {
		p.wake.Broadcast()
	}
}

// work does tasks until there are none and no running task can add one, or until a task fails.
func (p *pool) work(do func(task) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for len(p.stack) == 0 && p.active > 0 && p.err == nil {
			p.wake.Wait()
		}
		if p.err != nil || len(p.stack) == 0 {
			p.wake.Broadcast()
			return
		}
		t := p.stack[len(p.stack)-1]
		p.stack = p.stack[:len(p.stack)-1]
		p.active++
		p.mu.Unlock()
		err := do(t)
		p.mu.Lock()
		p.active--
		if err != nil && p.err == nil {
			p.err = err
		}
	}
}
