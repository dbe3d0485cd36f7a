package oncrpc

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"dim/internal/meter"
)

// Cost says how a procedure runs; see the package comment.
type Cost uint8

// The costs.
const (
	Quick   Cost = iota // never waits
	Patient             // waits for a disk when a cache misses
	Slow                // usually waits for a disk
)

// Program is one version of one program: a table of procedures by their numbers.
type Program struct {
	Name    string
	Number  uint32
	Version uint32
	Procs   []Proc
}

// Proc is one procedure. If Serve is nil, calls are answered with PROC_UNAVAIL.
type Proc struct {
	Name string
	Cost Cost
	// Once is set for a procedure that cannot be repeated with the same result. Its replies are kept for clients that
	// send a call again after they reconnected.
	Once  bool
	Serve func(*Call)
}

// Peer is the other end of a connection. The addresses of a connection that is not TCP are the zero value.
type Peer struct {
	Remote netip.AddrPort
	Local  netip.AddrPort // our end
	// Data holds what the programs keep for the connection. Calls of one connection may run at the same time.
	Data atomic.Value
}

// Call is a call that is being served. It belongs to the procedure, with all that it points to but its Peer, until
// Serve returns.
type Call struct {
	XID   uint32
	Peer  *Peer // who sent it
	Cred  Cred
	Args  Decoder // in place; if it has failed, the reply is GARBAGE_ARGS whatever was appended
	Reply Encoder // the procedure appends its results
	// Local is for what is costly to allocate. It is nil at first. Then it keeps its value from one call to the
	// next one, of any client, that is served with the same memory.
	Local any
	// Meter, if the program sets it, counts the call besides the server.
	Meter *meter.Meter
	// Slow, if the program sets it, is called after a call that took longer than Options.Slow, with the name of the
	// procedure. It must not block.
	Slow func(proc string, took time.Duration)

	srv    *Server
	start  int   // of the reply in Reply
	tail   *pipe // follows all that is in Reply; see Splice
	denied bool
	failed bool
	batch  batch // calls that were served with this memory and are not counted yet
}

// Context returns a context that ends when the server shuts down.
func (c *Call) Context() context.Context { return c.srv.ctx }

// Fail marks the call as answered with an error of the program. Only the counters show it.
func (c *Call) Fail() { c.failed = true }

// Deny answers with AUTH_TOOWEAK in place of results: the user in the credential is not to be believed.
func (c *Call) Deny() { c.denied = true }

// Room returns how many bytes of data a reply may have now: fewer than usual when the server's memory is used up.
func (c *Call) Room() int {
	if c.srv.pool.overLimit(largeBuffer) {
		return smallBuffer / 2
	}
	return largeBuffer - smallBuffer
}

// decode reads the header and finds the procedure. If there is none to run, the reply is made and s.Serve is nil.
// If rec is no call, ok is false.
func (c *Call) decode(rec []byte) (s *slot, ok bool) {
	d := NewDecoder(rec)
	c.XID = d.Uint32()
	if d.Uint32() != msgCall || !d.OK() {
		return nil, false
	}
	version := d.Uint32()
	h := header{program: d.Uint32(), version: d.Uint32(), proc: d.Uint32()}
	c.denied, c.failed = false, false
	c.Meter, c.Slow = nil, nil
	c.start = c.Reply.Len()
	beginReply(&c.Reply, c.XID)
	if version != rpcVersion && d.OK() {
		denyVersion(&c.Reply, c.start)
		return &c.srv.rejects, true
	}
	denied := c.Cred.decode(&d)
	if !d.OK() {
		return nil, false
	}
	if denied != authOK {
		deny(&c.Reply, c.start, denied)
		return &c.srv.rejects, true
	}
	c.Args = d
	return c.find(&h), true
}

// find returns the procedure of h. If there is none, it makes the reply.
func (c *Call) find(h *header) *slot {
	no := refusal{outcome: progUnavail}
	for i := range c.srv.programs {
		p := &c.srv.programs[i]
		if p.Number != h.program {
			continue
		}
		if p.Version == h.version {
			if h.proc < uint32(len(p.slots)) && p.slots[h.proc].Serve != nil {
				return &p.slots[h.proc]
			}
			no.outcome = procUnavail
			break
		}
		if no.outcome == progUnavail {
			no = refusal{progMismatch, p.Version, p.Version}
		}
		no.low, no.high = min(no.low, p.Version), max(no.high, p.Version)
	}
	refuse(&c.Reply, c.start, no)
	return &c.srv.rejects
}

// run serves the call with procedure s and finishes its reply.
func (c *Call) run(s *slot) {
	if s.Serve != nil {
		s.Serve(c)
		switch {
		case c.denied:
			deny(&c.Reply, c.start, tooWeak)
		case !c.Args.OK():
			refuse(&c.Reply, c.start, refusal{outcome: garbageArgs})
		}
	}
	endReply(&c.Reply, c.start, c.spliced())
}

// spliced returns how many bytes follow those in Reply.
func (c *Call) spliced() int {
	if c.tail == nil {
		return 0
	}
	return c.tail.n
}

// size returns the size of the last reply.
func (c *Call) size() int { return c.Reply.Len() - c.start + c.spliced() }

// full reports whether the replies in c must be sent before another one is made.
func (c *Call) full() bool { return c.Reply.Len() > flushAt || c.tail != nil }

// bad reports whether the call counts as an error.
func (c *Call) bad() bool {
	return c.failed || c.denied || !c.Args.OK()
}

// slot is a procedure with its index in the counters.
type slot struct {
	Proc
	index int
}

type program struct {
	Program
	slots []slot
}
