package oncrpc

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"dim/internal/meter"
)

// Cost says how a procedure is run; see the package comment.
type Cost uint8

// The costs: never waits for long; waits for a disk when a cache misses; waits for a disk as a rule.
const (
	Quick Cost = iota
	Patient
	Slow
)

// Program is one version of one program: a table of procedures by their numbers.
type Program struct {
	Name    string
	Number  uint32
	Version uint32
	Procs   []Proc
}

// Proc is one procedure. A nil Serve is PROC_UNAVAIL.
type Proc struct {
	Name string
	Cost Cost
	// Once keeps the replies of a procedure that cannot be repeated with the same result, for clients that
	// send a call again after a reconnect.
	Once  bool
	Serve func(*Call)
}

// Peer is the other end of a connection.
type Peer struct {
	Remote netip.AddrPort // of a TCP connection, else the zero value
	Local  netip.AddrPort // our end
	// Data is what the programs keep for the connection. Calls of one connection run at the same time.
	Data atomic.Value
}

// Call is one call being served. It and all that it points to belong to the procedure until Serve
// returns; nothing of it may be kept.
type Call struct {
	XID   uint32
	Peer  *Peer // who sent it
	Cred  Cred
	Args  Decoder // in place; when it failed, the reply is GARBAGE_ARGS whatever was appended
	Reply Encoder // results go here
	// Local is the program's to keep things in that are costly to allocate. It is nil at first and then keeps
	// its value from one call to the next one, of whatever client, that is served with the same memory.
	Local any
	// Meter counts the call, besides the server, when the program sets it.
	Meter *meter.Meter
	// Slow is told, when the program sets it, that the call took longer than Options.Slow, and which procedure it was. It
	// must not block.
	Slow func(proc string, took time.Duration)

	srv     *Server
	start   int   // of the reply in Reply
	tail    *pipe // what follows the reply, and all that is in Reply; see Splice
	refused Accept
	denied  Deny
	failed  bool
	batch   batch // of calls that were served with this memory and are not counted yet
}

// Context ends when the server shuts down.
func (c *Call) Context() context.Context { return c.srv.ctx }

// Fail counts the call as one that the program answered with an error of its own.
func (c *Call) Fail() { c.failed = true }

// Refuse answers with an RPC-level outcome in place of results.
func (c *Call) Refuse(why Accept) { c.refused = why }

// Deny answers with an authentication error in place of results.
func (c *Call) Deny(why Deny) { c.denied = why }

// Room is how many bytes of data a reply may have just now: less than usual when the server's memory is used up.
func (c *Call) Room() int {
	if c.srv.pool.tight(largeBuffer) {
		return smallBuffer / 2
	}
	return largeBuffer - smallBuffer
}

// decode reads the header and finds the procedure; when there is none to run the reply is already made.
func (c *Call) decode(rec []byte) (s *slot, ok bool) {
	d := NewDecoder(rec)
	c.XID = d.Uint32()
	if d.Uint32() != msgCall || !d.OK() {
		return nil, false
	}
	version := d.Uint32()
	h := header{program: d.Uint32(), version: d.Uint32(), proc: d.Uint32()}
	c.refused, c.denied, c.failed = Success, 0, false
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
	if denied != 0 {
		deny(&c.Reply, c.start, denied)
		return &c.srv.rejects, true
	}
	c.Args = d
	return c.find(&h), true
}

// find looks up the procedure of h.
func (c *Call) find(h *header) *slot {
	outcome, low, high := ProgUnavail, uint32(0), uint32(0)
	for i := range c.srv.programs {
		p := &c.srv.programs[i]
		if p.Number != h.program {
			continue
		}
		if p.Version == h.version {
			if h.proc < uint32(len(p.slots)) && p.slots[h.proc].Serve != nil {
				return &p.slots[h.proc]
			}
			outcome = ProcUnavail
			break
		}
		if outcome == ProgUnavail {
			outcome, low, high = ProgMismatch, p.Version, p.Version
		}
		low, high = min(low, p.Version), max(high, p.Version)
	}
	refuse(&c.Reply, c.start, outcome, low, high)
	return &c.srv.rejects
}

// run serves the call by procedure s and finishes its reply.
func (c *Call) run(s *slot) {
	if s.Serve != nil {
		s.Serve(c)
		switch {
		case c.denied != 0:
			deny(&c.Reply, c.start, c.denied)
		case !c.Args.OK():
			refuse(&c.Reply, c.start, GarbageArgs, 0, 0)
		case c.refused != Success:
			refuse(&c.Reply, c.start, c.refused, 0, 0)
		}
	}
	endReply(&c.Reply, c.start, c.spliced())
}

// spliced is how many bytes follow those in Reply.
func (c *Call) spliced() int {
	if c.tail == nil {
		return 0
	}
	return c.tail.n
}

// size is that of the reply made last.
func (c *Call) size() int { return c.Reply.Len() - c.start + c.spliced() }

// full reports whether the replies made so far must be sent before another one is made.
func (c *Call) full() bool { return c.Reply.Len() > flushAt || c.tail != nil }

// bad reports whether the call counts as an error.
func (c *Call) bad() bool {
	return c.failed || c.denied != 0 || c.refused != Success || !c.Args.OK()
}

// slot is a procedure with its place in the counters.
type slot struct {
	Proc
	index int
}

type program struct {
	Program
	slots []slot
}
