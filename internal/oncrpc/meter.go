package oncrpc

import (
	"time"

	"dim/internal/meter"
)

// classCounters are the counters of one class of clients, by the index of a procedure.
type classCounters [shards][]procCounters

func newClassCounters(procs int) *classCounters {
	c := new(classCounters)
	for i := range c {
		c[i] = make([]procCounters, procs)
	}
	return c
}

// class returns the counters of c, which are made when they are first used.
func (s *Server) class(c meter.Class) *classCounters {
	if p := s.classes[c].Load(); p != nil {
		return p
	}
	s.classes[c].CompareAndSwap(nil, newClassCounters(s.rejects.index+1))
	return s.classes[c].Load()
}

// batch sums up calls of one meter that are not counted yet.
type batch struct {
	last  *slot
	meter *meter.Meter
	calls int
	used  int
	procs [4]part
}

// part is the sum of the calls of one procedure in a batch.
type part struct {
	index int
	meter.Sum
}

// add adds a call of procedure s with a request of in bytes. It returns false when the batch has to be counted first,
// because it has another meter or no room for another procedure.
func (b *batch) add(s *slot, call *Call, in int) bool {
	if b.calls > 0 && b.meter != call.Meter {
		return false
	}
	i := 0
	for i < b.used && b.procs[i].index != s.index {
		i++
	}
	if i == b.used {
		if i == len(b.procs) {
			return false
		}
		b.procs[i] = part{index: s.index}
		b.used++
	}
	p := &b.procs[i]
	p.Calls++
	p.BytesIn += uint64(in)
	p.BytesOut += uint64(call.size())
	if call.bad() {
		p.Errors++
	}
	b.last, b.meter = s, call.Meter
	b.calls++
	return true
}

// count counts the calls of the batch, each of which took the time took, and empties it.
func (b *batch) count(s *Server, shard int, took time.Duration) {
	var class meter.Class
	if b.meter != nil {
		class = b.meter.Class
	}
	counters := s.class(class)[shard]
	var sum meter.Sum
	for i := range b.procs[:b.used] {
		p := &b.procs[i]
		counters[p.index].add(&p.Sum, took)
		sum.Calls += p.Calls
		sum.Errors += p.Errors
		sum.BytesIn += p.BytesIn
		sum.BytesOut += p.BytesOut
	}
	if b.meter != nil {
		b.meter.Add(&sum)
	}
	b.last, b.meter, b.calls, b.used = nil, nil, 0, 0
}

// ClassStats returns the counters of one class.
func (s *Server) ClassStats(c meter.Class) []ProcStats {
	return s.procStats(func(index int) ProcStats {
		var ps ProcStats
		s.addClass(&ps, c, index)
		return ps
	})
}

func (s *Server) addClass(ps *ProcStats, c meter.Class, index int) {
	if counters := s.classes[c].Load(); counters != nil {
		for i := range counters {
			ps.add(&counters[i][index])
		}
	}
}
