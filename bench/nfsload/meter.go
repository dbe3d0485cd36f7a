package main

import (
	"fmt"
	"io"
	"math/bits"
	"sync/atomic"
	"time"

	"dim/bench/cputime"
)

// meter counts calls, their latencies and bytes of one pass.
type meter struct {
	calls, names atomic.Uint64
	read         atomic.Uint64
	latency      [64 * 8]atomic.Uint64 // eight buckets for each doubling of nanoseconds
	start        time.Time
	wall         time.Duration
	cpu          float64
}

func newMeter() *meter { return new(meter) }

func (m *meter) begin(pid int) {
	m.calls.Store(0)
	m.names.Store(0)
	m.read.Store(0)
	for i := range m.latency {
		m.latency[i].Store(0)
	}
	m.cpu = cputime.Of(pid)
	m.start = time.Now()
}

func (m *meter) end(pid int) {
	m.wall = time.Since(m.start)
	m.cpu = cputime.Of(pid) - m.cpu
}

// call measures one call.
func (m *meter) call(f func() error) error {
	start := time.Now()
	err := f()
	ns := uint64(time.Since(start))
	exp := bits.Len64(ns)
	m.latency[exp*8+int(ns<<(64-exp)>>60&7)].Add(1)
	m.calls.Add(1)
	return err
}

// merge adds the counts of o.
func (m *meter) merge(o *meter) {
	m.calls.Add(o.calls.Load())
	m.names.Add(o.names.Load())
	m.read.Add(o.read.Load())
	for i := range m.latency {
		m.latency[i].Add(o.latency[i].Load())
	}
}

// quantile returns the lower bound of the bucket in which the q-th part of calls ends.
func (m *meter) quantile(q float64) time.Duration {
	left := uint64(q * float64(m.calls.Load()))
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

func (m *meter) report(w io.Writer, name string, nodes int) {
	calls, wall, gb := float64(m.calls.Load()), m.wall.Seconds(), float64(m.read.Load())/1e9
	fmt.Fprintf(w, "%-9s nodes %d calls %.0f wall %.2fs %.0f/s p50 %s p99 %s", name, nodes, calls, wall, calls/wall,
		m.quantile(0.5).Round(time.Microsecond), m.quantile(0.99).Round(time.Microsecond))
	if gb > 0.01 {
		fmt.Fprintf(w, " read %.3fGB %.2fGB/s", gb, gb/wall)
	}
	if n := m.names.Load(); n > 0 {
		fmt.Fprintf(w, " names %d %.0f/s", n, float64(n)/wall)
	}
	if m.cpu > 0 {
		fmt.Fprintf(w, " | server cpu %.2fs, %.3fs/100k calls, %.3fs/node", m.cpu, m.cpu/calls*1e5,
			m.cpu/float64(nodes))
		if gb > 0.01 {
			fmt.Fprintf(w, ", %.3fs/GB", m.cpu/gb)
		}
	}
	fmt.Fprintln(w)
}
