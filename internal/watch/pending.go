package watch

import (
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Changes says where something has changed. Paths are slash-separated, from the watched directory; "" is that
// directory.
type Changes struct {
	All    bool      // anything may have changed; Dirs, Trees and Inodes are empty
	Dirs   []string  // directories that have changed, or in which a name has come, gone or changed
	Trees  []string  // directories that were moved here, with everything below
	Inodes []uint64  // entries that have changed and whose names are not known; they may be outside
	Since  time.Time // the first change
}

// When changes are due.
const (
	// maxDelay is the longest delay of changes while further ones come.
	maxDelay = time.Second
	// maxHold is the longest delay while a file is open and being written.
	maxHold = 10 * time.Second
	// leastShare divides the debounce time after a single change: one saved file need not wait for more.
	leastShare = 5
	// writingFor is the time after a write during which an open file counts as being written.
	writingFor = 2 * time.Second
)

// maxPending bounds the number of paths that are kept. If there are more, Changes.All is set.
const maxPending = 1 << 16

// pending has the changes that were not passed to Do yet.
type pending struct {
	now     func() time.Time
	all     bool
	dirs    map[string]struct{}
	trees   map[string]struct{}
	inodes  map[uint64]struct{}
	writing map[writer]time.Time // open files, with the time of the last write
	first   time.Time            // zero: there are no changes
	last    time.Time
	began   time.Time // of the changes up to last that came without a gap of maxDelay, also those that were passed on
}

// writer is a file that is being written.
type writer struct {
	dir  handle
	name string
}

func newPending(now func() time.Time) pending {
	return pending{
		now: now, dirs: map[string]struct{}{}, trees: map[string]struct{}{}, inodes: map[uint64]struct{}{},
		writing: map[writer]time.Time{},
	}
}

// add adds changes.
func (p *pending) add(c Changes) {
	now := p.now()
	if p.first.IsZero() {
		p.first = now
	}
	// Most inodes without a name are outside, and must not delay other changes.
	if c.All || len(c.Dirs)+len(c.Trees) > 0 {
		if now.Sub(p.last) > maxDelay {
			p.began = now
		}
		p.last = now
	}
	if !c.Since.IsZero() && c.Since.Before(p.first) {
		p.first = c.Since
	}
	p.all = p.all || c.All || len(p.dirs)+len(p.trees)+len(p.inodes) > maxPending
	if p.all {
		p.clearPaths()
		return
	}
	for _, dir := range c.Dirs {
		p.dirs[dir] = struct{}{}
	}
	for _, dir := range c.Trees {
		p.trees[dir] = struct{}{}
	}
	for _, ino := range c.Inodes {
		p.inodes[ino] = struct{}{}
	}
}

// write updates the files that are being written.
func (p *pending) write(e *event) {
	w := writer{e.dir, e.name}
	switch {
	case e.is(unix.FAN_CLOSE_WRITE | unix.FAN_DELETE | unix.FAN_MOVED_FROM):
		delete(p.writing, w)
	case e.is(unix.FAN_MODIFY) && len(p.writing) < maxPending:
		p.writing[w] = p.last
	}
}

func (p *pending) clearPaths() {
	clear(p.dirs)
	clear(p.trees)
	clear(p.inodes)
}

// drain returns the changes and removes them.
func (p *pending) drain() Changes {
	c := Changes{All: p.all, Since: p.first}
	if !c.All {
		c.Dirs = slices.Sorted(maps.Keys(p.dirs))
		c.Trees = slices.Sorted(maps.Keys(p.trees))
		c.Inodes = slices.Sorted(maps.Keys(p.inodes))
	}
	p.clearPaths()
	p.all, p.first = false, time.Time{}
	return c
}

// due returns when the changes are due, if there are any: when there has been no change for long enough, or when
// changes have gone on for too long. Long enough is the time for which the changes have gone on, at least a share of
// the debounce time and at most all of it.
func (p *pending) due(debounce time.Duration) (time.Time, bool) {
	if p.first.IsZero() {
		return time.Time{}, false
	}
	if p.all {
		return p.first, true
	}
	last, limit := p.last, maxDelay
	enough := min(debounce, max(debounce/leastShare, p.last.Sub(p.began)))
	if last.Before(p.first) {
		last, enough = p.first, debounce
	}
	for w, at := range p.writing {
		if p.last.Sub(at) < writingFor {
			enough, limit = debounce, maxHold
		} else {
			delete(p.writing, w)
		}
	}
	return earlier(last.Add(enough), p.first.Add(limit)), true
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// rate bounds the number of results of Do while changes never end: rateBurst of them, and then one in rateEvery.
type rate struct {
	left  float64
	since time.Time
}

const (
	rateBurst = 300
	rateEvery = 10 * time.Second
)

// spend counts a result.
func (p *rate) spend(now time.Time) {
	if p.since.IsZero() {
		p.left = rateBurst
	} else {
		p.left = min(rateBurst, p.left+float64(now.Sub(p.since))/float64(rateEvery))
	}
	p.since = now
	p.left--
}

// next returns the time from which on the next result is allowed.
func (p *rate) next() time.Time {
	if p.left >= 1 || p.since.IsZero() {
		return p.since
	}
	return p.since.Add(time.Duration((1 - p.left) * float64(rateEvery)))
}
