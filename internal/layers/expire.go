package layers

import (
	"errors"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/layer"
	"dim/internal/replica"
)

// Expire removes what was set aside longer ago than the rules say, and snapshots that they no longer keep, from
// all replicas of a set. It returns how many entries of the saved area were removed.
func Expire(set *replica.Set, log *slog.Logger) (count int, err error) {
	var errs []error
	all := set.Replicas()
	for _, r := range all {
		n, err := Of(r).expire(log)
		count += n
		errs = append(errs, err, r.Sweep())
	}
	for _, r := range all {
		n, err := r.ExpireSnapshots()
		if n > 0 {
			log.Info("snapshots removed after their time", "replica", Of(r).home, "snapshots", n)
		}
		errs = append(errs, err)
	}
	return count, errors.Join(errs...)
}

func (l Layer) expire(log *slog.Logger) (int, error) {
	stamps, err := l.root.Stamps(l.home.Saved())
	if err != nil || len(stamps) == 0 {
		return 0, err
	}
	if err := l.countAges(stamps, l.r.Expiry()); err != nil {
		return 0, err
	}
	due, err := l.due(0)
	if err != nil || len(due) == 0 {
		return 0, err
	}
	saved, err := l.Saved()
	if err != nil {
		return 0, err
	}
	if err := l.forgetStamps(due); err != nil {
		return 0, err
	}
	count := 0
	for i := range saved {
		if slices.ContainsFunc(due, saved[i].Stamp.Equal) {
			count++
		}
	}
	if count > 0 {
		log.Info("set-aside copies removed after their time", "replica", l.home, "entries", count)
	}
	return count, nil
}

// forgetStamps removes all that was set aside at some stamps.
func (l Layer) forgetStamps(stamps []time.Time) error {
	f, err := l.forget()
	if err != nil {
		return err
	}
	area, err := l.root.OpenDir(l.home.Saved())
	if err != nil {
		return f.end(err)
	}
	defer unix.Close(area)
	for _, at := range stamps {
		if err := l.r.Fault("in expire"); err != nil {
			return f.end(err)
		}
		name := layer.StampName(at)
		if _, err := f.remove(area, name, layer.Home("").Saved(name)); err != nil && err != unix.ENOENT {
			return f.end(err)
		}
	}
	return f.end(nil)
}
