package oncrpc

import (
	"container/list"
	"hash/maphash"
	"net/netip"
	"sync"
)

// Bounds of the replies that are kept for repeated calls. A client repeats no more calls than it had under way when the
// connection broke, so a few hundred replies for each are enough.
const (
	replyMax  = 512       // bytes of the longest reply that is kept
	replyCost = 256       // bytes that a reply takes besides its own, estimated
	clientMax = 128 << 10 // bytes that the replies of one client take
)

// replies keeps the replies of calls that cannot be repeated, for clients that lose the connection before a reply and
// send the call again. The latest ones are kept for each client address, so that a busy client does not displace those
// of others. When all clients together reach the limit, the one whose last call is longest ago loses its oldest reply.
// Replies do not expire, because a client that was cut off for a day then repeats its calls.
type replies struct {
	seed  maphash.Seed
	limit int64

	mu      sync.Mutex
	bytes   int64
	clients map[netip.Addr]*clientReplies
	order   list.List // of *clientReplies: the client that called last is in front
}

// clientReplies are the replies of one client. Calls that still run are in by only: their number is bounded elsewhere.
type clientReplies struct {
	addr    netip.Addr
	by      map[replyKey]*reply
	done    []replyKey // finished ones, oldest first
	bytes   int64
	element *list.Element
}

// replyKey identifies a call of a client. It does not hold the port, because a client may reconnect from another
// one. It holds whether the port is privileged, so that the replies to root are not repeated to other users.
type replyKey struct {
	xid        uint32
	proc       int
	privileged bool
	sum        uint64 // of credential and arguments
}

// reply is a reply without its record mark. b is set before done is closed, and nil if the reply is too long to keep.
type reply struct {
	done chan struct{}
	b    []byte
}

func newReplies(limit int64) *replies {
	return &replies{seed: maphash.MakeSeed(), limit: limit, clients: make(map[netip.Addr]*clientReplies)}
}

// run serves call with s, or repeats the reply to an earlier call that was the same. If that still runs, run waits for
// it.
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
	switch {
	case fresh && call.denied:
		r.drop(call.Peer.Remote.Addr(), key, known)
	case fresh:
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

// begin returns the reply for key, or a fresh one that the caller has to pass to keep.
func (r *replies) begin(addr netip.Addr, key replyKey) (known *reply, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.clients[addr]
	if c == nil {
		c = &clientReplies{addr: addr, by: make(map[replyKey]*reply)}
		c.element = r.order.PushFront(c)
		r.clients[addr] = c
	}
	r.order.MoveToFront(c.element)
	if known, ok := c.by[key]; ok {
		return known, false
	}
	known = &reply{done: make(chan struct{})}
	c.by[key] = known
	return known, true
}

// drop forgets a call that was denied. A caller that has no rights takes no memory.
func (r *replies) drop(addr netip.Addr, key replyKey, known *reply) {
	close(known.done)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(r.clients[addr], key)
}

// keep sets b as the reply of a call that has ended, and evicts replies that exceed the bounds.
func (r *replies) keep(addr netip.Addr, key replyKey, known *reply, b []byte) {
	if len(b) <= replyMax {
		known.b = append([]byte(nil), b...)
	}
	close(known.done)
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.clients[addr]
	c.done = append(c.done, key)
	r.addBytes(c, replyCost+int64(len(known.b)))
	for c.bytes > clientMax {
		r.evict(c)
	}
	for r.bytes > r.limit {
		r.evict(r.leastRecent())
	}
}

func (r *replies) addBytes(c *clientReplies, n int64) {
	c.bytes += n
	r.bytes += n
}

// leastRecent returns the client whose last call is longest ago, of those with finished replies.
func (r *replies) leastRecent() *clientReplies {
	e := r.order.Back()
	for len(e.Value.(*clientReplies).done) == 0 {
		e = e.Prev()
	}
	return e.Value.(*clientReplies)
}

// evict drops the oldest reply of c.
func (r *replies) evict(c *clientReplies) {
	key := c.done[0]
	c.done = c.done[1:]
	r.addBytes(c, -replyCost-int64(len(c.by[key].b)))
	r.remove(c, key)
}

// remove removes a call of c, and c itself with its last one.
func (r *replies) remove(c *clientReplies, key replyKey) {
	delete(c.by, key)
	if len(c.by) == 0 {
		r.order.Remove(c.element)
		delete(r.clients, c.addr)
	}
}
