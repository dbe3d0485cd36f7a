package nfs

import (
	"sync"
	"time"

	"dim/internal/vfs"
)

// slowPerMinute is the number of slow calls that are logged in a minute. When a disk hangs, all calls are slow.
const slowPerMinute = 10

// slowLog bounds the log of slow calls.
type slowLog struct {
	mu     sync.Mutex
	minute int64
	lines  int
	calls  int // slow calls since the last line
}

// add counts a slow call. It reports whether the call is to be logged, and the number of slow calls since the last
// one that was, with this one.
func (l *slowLog) add(now time.Time) (ok bool, calls int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	if m := now.Unix() / 60; m != l.minute {
		l.minute, l.lines = m, 0
	}
	if l.lines == slowPerMinute {
		return false, 0
	}
	l.lines++
	calls, l.calls = l.calls, 0
	return true, calls
}

// logSlow logs a call that took long, and the number of slow calls since the last one that was logged.
func (c *call) logSlow(proc string, took time.Duration) {
	ok, calls := c.srv.slow.add(time.Now())
	if !ok {
		return
	}
	log := c.srv.log.With("procedure", proc, "took", took.Round(time.Millisecond), "client", c.Peer.Remote)
	if fs, ok := c.fs.(vfs.Pather); ok {
		if path, ok := fs.Path(c.h); ok {
			log = log.With("path", path)
		}
	}
	log.Warn("slow call", "count", calls)
}
