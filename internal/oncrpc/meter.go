package oncrpc

import "sync/atomic"

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

func (m *Meter) count(in, out int, bad bool) {
	m.Calls.Add(1)
	m.BytesIn.Add(uint64(in))
	m.BytesOut.Add(uint64(out))
	if bad {
		m.Errors.Add(1)
	}
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
