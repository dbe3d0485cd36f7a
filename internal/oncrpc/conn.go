package oncrpc

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// maxRecord is the longest record we take: a call with 1 MiB of data.
const maxRecord = largeBuffer - 2*markSize

// flushAt is how many bytes of replies are gathered at most before they are sent.
const flushAt = smallBuffer - 4096

// slowBytes bounds the requests of slow calls that one connection keeps in memory.
const slowBytes = 8 << 20

// Why a connection ends, besides errors of the network.
var (
	errRecord  = errors.New("record too long")
	errMessage = errors.New("not an RPC call")
	errKilled  = errors.New("closed by the server")
	errMemory  = errors.New("no memory for fragments")
)

// conn is one connection.
type conn struct {
	srv    *Server
	nc     net.Conn
	raw    syscall.RawConn
	peer   Peer
	shard  int // of the counters
	out    sender
	onRead func(fd uintptr) bool // c.readable, once

	place  int          // in Server.conns, guarded by Server.mu
	parked atomic.Int64 // when it began to wait for bytes, 0 while it works; see park
	killed atomic.Bool
	relief relief

	// The reader's own.
	in        *buffer
	r, w      int     // in.mem[r:w] is not served yet
	fragments Encoder // of a record whose last fragment is not there yet
	recOwn    *buffer // memory of the record returned last
	call      *Call
	patient   *slot         // to be run outside of readable
	patientIn int           // its record's size
	drained   bool          // the socket had no more when it was read last
	quiet     int64         // tick since when nothing came, 0 when something did
	partial   int64         // tick at which the unfinished record was first waited for
	since     time.Duration // when the calls came that are not counted yet
	tick      int64         // Server.ticks when the last one was counted
	err       error

	mu    sync.Mutex
	ended sync.Cond // a slow call ended
	slow  int
	bytes int
}

// read is the life of the goroutine that has the reader's role. It returns when the connection is done or when
// another goroutine took over.
func (c *conn) read() {
	for {
		for c.patient != nil {
			if relieved := c.runPatient(); relieved {
				return
			}
			c.serveBuffered()
		}
		if c.err != nil {
			break
		}
		c.drained = false
		err := c.raw.Read(c.onRead)
		if c.err == nil {
			c.err = c.pause(err)
		}
	}
	c.end()
}

// pause judges an error of waiting for bytes: only the deadline that the sweeper set to make
// us look again is none.
func (c *conn) pause(err error) error {
	if err == nil {
		return nil
	}
	if !errors.Is(err, errDeadline) {
		return err
	}
	if c.stopping() {
		return errKilled
	}
	if err := c.nc.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	if c.stopping() {
		return errKilled
	}
	return nil
}

func (c *conn) stopping() bool { return c.killed.Load() || c.srv.closing.Load() }

// readable reads and serves until the socket is empty (false: call again when there is more), or
// until there is something to do that must not be done while the socket is locked for reading (true).
//
// A read that returned less than was asked for has emptied the socket, so the read that would only
// return EAGAIN is left out. That is safe within one RawConn.Read, which forgets no readiness between
// two calls of this function; a FIN that came together with the last bytes is found by the sweeper's nudge.
func (c *conn) readable(fd uintptr) bool {
	c.parked.Store(0)
	for {
		c.serveBuffered()
		if c.err == nil && c.stopping() {
			c.err = errKilled
		}
		if c.err != nil || c.patient != nil {
			return true
		}
		if c.drained && c.r == c.w {
			c.drained = false
			c.park()
			return false
		}
		p := c.room()
		if p == nil {
			return true
		}
		n, err := readNow(fd, p)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			c.park()
			return false
		case err != nil:
			c.err = err
			return true
		case n == 0:
			c.err = io.EOF
			return true
		}
		c.w += n
		c.quiet = 0
		c.drained = n < len(p)
		if !c.srv.uncounted.Load() {
			c.since = c.srv.now()
		}
	}
}

// park gives back what an idle connection does not need and tells the sweeper since when it waits: the tick
// times two, plus one when a record is unfinished.
func (c *conn) park() {
	if c.in != nil && c.r == c.w {
		c.in.release()
		c.in = nil
	}
	if c.call != nil {
		c.srv.putCall(c.call)
		c.call = nil
	}
	tick := c.srv.ticks.Load()
	if c.quiet == 0 {
		c.quiet = tick
	}
	if c.in == nil && c.fragments.own == nil {
		c.partial = 0
		c.parked.Store(c.quiet << 1)
		return
	}
	if c.partial == 0 {
		c.partial = tick
	}
	c.parked.Store(c.partial<<1 | 1)
}

// room returns where the next bytes go. It is nil when c.err was set.
func (c *conn) room() []byte {
	if c.in == nil {
		c.in = c.srv.pool.get(smallBuffer)
		c.r, c.w = 0, 0
	}
	size := len(c.in.mem)
	alone := c.in.refs.Load() == 1
	if c.r == c.w && alone {
		c.r, c.w = 0, 0
	}
	if c.w < size && c.r+c.wanted() <= size || c.w < size && c.r == 0 {
		return c.in.mem[c.w:]
	}
	if alone && c.r > 0 {
		c.w = copy(c.in.mem, c.in.mem[c.r:c.w])
		c.r = 0
		return c.in.mem[c.w:]
	}
	return c.move()
}

// wanted is the size of the unfinished record, as far as it is known.
func (c *conn) wanted() int {
	if c.w-c.r < markSize {
		return markSize
	}
	return markSize + int(binary.BigEndian.Uint32(c.in.mem[c.r:])&^lastFragment)
}

// move continues in another buffer, a large one only after as much as fills a small one has come.
func (c *conn) move() []byte {
	n := smallBuffer
	if c.w-c.r == n || c.wanted() > n && len(c.in.mem) > n {
		n = largeBuffer
	}
	if c.srv.pool.tight(n) {
		// While we hold a large buffer we must not insist on another one: all could do so.
		c.srv.pool.wait(n, func() bool { return c.stopping() || c.r > 0 && c.in.refs.Load() == 1 })
		if c.stopping() {
			c.err = errKilled
			return nil
		}
		if c.r > 0 && c.in.refs.Load() == 1 {
			return c.room()
		}
	}
	b := c.srv.pool.get(n)
	c.w = copy(b.mem, c.in.mem[c.r:c.w])
	c.r = 0
	c.in.release()
	c.in = b
	return b.mem[c.w:]
}

// record returns the next whole record, nil when there is none yet.
func (c *conn) record() []byte {
	for c.w-c.r >= markSize {
		mark := binary.BigEndian.Uint32(c.in.mem[c.r:])
		n := int(mark &^ lastFragment)
		if n > maxRecord-c.fragments.Len() {
			c.err = errRecord
			return nil
		}
		start := c.r + markSize
		if c.w-start < n {
			return nil
		}
		c.r = start + n
		c.partial = 0
		if mark&lastFragment != 0 && c.fragments.own == nil {
			c.recOwn = c.in
			return c.in.mem[start:c.r]
		}
		if c.srv.pool.tight(c.fragments.Len() + n) {
			c.err = errMemory
			return nil
		}
		if rec := c.gather(c.in.mem[start:c.r], mark&lastFragment != 0); rec != nil {
			return rec
		}
	}
	return nil
}

// gather appends a fragment and returns the record after its last one. The record lives until the next one is asked for.
func (c *conn) gather(fragment []byte, last bool) []byte {
	if c.fragments.own == nil {
		c.fragments.own = c.srv.pool.get(smallBuffer)
		c.fragments.b = c.fragments.own.mem[:0]
	}
	copy(c.fragments.Extend(len(fragment)), fragment)
	if !last {
		return nil
	}
	c.recOwn = c.fragments.own
	return c.fragments.b
}

// serveBuffered serves the whole records in the buffer, up to a patient one, and sends the replies.
func (c *conn) serveBuffered() {
	for c.err == nil && c.in != nil {
		rec := c.record()
		if rec == nil {
			break
		}
		c.serve(rec)
		if c.patient != nil {
			return
		}
		if c.recOwn != c.in {
			c.dropFragments()
		}
		if c.call.full() {
			c.flush()
		}
	}
	c.flush()
}

func (c *conn) dropFragments() {
	if c.fragments.own != nil {
		c.fragments.own.release()
	}
	c.fragments = Encoder{}
}

// serve serves one record, or leaves it to another goroutine or to runPatient.
func (c *conn) serve(rec []byte) {
	if c.call == nil {
		c.call = c.srv.getCall(&c.peer)
	}
	call := c.call
	call.ensure(c.srv.pool)
	have := call.Reply.Len()
	s, ok := call.decode(rec)
	if !ok {
		call.Reply.Truncate(have)
		c.err = errMessage
		return
	}
	switch {
	case s.Serve == nil || s.Cost == Quick:
		call.run(s)
		c.account(s, call, len(rec))
	case s.Cost == Patient:
		c.patient, c.patientIn = s, len(rec)
	default:
		call.Reply.Truncate(call.start)
		c.startSlow(rec)
	}
}

// account notes a quick call that ended now, for settle.
func (c *conn) account(s *slot, call *Call, in int) {
	if c.srv.uncounted.Load() {
		return
	}
	if !call.batch.add(s, call.Meter, in, call.size(), call.bad()) {
		call.batch.count(c.srv, c.shard, c.srv.now()-c.since)
		call.batch.add(s, call.Meter, in, call.size(), call.bad())
	}
	if c.srv.ticks.Load() != c.tick {
		c.settle() // this one may have been slow
	}
}

// settle counts the quick calls since the last time: they came together, and are answered together now. So the clock is read once for all of
// them; once for each cost more than all the rest of counting. A call that takes a second is found nevertheless: a tick passes, and account lets no
// other one be counted with it.
func (c *conn) settle() {
	if c.call == nil || c.call.batch.calls == 0 {
		return
	}
	b, now, tick := &c.call.batch, c.srv.now(), c.srv.ticks.Load()
	took := now - c.since
	if took > c.srv.opt.Slow && c.call.Slow != nil && (tick != c.tick || b.calls == 1) {
		c.call.Slow(b.last.Name, took)
	}
	b.count(c.srv, c.shard, took)
	c.since, c.tick = now, tick
}

// tally counts a call that took so long.
func (c *conn) tally(s *slot, call *Call, took time.Duration, in int) {
	var b batch
	b.add(s, call.Meter, in, call.size(), call.bad())
	b.count(c.srv, c.shard, took)
	if took > c.srv.opt.Slow && call.Slow != nil {
		call.Slow(s.Name, took)
	}
}

// flush sends the replies gathered and waits until the client takes its replies.
func (c *conn) flush() {
	c.settle()
	if c.call == nil || c.call.Reply.Len() == 0 {
		return
	}
	c.out.send(c.call.take())
	if err := c.out.await(c.srv.opt.Queue); err != nil && c.err == nil {
		c.err = err
	}
}

// startSlow runs the call in rec on a goroutine of its own, when there are not too many yet.
func (c *conn) startSlow(rec []byte) {
	c.mu.Lock()
	if c.crowded(len(rec)) {
		c.mu.Unlock()
		c.flush()
		c.mu.Lock()
		for c.crowded(len(rec)) {
			c.ended.Wait()
		}
	}
	c.slow++
	c.bytes += len(rec)
	c.mu.Unlock()
	own := c.recOwn
	own.hold()
	c.srv.workers.run(work{c, rec, own})
}

func (c *conn) crowded(n int) bool {
	return c.slow >= c.srv.opt.InFlight || c.slow > 0 && c.bytes+n > slowBytes
}

func (c *conn) runSlow(rec []byte, own *buffer) {
	begin := c.srv.now()
	c.srv.slots <- struct{}{}
	call := c.srv.getCall(&c.peer)
	call.ensure(c.srv.pool)
	s, _ := call.decode(rec)
	if s.Once {
		c.srv.replies.run(call, s)
	} else {
		call.run(s)
	}
	<-c.srv.slots
	c.tally(s, call, c.srv.now()-begin, len(rec))
	c.out.send(call.take())
	c.srv.putCall(call)
	own.release()
	c.slowEnded(len(rec))
}

func (c *conn) slowEnded(n int) {
	c.mu.Lock()
	c.slow--
	c.bytes -= n
	c.ended.Signal()
	c.mu.Unlock()
	if c.srv.pool.waiters.Load() > 0 {
		c.srv.pool.wakeAll() // one may wait for its own buffer; see move
	}
}

// end waits for the calls that still run, sends their replies and closes the connection.
func (c *conn) end() {
	c.flush()
	c.mu.Lock()
	for c.slow > 0 {
		c.ended.Wait()
	}
	c.mu.Unlock()
	if c.in != nil {
		c.in.release()
	}
	c.dropFragments()
	if c.call != nil {
		c.srv.putCall(c.call)
	}
	c.nc.Close()
	c.srv.remove(c)
}
