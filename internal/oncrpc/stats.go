package oncrpc

import (
	"math/bits"
	"sync/atomic"
	"time"

	"dim/internal/meter"
)

// LatencyBuckets is the number of latency buckets. Bucket i counts the calls that took less than 1 µs << i and are
// not in an earlier one. The last bucket counts all others.
const LatencyBuckets = 24

// shards is the number of copies of each counter, so that connections seldom write the same cache line.
const shards = 8

// Stats is a snapshot of a server's counters.
type Stats struct {
	Conns      int    // open now
	Accepted   uint64 // connections since the start
	Refused    uint64 // connections refused at the limit
	Stalled    uint64 // connections closed because their client made no progress
	Broken     uint64 // connections closed because of bytes that are not RPC
	Rejected   uint64 // calls of procedures that do not exist, or with unusable credentials
	Repeated   uint64 // calls answered with a reply that was kept
	HandedOver uint64 // Patient calls that took so long that another goroutine took over the reading
	Memory     int64  // bytes of large buffers in use
	Procs      []ProcStats
}

// ProcStats counts the calls of one procedure.
type ProcStats struct {
	Program  string
	Proc     string
	Calls    uint64
	Errors   uint64
	BytesIn  uint64
	BytesOut uint64
	Busy     time.Duration // sum of all latencies
	Latency  [LatencyBuckets]uint64
}

type procCounters struct {
	errors, bytesIn, bytesOut, busy atomic.Uint64
	latency                         [LatencyBuckets]atomic.Uint64
}

type serverCounters struct {
	accepted, refused, stalled, broken, repeated, handedOver atomic.Uint64
}

// add adds calls, each of which took d.
func (c *procCounters) add(calls *meter.Sum, d time.Duration) {
	c.latency[min(bits.Len64(uint64(d)/1000), LatencyBuckets-1)].Add(calls.Calls)
	c.busy.Add(calls.Calls * uint64(d))
	c.bytesIn.Add(calls.BytesIn)
	c.bytesOut.Add(calls.BytesOut)
	if calls.Errors > 0 {
		c.errors.Add(calls.Errors)
	}
}

// Stats returns the counters. It may be called at any time.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	conns := len(s.conns)
	s.mu.Unlock()
	st := Stats{
		Conns:      conns,
		Accepted:   s.count.accepted.Load(),
		Refused:    s.count.refused.Load(),
		Stalled:    s.count.stalled.Load(),
		Broken:     s.count.broken.Load(),
		Repeated:   s.count.repeated.Load(),
		HandedOver: s.count.handedOver.Load(),
		Memory:     s.pool.lent.Load(),
	}
	rejects := s.sum(s.rejects.index)
	st.Rejected = rejects.Calls
	st.Procs = s.procStats(s.sum)
	return st
}

// procStats returns the counters of each procedure, which sum returns by the procedure's index.
func (s *Server) procStats(sum func(index int) ProcStats) (list []ProcStats) {
	for _, p := range s.programs {
		for _, slot := range p.slots {
			if slot.Serve == nil {
				continue
			}
			ps := sum(slot.index)
			ps.Program, ps.Proc = p.Name, slot.Name
			list = append(list, ps)
		}
	}
	return list
}

func (s *Server) sum(index int) ProcStats {
	var ps ProcStats
	for c := range s.classes {
		s.addClass(&ps, meter.Class(c), index)
	}
	return ps
}

func (ps *ProcStats) add(c *procCounters) {
	ps.Errors += c.errors.Load()
	ps.BytesIn += c.bytesIn.Load()
	ps.BytesOut += c.bytesOut.Load()
	ps.Busy += time.Duration(c.busy.Load())
	for j := range c.latency {
		n := c.latency[j].Load()
		ps.Latency[j] += n
		ps.Calls += n
	}
}
