package replica

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/layer"
	"dim/internal/replica/commit"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// snapshotState is what a replica knows of its snapshots. With it a switch need not read a layer that has not
// changed since the last snapshot.
type snapshotState struct {
	changes atomic.Uint64 // grows after each change of the layer
	kept    atomic.Uint64 // 1 + changes at the newest snapshot, or when there was nothing to keep; 0: not known
	newest  atomic.Int64  // the stamp of that snapshot; 0: there was nothing to keep

	missed atomic.Pointer[string] // why the last one could not be taken; nil: it was
}

// changed counts a change of the layer. It may be called after the change: no snapshot outlives the process in
// which it counts.
func (k *snapshotState) changed() { k.changes.Add(1) }

// unchanged takes back one call of changed, for a change that was not made.
func (k *snapshotState) unchanged() { k.changes.Add(^uint64(0)) }

// current reports whether the newest snapshot shows the layer as it is.
func (k *snapshotState) current() bool {
	kept := k.kept.Load()
	return kept != 0 && kept == k.changes.Load()+1
}

// lost makes the next snapshot be taken whether the layer has changed or not.
func (k *snapshotState) lost() { k.kept.Store(0) }

// snapshot is a snapshot that is being made: the copy exists under a temporary name.
type snapshot struct {
	r       *Replica
	at      int64
	changes uint64 // as of which the copy is
	copied  uint64
}

// The names of snapshots that are being made, or removed, begin with these.
const (
	newSnapshot = "#new-"
	oldSnapshot = "#old-"
)

func stampName(at int64) string { return layer.StampName(time.Unix(0, at)) }

func (t *snapshot) name() string { return stampName(t.at) }

// errNoRoom tells that a snapshot would leave nodes too little room.
var errNoRoom = errors.New("the disk is nearly full")

// copySnapshot copies the layer of r, which is locked. It returns nil if there is nothing to copy: the newest
// snapshot shows the layer already, or there is no layer and was none. limit bounds what is copied rather than
// shared.
func (r *Replica) copySnapshot(why string, limit uint64) (*snapshot, error) {
	changes := r.snaps.changes.Load()
	if r.snaps.current() || r.nothingToKeep() {
		return nil, nil
	}
	if err := r.set.checkRoom(); err != nil {
		return nil, err
	}
	t := &snapshot{r: r, at: r.set.journal.stamp(r.set.now()), changes: changes}
	if err := t.copy(why, limit); err != nil {
		return nil, errors.Join(err, t.discard())
	}
	return t, nil
}

// nothingToKeep reports whether there is neither a layer nor a snapshot.
func (r *Replica) nothingToKeep() bool {
	changes := r.snaps.changes.Load()
	for _, dir := range []string{r.dir.Upper(""), r.dir.Snapshots()} {
		if there, err := r.set.root.Exists(dir); there || err != nil {
			return false
		}
	}
	r.snaps.newest.Store(0)
	r.snaps.kept.Store(changes + 1)
	return true
}

// roomLeast is how many bytes must be free for a snapshot, or a twentieth of the disk if that is less.
const roomLeast = 1 << 30

func (s *Set) checkRoom() error {
	_, err := s.spareRoom()
	return err
}

// copy makes the copy under its temporary name, with its description.
func (t *snapshot) copy(why string, limit uint64) error {
	r, to := t.r, t.r.dir.Snapshots(newSnapshot+t.name())
	fd, err := r.set.makePath(to)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	c := layer.Copy{Root: r.set.root, From: r.dir.Upper(""), To: to, Limit: limit, Fault: r.set.failAt}
	last := r.lastSnapshot()
	defer last.close()
	c.Choose = last.choose
	if err = c.Run(); err == unix.ENOENT && !r.hasLayer() {
		err = r.emptyLayer(fd)
	}
	if err != nil {
		return err
	}
	t.copied = c.Copied
	return layer.At(fd, "").SetSnapshotInfo(&layer.SnapshotInfo{
		Over: []image.Version{*r.state.to}, Why: why, Files: c.Files, Bytes: c.Bytes, Copied: c.Copied,
	})
}

// SnapshotCost returns how many bytes a snapshot of the layer takes to copy if the disk cannot share them.
func (e *Edit) SnapshotCost() (uint64, error) {
	r := e.r
	if r.snaps.current() || !r.hasLayer() {
		return 0, nil
	}
	last := r.lastSnapshot()
	defer last.close()
	c := layer.Copy{Root: r.set.root, From: r.dir.Upper(""), Choose: last.choose, Fault: r.set.failAt}
	err := c.Run()
	return c.Copied, err
}

// SharesBlocks reports whether files of the disk can share blocks. It returns false if that cannot be
// determined.
func (e *Edit) SharesBlocks() bool { return e.r.set.sharesBlocks() }

func (s *Set) sharesBlocks() bool {
	var fds [2]int
	for i := range fds {
		fd, err := unix.Openat(int(s.root), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return false
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	_, err := unix.Write(fds[0], make([]byte, quotaBlock))
	return err == nil && unix.IoctlFileClone(fds[1], fds[0]) == nil
}

// emptyLayer gives the open directory the attributes of an empty layer's top.
func (r *Replica) emptyLayer(fd int) error {
	var a vfs.Attr
	r.view.index.Attr(lower.Root, &a)
	if err := unix.Fchown(fd, int(a.UID), int(a.GID)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, a.Mode); err != nil {
		return err
	}
	return layer.At(fd, "").SetID(fileid.Root, nil)
}

// discard removes a snapshot that was not completed.
func (t *snapshot) discard() error {
	dir, err := t.r.set.root.OpenDir(t.r.dir.Snapshots())
	if err != nil || t.r.set.failAt("in discard") != nil {
		return nil // it is removed at the next start
	}
	defer unix.Close(dir)
	return layer.Dir(dir).RemoveAll(newSnapshot + t.name())
}

// syncCopies makes copies of layers durable. copied is how many bytes could not be shared. If it is 0 one flush
// of the log is enough: a clone's blocks are on disk before it is in the log.
func (s *Set) syncCopies(copied uint64) error {
	switch {
	case s.least == Relaxed:
		return nil
	case copied == 0 && s.commit.Ordered():
		return s.sync(commit.Changes{Others: true})
	}
	return unix.Syncfs(int(s.root))
}

// publish gives the snapshot, which is on disk, its name. From now on it is one.
func (t *snapshot) publish() error {
	s := t.r.set
	if err := s.failAt("before snapshot is named"); err != nil {
		return err
	}
	dir, err := s.root.OpenDir(t.r.dir.Snapshots())
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := unix.Renameat(dir, newSnapshot+t.name(), dir, t.name()); err != nil {
		return err
	}
	if !s.orderly() {
		if err := layer.Dir(dir).Fsync(); err != nil {
			return err
		}
	}
	t.r.snaps.missed.Store(nil)
	t.r.snaps.newest.Store(t.at)
	t.r.snaps.kept.Store(t.changes + 1)
	return s.failAt("after snapshot is named")
}

// takeSnapshot takes a snapshot of the layer of r, which is locked. It returns the stamp of the snapshot that
// shows the layer now; 0 if there is nothing to keep.
func (r *Replica) takeSnapshot(why string, limit uint64) (at int64, err error) {
	t, err := r.copySnapshot(why, limit)
	if err == nil && t != nil {
		if err = r.set.syncCopies(t.copied); err == nil {
			err = t.publish()
		}
		if err != nil {
			err = errors.Join(err, t.discard())
		}
	}
	if err != nil {
		return 0, r.snapshotFailed(err)
	}
	return r.snaps.newest.Load(), nil
}

// snapshotFailed records why a snapshot could not be taken.
func (r *Replica) snapshotFailed(err error) error {
	text := err.Error()
	r.snaps.missed.Store(&text)
	return fmt.Errorf("snapshot of %s: %w", r.dir, err)
}

// SnapshotProblem returns why the last snapshot could not be taken; "" if it was taken.
func (r *Replica) SnapshotProblem() string {
	if text := r.snaps.missed.Load(); text != nil {
		return *text
	}
	return ""
}

// lastSnapshot is the newest snapshot. Its files are linked to the next one if the layer's are still the same:
// snapshots, unlike layers, never change.
type lastSnapshot struct {
	root  layer.Dir
	dir   string // "": there is none
	until int64  // files that changed later are not compared: they may change again under the same ctime
	open  int    // the directory of path
	path  string
}

func (r *Replica) lastSnapshot() *lastSnapshot {
	t := &lastSnapshot{root: r.set.root, until: time.Now().Add(-clockTick).UnixNano(), open: -1}
	if stamps, err := r.set.root.Stamps(r.dir.Snapshots()); err == nil && len(stamps) > 0 {
		t.dir = r.dir.Snapshots(layer.StampName(stamps[0]))
	}
	return t
}

func (t *lastSnapshot) close() {
	if t.open >= 0 {
		unix.Close(t.open)
	}
	t.open = -1
}

// clockTick is more than the step in which any kernel's clock stamps files.
const clockTick = time.Second

// choose links a regular file if the earlier snapshot has it, and records of what file the copy is.
func (t *lastSnapshot) choose(e *layer.CopyEntry) (layer.Choice, error) {
	if vfs.TypeOf(e.Stat.Mode) != vfs.Regular || nanos(e.Stat.Ctim) > t.until {
		return layer.Choice{}, nil
	}
	st := e.Stat
	how := layer.Choice{Adapt: func(to layer.Entry) error { return to.SetCopyOf(&st) }}
	if t.dir == "" {
		return how, nil
	}
	if dir := parentPath(e.At); t.open < 0 || t.path != dir {
		t.close()
		fd, err := t.root.Open(strings.TrimSuffix(t.dir+"/"+dir, "/"), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return how, nil
		}
		t.open, t.path = fd, dir
	}
	if layer.At(t.open, e.Name).CopyOf(&st) {
		how.Link = func(dir int, name string) error { return unix.Linkat(t.open, e.Name, dir, name, 0) }
	}
	return how, nil
}
