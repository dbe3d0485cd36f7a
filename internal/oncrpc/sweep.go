package oncrpc

import "time"

// nudgeAfter is after how many silent seconds (and up to one more) a connection looks once more whether its client is gone; see conn.readable.
const nudgeAfter = 1

// pressed is the limit on standing still, in seconds, while others wait for memory.
const pressed = 2

// sweep looks at all connections once a second until the server ends.
func (s *Server) sweep() {
	defer s.running.Done()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			tick := s.ticks.Add(1)
			s.each(func(c *conn) { c.sweep(tick) })
		case <-s.done:
			return
		}
	}
}

// sweep closes c when its client stands still.
func (c *conn) sweep(now int64) {
	if c.killed.Load() {
		return
	}
	stall := int64(c.srv.opt.Stall / time.Second)
	if c.srv.pool.waiters.Load() > 0 {
		stall = min(stall, pressed)
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
	case age == nudgeAfter:
		c.nc.SetReadDeadline(time.Unix(1, 0))
	}
}
