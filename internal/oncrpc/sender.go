package oncrpc

import (
	"bytes"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// sender writes replies to a connection. A goroutine that finds no other one writing writes its own replies, and then
// those that were queued meanwhile. Replies that are made at the same time therefore share one system call.
type sender struct {
	nc    net.Conn
	raw   syscall.RawConn
	clock *atomic.Int64 // the server's ticks
	since atomic.Int64  // tick at which the present write began; 0: none

	mu      sync.Mutex
	drained sync.Cond // queued fell, or err was set
	queue   []packet
	spare   []packet // the memory of the previous queue
	vec     net.Buffers
	now     []byte // input of onWrite, then what it has not written; belongs to the writing goroutine
	more    bool   // whether more bytes follow now
	onWrite func(fd uintptr) bool
	queued  int // memory of packets that are not written yet, in bytes
	writing bool
	err     error
}

const (
	// packetCost is what a queued packet takes besides its bytes, estimated.
	packetCost = 64
	// compactMax is the size in bytes up to which replies that have to wait are copied out of their buffer.
	compactMax = 4 << 10
)

// packet is one or more replies in one buffer. The last one may end with the content of a pipe.
type packet struct {
	b    []byte
	own  *buffer
	tail *pipe
}

// cost is the memory that p holds, in bytes: all of its buffer, however little of that are replies.
func (p packet) cost() int {
	n := packetCost + len(p.b)
	if p.own != nil {
		n = packetCost + len(p.own.mem)
	}
	if p.tail != nil {
		n += p.tail.n
	}
	return n
}

// compact returns p with replies that are short in memory of their own, and releases their buffer.
func (p packet) compact() packet {
	if p.own == nil || p.tail != nil || len(p.b) > compactMax {
		return p
	}
	short := packet{b: bytes.Clone(p.b)}
	p.release()
	return short
}

func (p packet) release() {
	if p.own != nil {
		p.own.release()
	}
	if p.tail != nil {
		p.tail.release()
	}
}

func (s *sender) init(nc net.Conn, raw syscall.RawConn, clock *atomic.Int64) {
	s.nc, s.raw, s.clock = nc, raw, clock
	s.drained.L = &s.mu
	s.onWrite = func(fd uintptr) bool {
		s.now = s.now[writeNow(fd, s.now, s.more):]
		return true
	}
}

// send writes p, or queues it for the goroutine that writes. It releases p in either case.
func (s *sender) send(p packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		p.release()
		return
	}
	if s.writing {
		p = p.compact()
	}
	s.queue = append(s.queue, p)
	s.queued += p.cost()
	if s.writing {
		return
	}
	s.writing = true
	for len(s.queue) > 0 {
		q := s.queue
		s.queue, s.spare = s.spare[:0], q
		s.mu.Unlock()
		n, err := s.write(q)
		s.mu.Lock()
		s.queued -= n
		if err != nil {
			s.err = err
			s.dropQueue()
		}
		s.drained.Broadcast()
	}
	s.writing = false
}

// write writes the packets and releases them. n is their cost, also after an error.
func (s *sender) write(q []packet) (n int, err error) {
	for _, p := range q {
		n += p.cost()
	}
	s.since.Store(s.clock.Load())
	for rest := q; len(rest) > 0 && err == nil; {
		upTo := 1 + slices.IndexFunc(rest, func(p packet) bool { return p.tail != nil })
		if upTo == 0 {
			upTo = len(rest)
		}
		err = s.writeRun(rest[:upTo])
		rest = rest[upTo:]
	}
	s.since.Store(0)
	for i, p := range q {
		p.release()
		q[i] = packet{}
	}
	return n, err
}

// writeRun writes packets, of which only the last one may have a tail.
func (s *sender) writeRun(q []packet) (err error) {
	tail := q[len(q)-1].tail
	if len(q) == 1 {
		err = s.writeOne(q[0].b, tail != nil)
	} else {
		s.vec = s.vec[:0]
		for _, p := range q {
			s.vec = append(s.vec, p.b)
		}
		vec := s.vec
		_, err = vec.WriteTo(s.nc)
	}
	if tail == nil || err != nil {
		return err
	}
	if waitErr := s.raw.Write(func(fd uintptr) (done bool) {
		done, err = tail.drain(fd)
		return done
	}); waitErr != nil {
		return waitErr
	}
	return err
}

// writeOne tries to write b with a raw system call, which nearly always writes all of it, and writes the rest in
// the ordinary way. This is right for large b too: in an ordinary call the copy takes long enough for the scheduler
// to start another thread, and that costs more than the copy. more tells the kernel that the rest of a reply
// follows.
func (s *sender) writeOne(b []byte, more bool) error {
	s.now, s.more = b, more
	if err := s.raw.Write(s.onWrite); err != nil {
		return err
	}
	b = s.now
	s.now = nil
	if len(b) == 0 {
		return nil
	}
	_, err := s.nc.Write(b)
	return err
}

func (s *sender) dropQueue() {
	for i, p := range s.queue {
		s.queued -= p.cost()
		p.release()
		s.queue[i] = packet{}
	}
	s.queue = s.queue[:0]
}

// await blocks until queued packets hold at most limit bytes. It returns the error of the first write that failed.
func (s *sender) await(limit int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.queued > limit && s.err == nil {
		s.drained.Wait()
	}
	return s.err
}
