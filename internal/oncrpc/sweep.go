package oncrpc

import (
	"context"
	"time"

	"dim/internal/periodic"
)

// recheckAfter is the number of seconds without a call, and up to one more, after which a connection is read once
// more to find out whether its client has closed it; see conn.readable.
const recheckAfter = 1

// stallUnderPressure takes the place of Options.Stall, in seconds, while connections wait for memory.
const stallUnderPressure = 2

// sweep counts the seconds, and closes connections of clients that make no progress, until ctx ends.
func (s *Server) sweep(ctx context.Context) {
	defer s.running.Done()
	_ = periodic.Run(ctx, time.Second, func(context.Context) { // its error is always nil
		tick := s.ticks.Add(1)
		s.each(func(c *conn) { c.sweep(tick) })
	})
}

// sweep closes c if its client makes no progress or has been idle for too long.
func (c *conn) sweep(now int64) {
	if c.killed.Load() {
		return
	}
	stall := int64(c.srv.opt.Stall / time.Second)
	if c.srv.pool.waiters.Load() > 0 {
		stall = min(stall, stallUnderPressure)
	}
	if since := c.out.since.Load(); since != 0 && now-since > stall {
		c.srv.count.stalled.Add(1)
		c.kill()
		return
	}
	parked := c.parked.Load()
	if parked == 0 {
		return
	}
	age, partial := now-parked>>1, parked&1 == 1
	switch {
	case partial && age > stall:
		c.srv.count.stalled.Add(1)
		c.kill()
	case age > int64(c.srv.opt.Idle/time.Second):
		c.kill()
	case age == recheckAfter:
		c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}
