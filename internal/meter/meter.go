// Package meter counts what the calls of one client cost, and says in which class of clients they are counted.
//
// Whoever serves a client keeps its Meter and gives it to the protocol with each answer. The protocol adds to the
// counts, and may count by class whatever else it measures, such as calls and latencies by procedure.
//
// All types may be used by any number of goroutines. The package must not know what a client is nor any protocol.
package meter

import "sync/atomic"

// Class is a number for a kind of client whose calls are counted apart from those of others. Class 0 is that of the
// calls without a Meter.
type Class uint8

// Counts are the totals of one client.
type Counts struct{ Calls, Errors, BytesIn, BytesOut atomic.Uint64 }

// Meter counts the calls of one client. It does not change: a client that moves to another class gets another Meter
// with the same Counts.
type Meter struct {
	*Counts
	Class Class
}

// Sum is what a number of calls add to a Meter.
type Sum struct{ Calls, Errors, BytesIn, BytesOut uint64 }

// Add adds s.
func (c *Counts) Add(s *Sum) {
	c.Calls.Add(s.Calls)
	c.BytesIn.Add(s.BytesIn)
	c.BytesOut.Add(s.BytesOut)
	if s.Errors > 0 {
		c.Errors.Add(s.Errors)
	}
}
