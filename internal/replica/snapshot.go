package replica

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/replica/commit"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// keeping is what a replica knows of its snapshots, so that a layer that has not changed since the last one costs a switch nothing.
type keeping struct {
	changes atomic.Uint64 // grows after each change of the layer
	kept    atomic.Uint64 // 1 more than changes was at the newest snapshot, or when there was nothing to keep; 0: not known
	newest  atomic.Int64  // the stamp of that snapshot; 0: there was nothing to keep

	missed atomic.Pointer[string] // why the last one could not be taken; nil: it was
}

// changed notes a change of the layer. It may come when the change is done, for no snapshot outlives the process in which it counts.
func (k *keeping) changed() { k.changes.Add(1) }

// unchanged takes back what was noted of a change that has not come about.
func (k *keeping) unchanged() { k.changes.Add(^uint64(0)) }

// current reports whether the newest snapshot shows the layer as it is.
func (k *keeping) current() bool {
	kept := k.kept.Load()
	return kept != 0 && kept == k.changes.Load()+1
}

// lost makes the next snapshot be taken in any case.
func (k *keeping) lost() { k.kept.Store(0) }

// taking is a snapshot on its way: the copy is there, under a name that a crash would leave as half made.
type taking struct {
	r       *Replica
	at      int64
	changes uint64 // as of which the copy is
	copied  uint64
}

// Where snapshots stand, from the replica's directory. Names that begin with "#" are half made, or half removed.
const (
	snapshotArea = "snapshots"
	halfMade     = "#new-"
	halfGone     = "#old-"
)

func (t *taking) name() string { return stampName(time.Unix(0, t.at)) }

// errNoRoom tells that a snapshot would take the last room that nodes have.
var errNoRoom = errors.New("the disk is nearly full")

// take copies the layer of r, which is locked. It returns nil when there is nothing to copy: the newest snapshot shows it already, or there
// neither is a layer nor was one. most bounds what is copied rather than shared.
func (r *Replica) take(why string, most uint64) (*taking, error) {
	changes := r.snaps.changes.Load()
	if r.snaps.current() || r.nothingToKeep() {
		return nil, nil
	}
	if err := r.set.roomy(); err != nil {
		return nil, err
	}
	t := &taking{r: r, at: r.set.journal.stamp(r.set.now()), changes: changes}
	if err := t.copy(why, most); err != nil {
		return nil, errors.Join(err, t.discard())
	}
	return t, nil
}

// nothingToKeep reports whether the layer is empty and no snapshot says otherwise.
func (r *Replica) nothingToKeep() bool {
	changes := r.snaps.changes.Load()
	for _, dir := range []string{"upper", snapshotArea} {
		fd, err := r.set.openBeneath(r.dir+"/"+dir, unix.O_PATH)
		if err == nil {
			unix.Close(fd)
		}
		if err != unix.ENOENT {
			return false
		}
	}
	r.snaps.newest.Store(0)
	r.snaps.kept.Store(changes + 1)
	return true
}

// roomLeast is how many bytes must be free for a snapshot, or a twentieth of the disk if that is less.
const roomLeast = 1 << 30

func (s *Set) roomy() error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(s.dir, &fs); err != nil {
		return err
	}
	free, least := fs.Bavail*uint64(fs.Bsize), min(roomLeast, fs.Blocks/20*uint64(fs.Bsize))
	if free < least {
		return fmt.Errorf("%w: %d MB free, less than %d MB", errNoRoom, free>>20, least>>20)
	}
	return nil
}

// copy makes the copy under its temporary name, with all that is told of it.
func (t *taking) copy(why string, most uint64) error {
	r, to := t.r, t.r.dir+"/"+snapshotArea+"/"+halfMade+t.name()
	fd, err := r.set.makePath(to)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	c := treeCopy{set: r.set, from: r.dir + "/upper", to: to, most: most}
	twin := r.newestTwin()
	defer twin.close()
	c.choose = twin.choose
	if err = c.run(); err == unix.ENOENT && !r.hasLayer() {
		err = r.emptyLayer(fd)
	}
	if err != nil {
		return err
	}
	t.copied = c.copied
	v := r.state.to
	for _, x := range []image.Xattr{
		{Name: xattrWhy, Value: []byte(why)},
		{Name: xattrOver, Value: overLine(v)},
		{Name: xattrWeight, Value: fmt.Appendf(nil, "%d %d %d", c.files, c.bytes, c.copied)},
	} {
		if err := unix.Fsetxattr(fd, x.Name, x.Value, 0); err != nil {
			return err
		}
	}
	return nil
}

// keepingTakes returns how many bytes a snapshot of the layer of r, which is locked, takes to copy where the disk cannot share them.
func (r *Replica) keepingTakes() (uint64, error) {
	if r.snaps.current() || !r.hasLayer() {
		return 0, nil
	}
	twin := r.newestTwin()
	defer twin.close()
	c := treeCopy{set: r.set, from: r.dir + "/upper", choose: twin.choose}
	err := c.run()
	return c.copied, err
}

// shares reports whether files of the disk can share blocks. Where that cannot be found out they cannot.
func (s *Set) shares() bool {
	var fds [2]int
	for i := range fds {
		fd, err := unix.Openat(s.dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return false
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	_, err := unix.Write(fds[0], make([]byte, quotaBlock))
	return err == nil && unix.IoctlFileClone(fds[1], fds[0]) == nil
}

// emptyLayer makes the open directory what the layer of a node is that has written nothing.
func (r *Replica) emptyLayer(fd int) error {
	var a vfs.Attr
	r.view.index.Attr(lower.Root, &a)
	if err := unix.Fchown(fd, int(a.UID), int(a.GID)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, a.Mode); err != nil {
		return err
	}
	return unix.Fsetxattr(fd, xattrID, idValue(image.RootID, nil), 0)
}

// discard removes what was made of a snapshot that did not come about.
func (t *taking) discard() error {
	dir, err := t.r.set.openBeneath(t.r.dir+"/"+snapshotArea, openDir)
	if err != nil || t.r.set.crash("in discard") != nil {
		return nil // it is removed at the next start
	}
	defer unix.Close(dir)
	return removeAll(dir, halfMade+t.name())
}

// settleCopies makes trees durable that treeCopy has made. One flush of the log is enough where nothing was copied: a clone's blocks are on
// disk before it is in the log.
func (s *Set) settleCopies(copied uint64) error {
	switch {
	case s.least == Relaxed:
		return nil
	case copied == 0 && s.commit.Ordered():
		return s.sync(commit.Changes{Others: true})
	}
	return unix.Syncfs(s.dir)
}

// publish gives the snapshot, which is on disk, its name. From now on it is one.
func (t *taking) publish() error {
	s := t.r.set
	if err := s.crash("before snapshot is named"); err != nil {
		return err
	}
	dir, err := s.openBeneath(t.r.dir+"/"+snapshotArea, openDir)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.Renameat(dir, halfMade+t.name(), dir, t.name()); err != nil {
		return err
	}
	if !s.orderly() {
		if err := fsync(dir); err != nil {
			return err
		}
	}
	t.r.snaps.missed.Store(nil)
	t.r.snaps.newest.Store(t.at)
	t.r.snaps.kept.Store(t.changes + 1)
	return s.crash("after snapshot is named")
}

// snapshot takes a snapshot of the layer of r, which is locked, and returns the stamp of the one that shows it now; 0 when there is nothing
// to keep.
func (r *Replica) snapshot(why string, most uint64) (at int64, err error) {
	t, err := r.take(why, most)
	if err == nil && t != nil {
		if err = r.set.settleCopies(t.copied); err == nil {
			err = t.publish()
		}
		if err != nil {
			err = errors.Join(err, t.discard())
		}
	}
	if err != nil {
		return 0, r.miss(err)
	}
	return r.snaps.newest.Load(), nil
}

// miss notes that a snapshot could not be taken.
func (r *Replica) miss(err error) error {
	text := err.Error()
	r.snaps.missed.Store(&text)
	return fmt.Errorf("snapshot of %s: %w", r.dir, err)
}

// SnapshotProblem tells why the last snapshot could not be taken; "" when it was.
func (r *Replica) SnapshotProblem() string {
	if text := r.snaps.missed.Load(); text != nil {
		return *text
	}
	return ""
}

// keepFirst takes the snapshot that the rule asks for before a change. Without one the change goes on: what it takes from the layer is set aside.
func (a *asider) keepFirst() {
	rule := a.r.rules.Snapshots
	if rule.Keep == 0 {
		return
	}
	if _, err := a.r.snapshot(a.why, rule.most()); err != nil {
		a.r.set.log.Warn("no snapshot was taken before a change", "replica", a.r.dir, "by", a.why, "error", err)
	}
}

// twin is the snapshot before, whose files are linked where the layer's are still the same: snapshots, unlike layers, never change.
type twin struct {
	set   *Set
	dir   string // "": there is none
	until int64  // of which files it can be told whether they are the same: what changed later may change again under the same ctime
	open  int    // the directory of path
	path  string
}

func (r *Replica) newestTwin() *twin {
	t := &twin{set: r.set, until: time.Now().Add(-clockTick).UnixNano(), open: -1}
	if stamps, err := r.stamps(snapshotArea); err == nil && len(stamps) > 0 {
		t.dir = r.dir + "/" + snapshotArea + "/" + stampName(stamps[0])
	}
	return t
}

func (t *twin) close() {
	if t.open >= 0 {
		unix.Close(t.open)
	}
	t.open = -1
}

// clockTick is more than the step in which any kernel's clock stamps files.
const clockTick = time.Second

// choose links a regular file when the earlier snapshot has it, and notes of what file the copy is.
func (t *twin) choose(e *treeEntry) (choice, error) {
	if vfs.TypeOf(e.st.Mode) != vfs.Regular || nanos(e.st.Ctim) > t.until {
		return choice{}, nil
	}
	of := originOf(&e.st)
	how := choice{dress: func(at string) error { return unix.Lsetxattr(at, xattrOf, of, 0) }}
	if t.dir == "" {
		return how, nil
	}
	if dir := parentPath(e.path); t.open < 0 || t.path != dir {
		t.close()
		fd, err := t.set.openBeneath(strings.TrimSuffix(t.dir+"/"+dir, "/"), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return how, nil
		}
		t.open, t.path = fd, dir
	}
	if v, err := getXattr(t.open, e.name, xattrOf, make([]byte, 64)); err == nil && bytes.Equal(v, of) {
		how.link = func(dir int, name string) error { return unix.Linkat(t.open, e.name, dir, name, 0) }
	}
	return how, nil
}

// originOf tells a state of a layer's file apart from every other: whatever changes it changes the ctime.
func originOf(st *unix.Stat_t) []byte {
	v := binary.BigEndian.AppendUint64(make([]byte, 0, 16), st.Ino)
	return binary.BigEndian.AppendUint64(v, uint64(nanos(st.Ctim)))
}
