package nfs

import (
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"
)

// refusedEvery is how often at most a refusal is logged: clients that are turned away may call as often as they like.
const refusedEvery = time.Second

// Refusals counts the calls that were turned away for who sent them, by reason.
type Refusals struct {
	Port   uint64 // from a port that needs no privilege
	Export uint64 // for a tree that is not the client's
}

// Refused returns the counters. It may be called at any time.
func (s *Server) Refused() Refusals {
	return Refusals{Port: s.refused.port.Load(), Export: s.refused.export.Load()}
}

type refusals struct {
	log          *slog.Logger
	port, export atomic.Uint64
	next         atomic.Int64 // nanoseconds since 1970 from which on the next one is logged
}

// add counts one refusal in n, and logs it unless another one was logged just before.
func (r *refusals) add(n *atomic.Uint64, reason string, client netip.AddrPort) {
	total := n.Add(1)
	now, next := time.Now().UnixNano(), r.next.Load()
	if now >= next && r.next.CompareAndSwap(next, now+int64(refusedEvery)) {
		r.log.Warn("call refused", "reason", reason, "client", client, "count", total)
	}
}
