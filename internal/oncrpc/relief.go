package oncrpc

import (
	"sync/atomic"
	"time"
)

// watchPeriod is how often patient calls are looked at: one that is seen twice is relieved.
const watchPeriod = 4 * time.Millisecond

// watchIdle is after how many looks at nothing the watcher sleeps until the next patient call.
const watchIdle = 25

// relief is how the reader's role is handed over while its goroutine is inside a patient call. turn is odd during the
// call. Who moves it to the next even number, the goroutine when its call ended or the watcher, has the role.
type relief struct {
	turn  atomic.Uint64
	prior []byte // replies made before the call, for the new reader to send; written before turn becomes odd
	seen  uint64 // the watcher's
}

// runPatient runs c.patient. When it returns true another goroutine reads by now.
func (c *conn) runPatient() (relieved bool) {
	s, call, size, own := c.patient, c.call, c.patientIn, c.recOwn
	c.patient = nil
	own.hold() // a new reader must not overwrite the arguments
	c.settle()
	begin, shared := c.since, call.Reply.own
	shared.hold() // prior may still be looked at after the reply moved to a larger buffer
	c.relief.prior = call.Reply.b[:call.start]
	turn := c.relief.turn.Load() + 1
	c.relief.turn.Store(turn)
	if !c.srv.watching.Load() {
		c.srv.wakeWatcher()
	}
	call.run(s)
	if c.relief.turn.CompareAndSwap(turn, turn+1) {
		shared.release()
		own.release()
		if own != c.in {
			c.dropFragments()
		}
		c.since = c.srv.now()
		c.tally(s, call, c.since-begin, size)
		if call.full() {
			c.flush()
		}
		return false
	}
	// From here on nothing of the reader's may be touched.
	c.tally(s, call, c.srv.now()-begin, size)
	p := call.take()
	p.b = p.b[call.start:]
	c.out.send(p)
	c.srv.putCall(call)
	own.release()
	c.slowEnded(0)
	shared.release() // not before: relieve copies prior under the lock that slowEnded takes
	return true
}

// relieve takes the reader's role over from a goroutine that is stuck in a patient call. It returns false when the
// call has ended meanwhile.
func (c *conn) relieve(turn uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.relief.turn.CompareAndSwap(turn, turn+1) {
		return false
	}
	c.slow++ // the call counts as a slow one from now on
	c.srv.count.relieved.Add(1)
	c.call = nil
	if c.recOwn != c.in {
		c.dropFragments()
	}
	prior := append([]byte(nil), c.relief.prior...)
	go func() {
		if len(prior) > 0 {
			c.out.send(packet{b: prior})
		}
		c.since = c.srv.now()
		c.serveBuffered()
		c.read()
	}()
	return true
}

// watch relieves stuck readers until the server's context ends. Looking costs a few nanoseconds
// a connection; with nothing patient going on it sleeps.
func (s *Server) watch() {
	defer s.running.Done()
	timer := time.NewTimer(watchPeriod)
	defer timer.Stop()
	for idle := 0; ; {
		select {
		case <-timer.C:
		case <-s.done:
			return
		}
		if s.look() {
			idle = 0
		} else if idle++; idle > watchIdle && !s.sleep() {
			return
		}
		timer.Reset(watchPeriod)
	}
}

// look relieves and reports whether any patient call ran since the last look.
func (s *Server) look() (active bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		turn := c.relief.turn.Load()
		if turn != c.relief.seen {
			c.relief.seen = turn
			active = true
			continue
		}
		if turn&1 == 1 {
			active = true
			c.relieve(turn)
		}
	}
	return active
}

// sleep waits for the next patient call; false when the server ends first.
func (s *Server) sleep() bool {
	s.watching.Store(false)
	if s.look() { // one may have begun before it could see that we sleep
		s.watching.Store(true)
		return true
	}
	select {
	case <-s.wake:
		return true
	case <-s.done:
		return false
	}
}

// wakeWatcher makes the watcher look again.
func (s *Server) wakeWatcher() {
	if s.watching.CompareAndSwap(false, true) {
		select {
		case s.wake <- struct{}{}:
		default: // it has a token already
		}
	}
}
