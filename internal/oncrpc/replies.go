package oncrpc

import (
	"hash/maphash"
	"net/netip"
	"sync"
)

// replyMax is the longest reply that is kept.
const replyMax = 512

// replies keeps the replies of calls that cannot be repeated, for clients that lost the connection before the
// reply came and send the call again. It holds the latest ones, in a ring.
type replies struct {
	seed maphash.Seed

	mu   sync.Mutex
	by   map[replyKey]*reply
	ring []replyKey
	next int
}

// replyKey names a call. The port is not part of it: a client may come back from another one.
type replyKey struct {
	client netip.Addr
	xid    uint32
	proc   int
	sum    uint64
}

// reply is what was answered, without record mark; nil when it was too long. It is set when done is closed.
type reply struct {
	done chan struct{}
	b    []byte
}

func newReplies(n int) *replies {
	return &replies{seed: maphash.MakeSeed(), by: make(map[replyKey]*reply), ring: make([]replyKey, n)}
}

// run serves call by s, or answers it as the same call was answered before. A call whose
// original still runs waits for it.
func (r *replies) run(call *Call, s *slot) {
	key := replyKey{
		client: call.Client.Addr(),
		xid:    call.XID,
		proc:   s.index,
		sum:    maphash.Bytes(r.seed, call.Args.Rest()),
	}
	known, fresh := r.begin(key)
	if !fresh {
		<-known.done
		if known.b != nil {
			call.srv.count.repeated.Add(1)
			call.Reply.Truncate(call.start + markSize)
			copy(call.Reply.Extend(len(known.b)), known.b)
			endReply(&call.Reply, call.start)
			return
		}
	}
	call.run(s)
	if fresh {
		if b := call.Reply.b[call.start+markSize:]; len(b) <= replyMax {
			known.b = append([]byte(nil), b...)
		}
		close(known.done)
	}
}

// begin returns the reply kept for key, or a fresh one that the caller must finish.
func (r *replies) begin(key replyKey) (known *reply, fresh bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.by[key]; ok {
		return known, false
	}
	known = &reply{done: make(chan struct{})}
	delete(r.by, r.ring[r.next])
	r.ring[r.next] = key
	r.next = (r.next + 1) % len(r.ring)
	r.by[key] = known
	return known, true
}
