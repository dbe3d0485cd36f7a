package layers

import (
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/layer"
)

// What was set aside is removed by its age, which is the time since its stamp. A stamp that was made while the
// server's clock was ahead is in the future once the clock is right: stamps must grow, so it cannot be corrected. The
// age of such a stamp is counted instead, from one expiry to the next, and kept beside it.

// countedMost bounds how much one expiry adds to a counted age, whatever the clock has done since the last one.
const countedMost = 48 * time.Hour

// countAges adds the time since the last expiry to the ages of the stamps that are later than now.
func (l Layer) countAges(stamps []time.Time, now time.Time) error {
	for _, at := range stamps {
		if !at.After(now) {
			continue
		}
		fd, err := l.root.OpenDir(l.home.Saved(layer.StampName(at)))
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return err
		}
		last, age := layer.At(fd, "").CountedAge()
		if !last.IsZero() {
			age += min(max(now.Sub(last), 0), countedMost)
		}
		err = layer.At(fd, "").SetCountedAge(now, age)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// age returns how old what was set aside at a stamp is now.
func (l Layer) age(at, now time.Time) time.Duration {
	if !at.After(now) {
		return now.Sub(at)
	}
	fd, err := l.root.OpenDir(l.home.Saved(layer.StampName(at)))
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	_, age := layer.At(fd, "").CountedAge()
	return age
}

// Expires returns when what was set aside at a stamp is removed.
func (l Layer) Expires(at time.Time) time.Time {
	now, rules := l.r.Expiry(), l.r.Rules()
	return now.Add(now.Sub(rules.SavedBefore(now)) - l.age(at, now))
}

// due returns the stamps of what is removed if an expiry comes after a time, the latest first.
func (l Layer) due(after time.Duration) ([]time.Time, error) {
	now, rules := l.r.Expiry(), l.r.Rules()
	stamps, err := l.root.Stamps(l.home.Saved())
	var due []time.Time
	for _, at := range stamps {
		if err == nil && l.age(at, now)+after > now.Sub(rules.SavedBefore(now)) {
			due = append(due, at)
		}
	}
	return due, err
}
