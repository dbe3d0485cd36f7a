package layers

import (
	"errors"
	"log/slog"
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
		n, err := Of(r).expire(set.Expiry(), log)
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

func (l Layer) expire(now time.Time, log *slog.Logger) (int, error) {
	rules := l.r.Rules()
	before := rules.SavedBefore(now)
	stamps, err := l.root.Stamps(l.home.Saved())
	if err != nil || len(stamps) == 0 || !stamps[len(stamps)-1].Before(before) {
		return 0, err
	}
	list, err := l.Forget(ForgetOptions{Before: before, Dry: true})
	if err != nil {
		return 0, err
	}
	if err := l.forgetStamps(stamps, before); err != nil {
		return 0, err
	}
	if len(list) > 0 {
		log.Info("set-aside copies removed after their time", "replica", l.home, "entries", len(list))
	}
	return len(list), nil
}

// forgetStamps removes all that was set aside at a stamp before a time.
func (l Layer) forgetStamps(stamps []time.Time, before time.Time) error {
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
		if !at.Before(before) {
			continue
		}
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
