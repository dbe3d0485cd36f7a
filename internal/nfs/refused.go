package nfs

import (
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"
)

// refusedEvery is the shortest interval between log lines of refusals, because clients may repeat refused calls at
// any rate.
const refusedEvery = time.Second

// Refusals counts the calls that were refused because of their sender, by reason.
type Refusals struct {
	Port   uint64 // from a port that needs no privilege
	Export uint64 // for a tree that the client may not use
}

// Refused returns the counters. It may be called at any time.
func (s *Server) Refused() Refusals {
	return Refusals{Port: s.refused.port.Load(), Export: s.refused.export.Load()}
}

type refusals struct {
	log          *slog.Logger
	port, export atomic.Uint64
	next         atomic.Int64 // Unix nanoseconds from which on a refusal is logged
}

// add counts a refusal in n, and logs it unless one was logged within refusedEvery.
func (r *refusals) add(n *atomic.Uint64, reason string, client netip.AddrPort) {
	total := n.Add(1)
	now, next := time.Now().UnixNano(), r.next.Load()
	if now >= next && r.next.CompareAndSwap(next, now+int64(refusedEvery)) {
		r.log.Warn("call refused", "reason", reason, "client", client, "count", total)
	}
}
