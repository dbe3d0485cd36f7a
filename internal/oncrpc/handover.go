package oncrpc

import (
	"context"
	"sync/atomic"
	"time"
)

// watchPeriod is the interval between checks of Patient calls. The reading of a connection is handed over when two
// checks find the same call.
const watchPeriod = 4 * time.Millisecond

// watchIdle is the number of checks without a Patient call after which the watcher sleeps until the next one.
const watchIdle = 25

// handover decides which goroutine reads a connection after a Patient call began. turn is odd during the call. Both the
// goroutine of the call, when the call has ended, and the watcher try to set turn to the next even number. The one that
// succeeds continues the reading: the goroutine itself, or a new one that the watcher starts.
type handover struct {
	turn  atomic.Uint64
	prior []byte // replies made before the call, which a new reader sends; written before turn becomes odd
	seen  uint64 // turn at the last check of the watcher
}

// runPatient runs c.patient. If it returns true, another goroutine has taken over the reading.
func (c *conn) runPatient() (handedOver bool) {
	s, call, size, own := c.patient, c.call, c.patientIn, c.recOwn
	c.patient = nil
	own.hold() // so that a new reader does not overwrite the arguments
	c.countBatch()
	begin, shared := c.batchStart, call.Reply.own
	shared.hold() // for prior, which may be read after the reply has moved to a larger buffer
	c.handover.prior = call.Reply.b[:call.start]
	turn := c.handover.turn.Load() + 1
	c.handover.turn.Store(turn)
	if !c.srv.watching.Load() {
		c.srv.wakeWatcher()
	}
	call.run(s)
	c.noteRefusal(s, call)
	if c.handover.turn.CompareAndSwap(turn, turn+1) {
		shared.release()
		own.release()
		if own != c.in {
			c.dropFragments()
		}
		c.batchStart = c.srv.now()
		c.countCall(s, call, c.batchStart-begin, size)
		if call.full() {
			c.flush()
		}
		return false
	}
	// Another goroutine is the reader now: the fields of c that belong to the reader must not be used.
	c.countCall(s, call, c.srv.now()-begin, size)
	p := call.take()
	p.b = p.b[call.start:]
	c.out.send(p)
	c.srv.putCall(call)
	own.release()
	c.slowEnded(0)
	shared.release() // not earlier: takeOver copies prior under the lock that slowEnded takes
	return true
}

// takeOver continues the reading on another goroutine while the present one runs a Patient call. It returns false
// if the call has ended.
func (c *conn) takeOver(turn uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.handover.turn.CompareAndSwap(turn, turn+1) {
		return false
	}
	c.slow++ // the call counts as a Slow one from now on
	c.srv.count.handedOver.Add(1)
	c.call = nil
	if c.recOwn != c.in {
		c.dropFragments()
	}
	prior := append([]byte(nil), c.handover.prior...)
	go func() {
		if len(prior) > 0 {
			c.out.send(packet{b: prior})
		}
		c.batchStart = c.srv.now()
		c.serveBuffered()
		c.read()
	}()
	return true
}

// watch hands over the reading of connections until the server ends. A check costs a few nanoseconds for each
// connection. While no Patient call runs, watch sleeps.
func (s *Server) watch(ctx context.Context) {
	defer s.running.Done()
	timer := time.NewTimer(watchPeriod)
	defer timer.Stop()
	for idle := 0; ; {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		if s.checkPatient() {
			idle = 0
		} else if idle++; idle > watchIdle && !s.awaitPatient(ctx) {
			return
		}
		timer.Reset(watchPeriod)
	}
}

// checkPatient hands over the reading of connections whose Patient call was found by the last check too. It reports
// whether a Patient call has run since then.
func (s *Server) checkPatient() (active bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		turn := c.handover.turn.Load()
		if turn != c.handover.seen {
			c.handover.seen = turn
			active = true
			continue
		}
		if turn&1 == 1 {
			active = true
			c.takeOver(turn)
		}
	}
	return active
}

// awaitPatient waits for the next Patient call. It returns false if the server ends first.
func (s *Server) awaitPatient(ctx context.Context) bool {
	s.watching.Store(false)
	if s.checkPatient() { // a call may have begun before it could see watching
		s.watching.Store(true)
		return true
	}
	select {
	case <-s.wake:
		return true
	case <-ctx.Done():
		return false
	}
}

// wakeWatcher ends awaitPatient.
func (s *Server) wakeWatcher() {
	if s.watching.CompareAndSwap(false, true) {
		select {
		case s.wake <- struct{}{}:
		default: // it has a token already
		}
	}
}
