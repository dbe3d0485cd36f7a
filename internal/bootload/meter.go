package bootload

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Meter counts calls, their latencies and bytes. The zero Meter is ready for use.
type Meter struct {
	Calls atomic.Uint64
	Names atomic.Uint64 // what else the user of the Meter counts
	Read  atomic.Uint64 // bytes of files

	latency [64 * 8]atomic.Uint64 // eight buckets for each doubling of nanoseconds
}

// call measures one call.
func (m *Meter) call(f func() error) error {
	start := time.Now()
	err := f()
	ns := uint64(time.Since(start))
	exp := bits.Len64(ns)
	m.latency[exp*8+int(ns<<(64-exp)>>60&7)].Add(1)
	m.Calls.Add(1)
	return err
}

// Quantile returns the lower bound of the bucket in which the q-th part of calls ends.
func (m *Meter) Quantile(q float64) time.Duration {
	left := uint64(q * float64(m.Calls.Load()))
	for i := range m.latency {
		n := m.latency[i].Load()
		if n > left {
			exp, eighth := i/8, uint64(i%8)
			return time.Duration((8 + eighth) << exp >> 4)
		}
		left -= n
	}
	return 0
}
