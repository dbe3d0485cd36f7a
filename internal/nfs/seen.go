package nfs

import (
	"sync"
	"time"

	"dim/internal/vfs"
)

// slowPerMinute is how many slow calls are logged a minute: when a disk hangs, all are slow.
const slowPerMinute = 10

// slowLog bounds the log of slow calls.
type slowLog struct {
	mu     sync.Mutex
	minute int64
	lines  int
	silent int // not logged since the last line
}

// allow reports whether one more may be logged now, and how many were not since the last one.
func (l *slowLog) allow(now time.Time) (ok bool, silent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := now.Unix() / 60; m != l.minute {
		l.minute, l.lines = m, 0
	}
	if l.lines == slowPerMinute {
		l.silent++
		return false, 0
	}
	l.lines++
	silent, l.silent = l.silent, 0
	return true, silent
}

// tellSlow logs a call that took long.
func (c *call) tellSlow(proc string, took time.Duration) {
	ok, silent := c.srv.slow.allow(time.Now())
	if !ok {
		return
	}
	attrs := []any{"proc", proc, "took", took.Round(time.Millisecond), "client", c.Peer.Remote}
	if c.fs != nil {
		if fs, knows := c.fs.(vfs.Pather); knows {
			if path, ok := fs.Path(c.h); ok {
				attrs = append(attrs, "path", path)
			}
		}
	}
	if silent > 0 {
		attrs = append(attrs, "not_logged_before", silent)
	}
	c.srv.log.Warn("slow call", attrs...)
}
