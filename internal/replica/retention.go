package replica

import (
	"errors"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/layer"
)

// addOver records that the newest snapshot shows the layer as it was over v too.
func (r *Replica) addOver(v *image.Version) error {
	at := r.snaps.newest.Load()
	if at == 0 {
		return nil
	}
	fd, err := r.set.root.OpenDir(r.dir.Snapshots(stampName(at)))
	if err != nil {
		r.snaps.lost()
		return err
	}
	defer unix.Close(fd)
	return layer.At(fd, ".").AddOver(v)
}

// retireSnapshots renames the snapshots of r that its rule no longer keeps, so that Sweep removes them.
func (r *Replica) retireSnapshots(now time.Time) (count int, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	stamps, err := r.set.root.Stamps(r.dir.Snapshots())
	if err != nil || len(stamps) == 0 {
		return 0, err
	}
	dir, err := r.set.root.OpenDir(r.dir.Snapshots())
	if err != nil {
		return 0, err
	}
	defer unix.Close(dir)
	for i, at := range stamps {
		if !at.Before(r.rules.SnapshotsBefore(now)) && (r.rules.Snapshots == 0 || i < r.rules.Snapshots) {
			continue
		}
		if at.UnixNano() == r.snaps.newest.Load() {
			r.snaps.lost()
		}
		name := layer.StampName(at)
		if err := unix.Renameat(dir, name, dir, oldSnapshot+name); err != nil && err != unix.ENOENT {
			return count, err
		}
		count++
	}
	return count, nil
}

// retireUnfinished renames snapshots that a crash has left unfinished. No snapshot of r is taken meanwhile.
func (r *Replica) retireUnfinished() error {
	dir, err := r.set.root.OpenDir(r.dir.Snapshots())
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	names, err := layer.Dir(dir).Names()
	for _, name := range names {
		if stamp, is := strings.CutPrefix(name, newSnapshot); is && err == nil {
			err = unix.Renameat(dir, name, dir, oldSnapshot+stamp)
		}
	}
	return err
}

// discarded begins the names in the saved area of entries that are to be removed.
const discarded = "#gone-"

// Sweep removes the snapshots and set-aside entries that were renamed to be removed, by this process or before
// a crash. Calls of the node do not wait.
func (r *Replica) Sweep() error {
	return errors.Join(r.sweepArea(r.dir.Snapshots(), oldSnapshot), r.sweepArea(r.dir.Saved(), discarded))
}

func (r *Replica) sweepSnapshots() error { return r.sweepArea(r.dir.Snapshots(), oldSnapshot) }

// sweepArea removes all from area whose name begins with mark.
func (r *Replica) sweepArea(area, mark string) error {
	r.sweeping.Lock()
	defer r.sweeping.Unlock()
	dir, err := r.set.root.OpenDir(area)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	names, err := layer.Dir(dir).Names()
	errs := []error{err}
	for _, name := range names {
		if !strings.HasPrefix(name, mark) {
			continue
		}
		if err := r.set.failAt("in sweep"); err != nil {
			return err
		}
		errs = append(errs, layer.Dir(dir).RemoveAll(name))
	}
	return errors.Join(errs...)
}

// ThinSnapshots removes the snapshots of r that its rules no longer keep.
func (r *Replica) ThinSnapshots() error {
	count, err := r.retireSnapshots(r.set.expiry())
	if count > 0 && err == nil {
		err = r.sweepSnapshots()
	}
	return err
}

// ExpireSnapshots is ThinSnapshots, and removes what a crash has left of snapshots too.
func (r *Replica) ExpireSnapshots() (count int, err error) {
	r.set.switching.Lock()
	r.mu.RLock()
	unfinished := r.retireUnfinished()
	r.mu.RUnlock()
	r.set.switching.Unlock()
	count, err = r.retireSnapshots(r.set.expiry())
	return count, errors.Join(unfinished, err, r.sweepSnapshots())
}
