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
	"dim/internal/store"
)

// scan is one walk over a master.
type scan struct {
	store *store.Store
	o     *Options
	batch *store.Batch
	old   *notes // nil: nothing is known
	start time.Time

	touched *touch // what may differ from old; nil: anything
	partial bool   // only that is looked at

	dev  device
	fsid uint64
	own  []fileID

	seenFiles, seenBytes atomic.Uint64
	filesRead, bytesRead atomic.Uint64
	renote               atomic.Bool // something was not as noted
	relink               atomic.Bool // a file with several names was not, and not all was looked at

	mu       sync.Mutex
	problems []Problem
	groups   map[fileID]*group
}

// fileID tells inodes apart.
type fileID struct {
	devMajor, devMinor uint32
	ino                uint64
}

func (s *stamp) id() fileID { return fileID{s.devMajor, s.devMinor, s.ino} }

// dir is a directory of the walk.
type dir struct {
	parent *dir
	name   string
	at     int // its item in the parent, or its note there when the parent is same
	stamp  stamp
	known  bool          // the stamp is the one noted: the attributes are the old ones
	xattrs []image.Xattr // when not known
	note   *dirNote      // of the directory that had this path; nil: there was none
	noted  *dirNote      // for the next capture, once it is built
	match  pathmatch.Matcher
	gone   bool

	touch  *touch // what was touched in it; nil: nothing
	deep   bool   // everything below is looked at
	listed bool   // all of its names are
	passed bool   // they were not: only the way led through it

	fd   int
	refs atomic.Int32 // who still needs fd

	same     bool   // every name is there with the stamp that was noted
	items    []item // in the order of the listing; nil when same
	children []*dir
	tree     image.Digest
	bytes    uint64 // of its regular files that are in no group
}

// item is a name in a directory that is not same.
type item struct {
	name  string
	stamp stamp
	note  int // where in dir.note it was noted with this stamp; -1: it was read anew, entry has it
	entry image.Entry
	child *dir
	group *group
	gone  bool
}

// group is a file with several names.
type group struct {
	mu      sync.Mutex
	members []member
	fresh   *image.Entry // set when it was read anew
	stamp   stamp

	first string // set by assemble
	count uint32
}

type member struct {
	d  *dir
	at int // its item, or its note when d is same
}

func (d *dir) path() string {
	if d.parent == nil {
		return ""
	}
	return image.JoinPath(d.parent.path(), d.name)
}

// clockGrain is how far apart two changes must be to have different ctimes on the coarsest file system we care for, and
// leaves room for a file server whose clock is a little behind.
const clockGrain = 2 * time.Second

func newScan(s *store.Store, o *Options, batch *store.Batch, old *notes) *scan {
	return &scan{store: s, o: o, batch: batch, old: old, start: o.Now(), groups: map[fileID]*group{}}
}

// scan walks the master and reads what differs.
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

// identify finds out where the master is, and whether the notes are about it.
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
	if err := unix.Access(procPath(root.fd, "."), unix.F_OK); err != nil {
		return fmt.Errorf("find directories in /proc/self/fd: %w", err)
	}
	if c.fsid, err = fileSystemID(root.fd, &x); err != nil {
		return err
	}
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

// stillThere makes sure that the master is where it was: of one that was removed or unmounted on the way, all that had not been listed yet
// looks as if it had vanished.
func (c *scan) stillThere(root *dir) error {
	var x unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, c.o.Dir, 0, statxMask, &x); err != nil {
		return fmt.Errorf("the master went away: %w", err)
	}
	if now := c.dev.stamp(&x); now.id() != root.stamp.id() || now.flags != root.stamp.flags {
		return errors.New("the master went away: its path leads to another directory")
	}
	return nil
}

// fileSystemID returns what tells the master's file system from others, and survives a reboot if the file system can.
func fileSystemID(fd int, x *unix.Statx_t) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return 0, err
	}
	id := uint64(uint32(fs.Fsid.Val[0]))<<32 | uint64(uint32(fs.Fsid.Val[1]))
	if id == 0 {
		id = unix.Mkdev(x.Dev_major, x.Dev_minor)
	}
	return id ^ uint64(fs.Type), nil
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

// fault notes why path cannot be captured.
func (c *scan) fault(path string, err error) {
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
	return everyNowAndThen(func() {
		p := total
		p.Files, p.Bytes = c.seenFiles.Load(), c.seenBytes.Load()
		c.o.Progress(p)
	}, c.o.Progress != nil)
}

// everyNowAndThen calls report from one goroutine until stop, which calls it once more; but never if nobody listens.
func everyNowAndThen(report func(), listens bool) (stop func()) {
	if !listens {
		return func() {}
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				report()
			case <-done:
				report()
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// release lets go of d's descriptor.
func (d *dir) release() {
	if d.refs.Add(-1) <= 0 {
		unix.Close(d.fd)
	}
}

// task is a directory to list, or items of it to read.
type task struct {
	d        *dir
	from, to int // to 0: list
}

// drop gives up what the task holds.
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

// pool hands tasks to workers, the last first: it keeps few directories open, as a walk in depth does.
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

// work does tasks until there are none and nobody can add one, or one has failed.
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
