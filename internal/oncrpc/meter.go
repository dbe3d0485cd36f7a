package oncrpc

import (
	"sync/atomic"
	"time"
)

// Class is a kind of client whose calls are counted apart from those of others.
type Class struct{ shards [shards][]procCounters }

// NewClass returns a class of s. Its counts are part of Server.Stats too.
func (s *Server) NewClass() *Class {
	c := new(Class)
	for i := range c.shards {
		c.shards[i] = make([]procCounters, s.rejects.index+1)
	}
	s.mu.Lock()
	s.classes = append(s.classes, c)
	s.mu.Unlock()
	return c
}

// Meter counts the calls of one client. A program gives it to each of its calls (Call.Meter). The class may be changed
// by giving other calls another Meter with the same Counts.
type Meter struct {
	*Counts
	Class *Class
}

// Counts is what a Meter counts.
type Counts struct{ Calls, Errors, BytesIn, BytesOut atomic.Uint64 }

func (m *Meter) add(p *part) {
	m.Calls.Add(p.calls)
	m.BytesIn.Add(p.in)
	m.BytesOut.Add(p.out)
	if p.errors > 0 {
		m.Errors.Add(p.errors)
	}
}

// batch is calls of one meter that are not counted yet.
type batch struct {
	last  *slot
	meter *Meter
	calls int
	used  int
	procs [4]part
}

// part is what a batch has of one procedure.
type part struct {
	index                  int
	calls, errors, in, out uint64
}

// add adds a call; false when there is no room for one of its kind.
func (b *batch) add(s *slot, m *Meter, in, out int, bad bool) bool {
	if b.calls > 0 && b.meter != m {
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
	p.calls++
	p.in += uint64(in)
	p.out += uint64(out)
	if bad {
		p.errors++
	}
	b.last, b.meter = s, m
	b.calls++
	return true
}

// count counts the calls of the batch, each of which took so long, and empties it.
func (b *batch) count(s *Server, shard int, took time.Duration) {
	counters := s.counters[shard]
	if b.meter != nil {
		counters = b.meter.Class.shards[shard]
	}
	var sum part
	for i := range b.procs[:b.used] {
		p := &b.procs[i]
		counters[p.index].add(p, took)
		sum.calls += p.calls
		sum.errors += p.errors
		sum.in += p.in
		sum.out += p.out
	}
	if b.meter != nil {
		b.meter.add(&sum)
	}
	b.last, b.meter, b.calls, b.used = nil, nil, 0, 0
}

// ClassStats returns the counters of one class; of nil those of the calls that belong to none.
func (s *Server) ClassStats(c *Class) []ProcStats {
	return s.procStats(func(index int) ProcStats {
		var ps ProcStats
		if c != nil {
			c.add(&ps, index)
			return ps
		}
		for i := range s.counters {
			ps.add(&s.counters[i][index])
		}
		return ps
	})
}

func (c *Class) add(ps *ProcStats, index int) {
	for i := range c.shards {
		ps.add(&c.shards[i][index])
	}
}
