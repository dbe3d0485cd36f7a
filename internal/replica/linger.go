package replica

import (
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image/fileid"
	"dim/internal/replica/fds"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// Bounds of what lingers, for all replicas together.
const (
	lingerFor   = 15 * time.Second
	lingerFiles = 256
	lingerBytes = 256 << 20
)

// lingering keeps files that nodes have removed, or renamed another file over, for some seconds. NFSv3 has no
// open, so the server cannot know whether a process was just about to read such a file. Until its time is over
// it can be read by its handle, with a link count of 0.
//
// A file of a layer is kept by keeping it open, and only if it is open already, for then it was used lately.
// Nothing on disk tells of it, and a crash ends it. When the disk is full, or a quota used up, all files are
// given up at once.
type lingering struct {
	mu    sync.Mutex
	all   map[lingerKey]*lingerer
	queue []*lingerer // oldest first
	bytes int64
	lasts time.Duration // how long each file is kept; lingerFor except in tests
	timer *time.Timer
	ended bool
}

type lingerKey struct {
	tree Tree
	id   fileid.ID
}

// lingerer is one removed file: of a layer, or of a version or a node file. The bytes of the latter are kept in
// any case.
type lingerer struct {
	key   lingerKey
	obj   *object
	file  *fds.File
	gone  *goneEntry
	bytes int64
	until time.Time
}

// lingerObject keeps obj, whose last name was just removed, if it was used lately.
func (r *Replica) lingerObject(obj *object, bytes int64) {
	if obj.kind != vfs.Regular || bytes > lingerBytes {
		return
	}
	f, ok := r.openForWriting(obj)
	if !ok {
		return
	}
	obj.removed = true
	r.set.lingering.add(&lingerer{key: lingerKey{r.tree, obj.id}, obj: obj, file: f, bytes: bytes})
}

// openForWriting returns the file of obj if it is open. A file without a name that is open for reading alone is opened
// once more by the link in /proc.
func (r *Replica) openForWriting(obj *object) (*fds.File, bool) {
	f, ok := r.openFor(obj)
	if !ok || f.Key().Kind == keyFile {
		return f, ok
	}
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(f.FD), unix.O_RDWR|unix.O_NOATIME|unix.O_CLOEXEC, 0)
	if err != nil { // the disk is read-only
		return f, true
	}
	f.Release()
	return r.set.files.Put(r.key(keyFile, uint64(obj.id)), fd), true
}

// lingerShown keeps the version's file or the node file that shows at p and is about to be hidden.
func (r *Replica) lingerShown(p *dentry) {
	s, ok := p.vnode()
	if !ok || s.obj != nil || r.kind(s) != vfs.Regular {
		return
	}
	var a vfs.Attr
	if r.attr(s, &a) != nil {
		return
	}
	g := &goneEntry{
		id: r.id(s), kind: a.Type, path: r.path(s), mode: a.Mode, uid: a.UID, gid: a.GID, mtime: a.Mtime, size: a.Size,
		origin: r.origin(s), removed: true,
	}
	if s.file != nil {
		b, err := r.set.nodeFileContent(s.file)
		if err != nil {
			return
		}
		g.content = b
	}
	r.set.lingering.add(&lingerer{key: lingerKey{r.tree, g.id}, gone: g})
}

func (l *lingering) add(x *lingerer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = make(map[lingerKey]*lingerer)
	}
	x.until = time.Now().Add(l.lasts)
	l.all[x.key] = x
	l.queue = append(l.queue, x)
	l.bytes += x.bytes
	for len(l.queue) > lingerFiles || l.bytes > lingerBytes || l.ended {
		if len(l.queue) == 0 {
			return
		}
		l.popLocked()
	}
	if l.timer == nil {
		l.timer = time.AfterFunc(l.lasts, l.expire)
	}
}

// resize records the present size of obj, which lingers and is still written to.
func (l *lingering) resize(key lingerKey, obj *object, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.all[key]
	if x == nil || x.obj != obj {
		return
	}
	l.bytes += bytes - x.bytes
	x.bytes = bytes
	for l.bytes > lingerBytes && len(l.queue) > 0 {
		l.popLocked()
	}
}

func (l *lingering) popLocked() {
	x := l.queue[0]
	l.queue[0] = nil
	l.queue = l.queue[1:]
	l.bytes -= x.bytes
	if l.all[x.key] == x {
		delete(l.all, x.key)
	}
	if x.file != nil {
		x.file.Release()
	}
}

// expire gives up the files whose time is over.
func (l *lingering) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) > 0 && !time.Now().Before(l.queue[0].until) {
		l.popLocked()
	}
	if l.timer = nil; len(l.queue) > 0 {
		l.timer = time.AfterFunc(time.Until(l.queue[0].until), l.expire)
	}
}

// freeAll gives up all files, and reports whether that frees any room.
func (l *lingering) freeAll() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	some := l.bytes > 0
	for len(l.queue) > 0 {
		l.popLocked()
	}
	return some
}

// end is freeAll for the last time.
func (l *lingering) end() {
	l.mu.Lock()
	l.ended = true
	if l.timer != nil {
		l.timer.Stop()
	}
	l.mu.Unlock()
	l.freeAll()
}

func (l *lingering) room() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(l.bytes)
}

// find returns the file that lingers under an id.
func (l *lingering) find(t Tree, id fileid.ID) (vnode, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.all[lingerKey{t, id}]
	if x == nil {
		return vnode{}, false
	}
	return vnode{obj: x.obj, gone: x.gone, low: lower.None}, true
}

// file returns the open file of a removed object, to be released; ESTALE when its time is over.
func (l *lingering) file(t Tree, o *object) (*fds.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.all[lingerKey{t, o.id}]
	if x == nil || x.obj != o {
		return nil, vfs.ESTALE
	}
	x.file.Acquire()
	return x.file, nil
}

// withRoom runs do. If there was no room it frees what lingers, and runs do once more.
func (r *Replica) withRoom(do func() error) error {
	err := do()
	if noRoom(err) && r.set.lingering.freeAll() {
		err = do()
	}
	return err
}

// noRoom reports whether err says that the disk is full, or that the file system's own quota is used up.
func noRoom(err error) bool {
	err = vfs.ErrnoOf(err)
	return err == vfs.ENOSPC || err == vfs.EDQUOT
}

// removed reports whether s exists only because it lingers.
func (s *vnode) removed() bool {
	return s.gone != nil && s.gone.removed || s.obj != nil && s.obj.removed
}
