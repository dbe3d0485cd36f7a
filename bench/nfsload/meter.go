package main

import (
	"fmt"
	"io"
	"time"

	"dim/internal/bootload"
	"dim/internal/procstat"
)

// meter measures one pass.
type meter struct {
	*bootload.Meter
	start time.Time
	wall  time.Duration
	cpu   float64
}

func newMeter() *meter { return &meter{Meter: new(bootload.Meter)} }

func (m *meter) begin(pid int) {
	m.cpu = procstat.CPUTime(pid)
	m.start = time.Now()
}

func (m *meter) end(pid int) {
	m.wall = time.Since(m.start)
	m.cpu = procstat.CPUTime(pid) - m.cpu
}

func (m *meter) report(w io.Writer, name string, nodes int) {
	calls, wall, gb := float64(m.Calls.Load()), m.wall.Seconds(), float64(m.Read.Load())/1e9
	fmt.Fprintf(w, "%-9s nodes %d calls %.0f wall %.2fs %.0f/s p50 %s p99 %s", name, nodes, calls, wall, calls/wall,
		m.Quantile(0.5).Round(time.Microsecond), m.Quantile(0.99).Round(time.Microsecond))
	if gb > 0.01 {
		fmt.Fprintf(w, " read %.3fGB %.2fGB/s", gb, gb/wall)
	}
	if n := m.Names.Load(); n > 0 {
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
