package fleet

import (
	"fmt"
	"slices"
	"time"

	"dim/internal/cluster"
)

// Two machines can have the identity of one server: the disk of one was copied. Their reports come by turns, which
// those of one machine do not, also if it is restarted.

// maxOrigins bounds the processes that are known of one server.
const maxOrigins = 4

// origin is a process that reports as a server.
type origin struct {
	start       string    // Report.Start
	started     time.Time // by its own clock
	address     string    // that its last report came from
	marks       [2]string // of its disk: Report.Mark and Report.MarkBefore
	first, last time.Time // reports
}

// Duplicate is a server as which two machines report.
type Duplicate struct {
	Older, Younger string    // "10.0.0.5:40312, started 2026-11-30 06:13:50"
	Since          time.Time // when that was found
}

// standing is what a process is that reports as a server.
type standing int

const (
	inDoubt standing = iota // another process has reported lately, which may have ended
	alone                   // no other one reports
	older                   // the older one of two
	copied                  // the older one of two, and the other one's disk has the mark of this one's
)

// noteOrigin notes that a process reports as a server, and returns what it is. The error is that the process is the
// younger one of several.
func (f *Fleet) noteOrigin(
	server cluster.ServerName, r *Report, address string, now time.Time,
) (is standing, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := slices.DeleteFunc(f.origins[server], func(o *origin) bool { return now.Sub(o.last) > SilentAfter })
	i := slices.IndexFunc(list, func(o *origin) bool { return o.start == r.Start })
	if i < 0 {
		list = append(list[max(0, len(list)-maxOrigins+1):], &origin{start: r.Start, started: r.Started, first: now})
		i = len(list) - 1
	}
	me := list[i]
	me.last, me.address, me.marks = now, address, [2]string{r.Mark, r.MarkBefore}
	f.origins[server] = list
	for _, other := range list {
		if other == me || !me.last.After(other.first) || !other.last.After(me.first) {
			continue
		}
		first, second := other, me
		if me.started.Before(other.started) {
			first, second = me, other
		}
		found, known := f.duplicates[server]
		if !known || now.Sub(found.last) > SilentAfter {
			found.Since = now
		}
		found.Older, found.Younger, found.last = first.String(), second.String(), now
		f.duplicates[server] = found
		if second == me {
			return inDoubt, fmt.Errorf("another machine reports as %s: %s", server, first)
		}
		if is = max(is, older); r.Mark != "" && slices.Contains(other.marks[:], r.Mark) {
			is = copied
		}
	}
	if len(list) == 1 {
		is = alone
	}
	return is, nil
}

func (o *origin) String() string {
	return fmt.Sprintf("%s, started %s", o.address, o.started.Local().Format(time.DateTime))
}

// foundDuplicate is a Duplicate with the time of the last report of one of them.
type foundDuplicate struct {
	Duplicate
	last time.Time
}

// Duplicate returns the two machines that report as a server; ok is false if one machine does.
func (f *Fleet) Duplicate(server cluster.ServerName) (d Duplicate, ok bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	found, ok := f.duplicates[server]
	return found.Duplicate, ok && Fresh(found.last)
}
