package watch

import (
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Changes says where something changed. Paths are slash-separated, from the directory that is watched; "" is that itself.
type Changes struct {
	All    bool      // anything may have changed; the rest says nothing
	Dirs   []string  // in which names came, went, or are of something that changed; or which changed themselves
	Trees  []string  // that stand elsewhere now, with everything below
	Inodes []uint64  // of what changed by a name that is not known, perhaps outside
	Since  time.Time // of the first of the changes
}

// Times of dealing with changes.
const (
	// maxDelay is for how long changes are waited for the end of while they go on.
	maxDelay = time.Second
	// maxHold is the same while a file is being written that is still open.
	maxHold = 10 * time.Second
	// leastShare is how much of the quiet asked for is enough after a lone change: one file that is saved need not wait for more to come.
	leastShare = 5
	// writingFor is for how long a file that is open counts as being written after a write.
	writingFor = 2 * time.Second
)

// maxPending bounds what is kept of changes; beyond it, anything may have changed.
const maxPending = 1 << 16

// pending are changes that were not dealt with yet.
type pending struct {
	now     func() time.Time
	all     bool
	dirs    map[string]struct{}
	trees   map[string]struct{}
	inodes  map[uint64]struct{}
	writing map[writer]time.Time // open files, and when they were written last
	first   time.Time            // zero: there are none
	last    time.Time
	began   time.Time // of changes that went on until last, dealt with or not, without a rest of maxDelay
}

// writer is a file that somebody writes.
type writer struct {
	dir  handle
	name string
}

func newPending(now func() time.Time) pending {
	return pending{now: now, dirs: map[string]struct{}{}, trees: map[string]struct{}{}, inodes: map[uint64]struct{}{}, writing: map[writer]time.Time{}}
}

// add takes changes in.
func (p *pending) add(c Changes) {
	now := p.now()
	if p.first.IsZero() {
		p.first = now
	}
	if c.All || len(c.Dirs)+len(c.Trees) > 0 { // what is only known by its number is mostly elsewhere, and tells nothing of quiet here
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
		p.forget()
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

// write notes what e tells of who writes.
func (p *pending) write(e *event) {
	w := writer{e.dir, e.name}
	switch {
	case e.is(unix.FAN_CLOSE_WRITE | unix.FAN_DELETE | unix.FAN_MOVED_FROM):
		delete(p.writing, w)
	case e.is(unix.FAN_MODIFY) && len(p.writing) < maxPending:
		p.writing[w] = p.last
	}
}

func (p *pending) forget() {
	clear(p.dirs)
	clear(p.trees)
	clear(p.inodes)
}

// take returns the changes, of which there are none afterwards.
func (p *pending) take() Changes {
	c := Changes{All: p.all, Since: p.first}
	if !c.All {
		c.Dirs = slices.Sorted(maps.Keys(p.dirs))
		c.Trees = slices.Sorted(maps.Keys(p.trees))
		c.Inodes = slices.Sorted(maps.Keys(p.inodes))
	}
	p.forget()
	p.all, p.first = false, time.Time{}
	return c
}

// due returns when the changes are to be dealt with, if there are any: when it has been quiet for long enough, or when it has not been for too long.
// Enough is as long as changes have gone on, within a share of the quiet asked for and all of it.
func (p *pending) due(quiet time.Duration) (time.Time, bool) {
	if p.first.IsZero() {
		return time.Time{}, false
	}
	if p.all {
		return p.first, true
	}
	last, enough, limit := p.last, min(quiet, max(quiet/leastShare, p.last.Sub(p.began))), maxDelay
	if last.Before(p.first) {
		last, enough = p.first, quiet
	}
	for w, at := range p.writing {
		if p.last.Sub(at) < writingFor {
			enough, limit = quiet, maxHold
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

// pace bounds how many versions are made when something never holds still: a number of them at once, and then one now and then.
type pace struct {
	left  float64
	since time.Time
}

const (
	paceBurst = 300
	paceEvery = 10 * time.Second
)

// spend counts a version.
func (p *pace) spend(now time.Time) {
	if p.since.IsZero() {
		p.left = paceBurst
	} else {
		p.left = min(paceBurst, p.left+float64(now.Sub(p.since))/float64(paceEvery))
	}
	p.since = now
	p.left--
}

// next returns when the next version may be made.
func (p *pace) next() time.Time {
	if p.left >= 1 || p.since.IsZero() {
		return p.since
	}
	return p.since.Add(time.Duration((1 - p.left) * float64(paceEvery)))
}
