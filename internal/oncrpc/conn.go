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

// maxRecord is the longest record that is accepted: a call with 1 MiB of data.
const maxRecord = largeBuffer - 2*markSize

// flushAt is the number of bytes of replies after which they are sent.
const flushAt = smallBuffer - 4096

// slowBytes bounds the memory for requests of slow calls of one connection.
const slowBytes = 8 << 20

// Reasons for which a connection ends, besides errors of the network.
var (
	errRecord  = errors.New("record too long")
	errMessage = errors.New("not an RPC call")
	errKilled  = errors.New("closed by the server")
	errMemory  = errors.New("no memory for fragments")
	errRefused = errors.New("its calls are refused")
)

// maxRefused is the number of calls of a connection that may be refused for who makes them or what they ask for. A
// client that is configured wrongly gives up sooner. One that goes on would take processor time from others.
const maxRefused = 128

// conn is one connection.
type conn struct {
	srv    *Server
	nc     net.Conn
	raw    syscall.RawConn
	peer   Peer
	shard  int // of the counters
	out    sender
	onRead func(fd uintptr) bool // c.readable, once

	index    int          // in Server.conns, guarded by Server.mu
	parked   atomic.Int64 // when it began to wait for bytes, 0 while it serves; see park
	killed   atomic.Bool
	refused  atomic.Int32 // calls that were rejected or denied
	handover handover

	// These belong to the reader.
	in           *buffer
	r, w         int     // in.mem[r:w] is not served yet
	fragments    Encoder // of a record whose last fragment has not arrived
	recOwn       *buffer // the memory of the record returned last
	call         *Call
	patient      *slot         // a Patient procedure to run outside of readable
	patientIn    int           // the size of its record
	drained      bool          // the last read emptied the socket
	idleSince    int64         // tick of the first wait without new bytes; 0: bytes have arrived
	partialSince int64         // tick of the first wait with an unfinished record
	batchStart   time.Duration // when the calls that are not counted yet arrived
	batchTick    int64         // Server.ticks when calls were counted last
	err          error

	mu    sync.Mutex
	ended sync.Cond // a slow call ended
	slow  int       // slow calls that are queued or run
	bytes int       // of their requests
}

// read is the body of the reading goroutine. It returns when the connection has ended or another goroutine has taken
// over the reading.
func (c *conn) read() {
	for {
		for c.patient != nil {
			if handedOver := c.runPatient(); handedOver {
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

// pause returns the error with which the connection ends after a wait for bytes ended with err. It is nil for the
// deadline that sweep sets to have the socket read once more.
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

// readable reads and serves until the socket is empty, or until there is work that must not be done while the socket is
// locked for reading. It is called by RawConn.Read: false means to call it again when the socket is readable.
//
// A read of fewer bytes than there was room for has emptied the socket, so the read that would return EAGAIN is left
// out. That is safe within one RawConn.Read, which loses no event between two calls of this function. A FIN that
// arrived with the last bytes is found when sweep sets a read deadline.
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
		c.idleSince = 0
		c.drained = n < len(p)
		if !c.srv.uncounted.Load() {
			c.batchStart = c.srv.now()
		}
	}
}

// park releases what an idle connection does not need, and stores for sweep when the wait began: the tick times two,
// plus one if a record is unfinished.
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
	if c.idleSince == 0 {
		c.idleSince = tick
	}
	if c.in == nil && c.fragments.own == nil {
		c.partialSince = 0
		c.parked.Store(c.idleSince << 1)
		return
	}
	if c.partialSince == 0 {
		c.partialSince = tick
	}
	c.parked.Store(c.partialSince<<1 | 1)
}

// room returns the memory for the next bytes, or nil after it has set c.err.
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

// wanted is the size of the unfinished record, or of its mark if that is not complete.
func (c *conn) wanted() int {
	if c.w-c.r < markSize {
		return markSize
	}
	return markSize + int(binary.BigEndian.Uint32(c.in.mem[c.r:])&^lastFragment)
}

// move continues in another buffer. It takes a large one only after the record has filled a small one.
func (c *conn) move() []byte {
	n := smallBuffer
	if c.w-c.r == n || c.wanted() > n && len(c.in.mem) > n {
		n = largeBuffer
	}
	if c.srv.pool.overLimit(n) {
		// A connection that holds a large buffer must not wait for another one without an alternative: if all
		// did, none would get one.
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

// record returns the next whole record, or nil if there is none yet or after it has set c.err.
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
		c.partialSince = 0
		if mark&lastFragment != 0 && c.fragments.own == nil {
			c.recOwn = c.in
			return c.in.mem[start:c.r]
		}
		if c.srv.pool.overLimit(c.fragments.Len() + n) {
			c.err = errMemory
			return nil
		}
		if rec := c.gather(c.in.mem[start:c.r], mark&lastFragment != 0); rec != nil {
			return rec
		}
	}
	return nil
}

// gather appends a fragment. After the last one it returns the record, which is valid until the next call of record.
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

// serveBuffered serves the whole records in the buffer up to a Patient call, and sends the replies.
func (c *conn) serveBuffered() {
	for c.err == nil && c.in != nil {
		if c.refused.Load() > maxRefused {
			c.err = errRefused
			break
		}
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

// serve serves one record, starts a goroutine for it, or leaves it to runPatient.
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
		c.noteRefusal(s, call)
		c.addToBatch(s, call, len(rec))
	case s.Cost == Patient:
		c.patient, c.patientIn = s, len(rec)
	default:
		call.Reply.Truncate(call.start)
		c.startSlow(rec)
	}
}

// noteRefusal counts the call that has just ended if it was refused.
func (c *conn) noteRefusal(s *slot, call *Call) {
	if s.Serve == nil || call.denied {
		c.refused.Add(1)
	}
}

// addToBatch adds a Quick call that has just ended to those that countBatch counts.
func (c *conn) addToBatch(s *slot, call *Call, in int) {
	if c.srv.uncounted.Load() {
		return
	}
	if !call.batch.add(s, call, in) {
		call.batch.count(c.srv, c.shard, c.srv.now()-c.batchStart)
		call.batch.add(s, call, in)
	}
	if c.srv.ticks.Load() != c.batchTick {
		c.countBatch() // this call may have been slow
	}
}

// countBatch counts the Quick calls that ended since the last count. They arrived together and are answered
// together, so the clock is read once for all: to read it for each cost more than all the rest of counting. A call
// that takes more than a second is still found, because addToBatch counts it by itself when a tick has passed.
func (c *conn) countBatch() {
	if c.call == nil || c.call.batch.calls == 0 {
		return
	}
	b, now, tick := &c.call.batch, c.srv.now(), c.srv.ticks.Load()
	took := now - c.batchStart
	if took > c.srv.opt.Slow && c.call.Slow != nil && (tick != c.batchTick || b.calls == 1) {
		c.call.Slow(b.last.Name, took)
	}
	b.count(c.srv, c.shard, took)
	c.batchStart, c.batchTick = now, tick
}

// countCall counts one call, which took the time took, with a request of in bytes.
func (c *conn) countCall(s *slot, call *Call, took time.Duration, in int) {
	var b batch
	b.add(s, call, in)
	b.count(c.srv, c.shard, took)
	if took > c.srv.opt.Slow && call.Slow != nil {
		call.Slow(s.Name, took)
	}
}

// flush sends the gathered replies, and waits until at most Options.Queue bytes of replies are unsent.
func (c *conn) flush() {
	c.countBatch()
	if c.call == nil || c.call.Reply.Len() == 0 {
		return
	}
	c.out.send(c.call.take())
	if err := c.out.await(c.srv.opt.Queue); err != nil && c.err == nil {
		c.err = err
	}
}

// startSlow runs the call in rec on a goroutine of its own. It waits while too many slow calls run, or while their
// client does not receive the replies that there are.
func (c *conn) startSlow(rec []byte) {
	if err := c.out.await(c.srv.opt.Queue); err != nil {
		c.err = err
		return
	}
	c.mu.Lock()
	if c.slowLimitReached(len(rec)) {
		c.mu.Unlock()
		c.flush()
		c.mu.Lock()
		for c.slowLimitReached(len(rec)) {
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

func (c *conn) slowLimitReached(n int) bool {
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
	c.noteRefusal(s, call)
	c.countCall(s, call, c.srv.now()-begin, len(rec))
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
		c.srv.pool.wakeAll() // a connection may wait for its own buffer; see move
	}
}

// end waits until the replies of all running calls are sent, and closes the connection.
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
