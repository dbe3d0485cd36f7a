package oncrpc

import (
	"container/list"
	"hash/maphash"
	"net/netip"
	"sync"
)

// The bounds of what is kept for repeated calls. A client repeats no more calls than it had under way when the
// connection broke, so a few hundred replies are enough for each.
const (
	replyMax  = 512       // the longest reply that is kept
	replyCost = 256       // of a reply besides its bytes, about
	clientMax = 128 << 10 // of one client's replies with their costs
)

// replies keeps the replies of calls that cannot be repeated, for clients that lost the connection before the
// reply came and send the call again. Each client, by its address, has its own latest ones, so that a busy client
// takes nothing from another one until all of them together reach the limit; then who has been silent longest
// loses its oldest. There is no limit in time: a client that the network kept away for a day repeats its calls then.
type replies struct {
	seed  maphash.Seed
	limit int64

	mu      sync.Mutex
	bytes   int64
	clients map[netip.Addr]*caller
	order   list.List // of *caller: who called last is in front
}

// caller is one client's replies. Calls that still run are in by alone: they end, and there is a bound on them.
type caller struct {
	addr  netip.Addr
	by    map[replyKey]*reply
	done  []replyKey // finished ones, oldest first
	bytes int64
	place *list.Element
}

// replyKey names a call of a client. The port is not part of it, for a client may come back from another one; whether
// it is one that only root may use is, for what root did must not be told to others.
type replyKey struct {
	xid        uint32
	proc       int
	privileged bool
	sum        uint64 // of credential and arguments
}

// reply is what was answered, without record mark; nil when it was too long. It is set when done is closed.
type reply struct {
	done chan struct{}
	b    []byte
}

func newReplies(limit int64) *replies {
	return &replies{seed: maphash.MakeSeed(), limit: limit, clients: make(map[netip.Addr]*caller)}
}

// run serves call by s, or answers it as the same call was answered before. A call whose
// original still runs waits for it.
func (r *replies) run(call *Call, s *slot) {
	key := r.key(call, s)
	known, fresh := r.begin(call.Peer.Remote.Addr(), key)
	if !fresh {
		<-known.done
		if known.b != nil {
			call.srv.count.repeated.Add(1)
			call.Reply.Truncate(call.start + markSize)
			copy(call.Reply.Extend(len(known.b)), known.b)
			endReply(&call.Reply, call.start, 0)
			return
		}
	}
	call.run(s)
	if fresh {
		r.keep(call.Peer.Remote.Addr(), key, known, call.Reply.b[call.start+markSize:])
	}
}

func (r *replies) key(call *Call, s *slot) replyKey {
	var h maphash.Hash
	h.SetSeed(r.seed)
	maphash.WriteComparable(&h, [3]uint32{call.Cred.Flavor, call.Cred.UID, call.Cred.GID})
	h.Write(call.Args.Rest())
	return replyKey{xid: call.XID, proc: s.index, privileged: call.Peer.Remote.Port() < 1024, sum: h.Sum64()}
}

// begin returns the reply known for key, or a fresh one that the caller must keep.
func (r *replies) begin(addr netip.Addr, key replyKey) (known *reply, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.clients[addr]
	if c == nil {
		c = &caller{addr: addr, by: make(map[replyKey]*reply)}
		c.place = r.order.PushFront(c)
		r.clients[addr] = c
	}
	r.order.MoveToFront(c.place)
	if known, ok := c.by[key]; ok {
		return known, false
	}
	known = &reply{done: make(chan struct{})}
	c.by[key] = known
	return known, true
}

// keep sets the reply b of a call that ended, and lets go of what there is no room for.
func (r *replies) keep(addr netip.Addr, key replyKey, known *reply, b []byte) {
	if len(b) <= replyMax {
		known.b = append([]byte(nil), b...)
	}
	close(known.done)
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.clients[addr]
	c.done = append(c.done, key)
	r.charge(c, replyCost+int64(len(known.b)))
	for c.bytes > clientMax {
		r.forget(c)
	}
	for r.bytes > r.limit {
		r.forget(r.silent())
	}
}

func (r *replies) charge(c *caller, n int64) {
	c.bytes += n
	r.bytes += n
}

// silent returns who called longest ago among those of whom something is kept.
func (r *replies) silent() *caller {
	e := r.order.Back()
	for len(e.Value.(*caller).done) == 0 {
		e = e.Prev()
	}
	return e.Value.(*caller)
}

// forget lets go of c's oldest reply, and of c with the last one.
func (r *replies) forget(c *caller) {
	key := c.done[0]
	c.done = c.done[1:]
	r.charge(c, -replyCost-int64(len(c.by[key].b)))
	delete(c.by, key)
	if len(c.by) == 0 {
		r.order.Remove(c.place)
		delete(r.clients, c.addr)
	}
}
