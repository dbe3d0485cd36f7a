package oncrpc

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/meter"
)

// serveProgram serves p to one connection.
func serveProgram(t *testing.T, s *Server) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return connect(t, ln.Addr().String())
}

// Calls that arrive together are counted together, each with its procedure, its meter and its class.
func TestEachCallOfABatchIsCounted(t *testing.T) {
	t.Parallel()
	var meters [2]*meter.Meter
	var procs []Proc
	for i := range 7 {
		procs = append(procs, Proc{Name: fmt.Sprint("proc", i), Serve: func(c *Call) {
			if m := c.Args.Uint32(); m < 2 {
				c.Meter = meters[m]
			}
			if i == 3 {
				c.Fail()
			}
			c.Reply.Uint32(0)
		}})
	}
	s := NewServer(Options{}, Program{Name: "bench", Number: testProgram, Version: 3, Procs: procs})
	for i := range meters {
		meters[i] = &meter.Meter{Counts: new(meter.Counts), Class: meter.Class(i + 1)}
	}
	c := serveProgram(t, s)
	var calls [][]byte
	for i := range 9 * 7 {
		who := i / 21 // runs of calls of one client; the last run has no meter
		calls = append(calls, record(message(uint32(i), uint32(i%7), uint32(who))))
	}
	send(t, c, bytes.Join(calls, nil))
	for i := range calls {
		if got := receive(t, c); xidOf(got) != uint32(i) {
			t.Fatalf("reply %d has xid %d", i, xidOf(got))
		}
	}
	for _, p := range s.Stats().Procs {
		want := ProcStats{Program: "bench", Proc: p.Proc, Calls: 9, BytesIn: 9 * 44, BytesOut: 9 * 32}
		if p.Proc == "proc3" {
			want.Errors = 9
		}
		got := p
		got.Busy, got.Latency = 0, [LatencyBuckets]uint64{}
		if diff := cmp.Diff(want, got); diff != "" || p.Busy <= 0 {
			t.Errorf("took %v: %s", p.Busy, diff)
		}
	}
	counted := func(c meter.Class) (n uint64) {
		for _, p := range s.ClassStats(c) {
			n += p.Calls
		}
		return n
	}
	for i, m := range meters {
		want := [5]uint64{21, 21, 3, 21 * 44, 21 * 32}
		got := [5]uint64{counted(m.Class), m.Calls.Load(), m.Errors.Load(), m.BytesIn.Load(), m.BytesOut.Load()}
		if got != want {
			t.Errorf("meter %d: calls of its class, calls, errors, bytes: %d, want %d", i, got, want)
		}
	}
	if n := counted(0); n != 21 {
		t.Errorf("%d calls without a meter, want 21", n)
	}
}

// The clock is read once for calls that arrive together. Slow must still be called for the right one.
func TestTheSlowCallOfABatchIsFound(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var reported []string
	report := func(proc string, took time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		reported = append(reported, proc)
	}
	var s *Server
	procs := []Proc{{Name: "late", Serve: func(c *Call) {
		c.Slow = report
		for from := s.ticks.Load(); s.ticks.Load() < from+2; {
			time.Sleep(time.Millisecond)
		}
	}}}
	for i := range 4 {
		procs = append(procs, Proc{Name: fmt.Sprint("quick", i), Serve: func(c *Call) { c.Slow = report }})
	}
	s = NewServer(Options{}, Program{Name: "bench", Number: testProgram, Version: 3, Procs: procs})
	c := serveProgram(t, s)
	for _, batch := range [][]uint32{{1, 0, 2, 3}, {1, 2, 3, 4, 0, 1}} { // with room in the batch, and without
		var calls [][]byte
		for _, proc := range batch {
			calls = append(calls, record(message(proc, proc)))
		}
		send(t, c, bytes.Join(calls, nil))
		for range batch {
			receive(t, c)
		}
		mu.Lock()
		if len(reported) == 0 || reported[0] != "late" {
			t.Errorf("Slow was called for %q, want late", reported)
		}
		reported = nil
		mu.Unlock()
	}
}
