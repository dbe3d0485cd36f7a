package oncrpc

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"dim/internal/testkit"
)

func TestSlowCallsPerConnectionAreBounded(t *testing.T) {
	t.Parallel()
	_, b, addr := start(t, Options{InFlight: 3})
	c := connect(t, addr)
	for i := range uint32(10) {
		send(t, c, record(message(i, procWait, i)))
	}
	other := connect(t, addr)
	send(t, other, record(message(1, procNull)))
	receive(t, other)
	time.Sleep(50 * time.Millisecond)
	if n := b.ran.Load(); n > 3 {
		t.Errorf("%d calls ran at once", n)
	}
	close(b.gate)
	for range 10 {
		receive(t, c)
	}
}

func TestAClientThatReadsNoRepliesDelaysNoOther(t *testing.T) {
	t.Parallel()
	s, _, addr := start(t, Options{Queue: 1 << 20, Stall: time.Second})
	stuck := connect(t, addr)
	go func() {
		for range 1000 {
			if _, err := stuck.Write(record(message(1, procBig, 1<<20))); err != nil {
				return
			}
		}
	}()
	c := connect(t, addr)
	for range 100 {
		send(t, c, record(message(2, procNull)))
		receive(t, c)
	}
	if m := s.Stats().Memory; m > 4*largeBuffer {
		t.Errorf("%d bytes held for one client", m)
	}
	testkit.Eventually(t, "the stuck client is closed", func() bool {
		return s.Stats().Stalled == 1 && s.Stats().Conns == 1
	})
}

func TestSlowCallsWhoseRepliesAreNotReadAreNoLongerRead(t *testing.T) {
	t.Parallel()
	const conns, perConn = 16, 16 << 20 // bytes of calls
	_, _, addr := start(t, Options{Queue: 256 << 10, Stall: time.Minute})
	calls := bytes.Repeat(record(message(1, procSlowEcho, 4, 1)), 1000)
	var taken atomic.Int64
	var wg sync.WaitGroup
	for range conns {
		c := connect(t, addr)
		wg.Go(func() {
			for sent := 0; sent < perConn; {
				c.SetWriteDeadline(time.Now().Add(2 * time.Second))
				n, err := c.Write(calls)
				sent += n
				taken.Add(int64(n))
				if err != nil {
					return // the server has stopped reading
				}
			}
		})
	}
	wg.Wait()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapInuse > 150<<20 {
		t.Errorf("%d bytes of memory are in use for %d bytes of calls", m.HeapInuse, taken.Load())
	}
	c := connect(t, addr)
	send(t, c, record(message(2, procSlowEcho, 4, 1)))
	receive(t, c)
}

func TestUnfinishedRecordsAreClosed(t *testing.T) {
	t.Parallel()
	s, _, addr := start(t, Options{Stall: time.Second})
	for _, b := range [][]byte{{0x80}, words(lastFragment | 100), append(words(100), make([]byte, 100)...)} {
		send(t, connect(t, addr), b)
	}
	c := connect(t, addr)
	send(t, c, record(message(1, procNull)))
	receive(t, c)
	testkit.Eventually(t, "all are closed", func() bool { return s.Stats().Stalled == 3 && s.Stats().Conns == 1 })
}

func TestClientsWaitForMemory(t *testing.T) {
	t.Parallel()
	s, _, addr := start(t, Options{Memory: 2 * largeBuffer})
	var wg sync.WaitGroup
	payload := make([]byte, 1<<20)
	msg := record(append(message(1, procSlowEcho, 1<<20), payload...))
	for range 8 {
		c := connect(t, addr)
		wg.Go(func() {
			for range 10 {
				c.Write(msg)
				if _, err := io.CopyN(io.Discard, c, int64(len(payload)+32)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	peak := int64(0)
	for range 50 {
		peak = max(peak, s.Stats().Memory)
		time.Sleep(2 * time.Millisecond)
	}
	wg.Wait()
	// Replies to running calls take memory beyond the limit: at most one for each slow call.
	if peak > 20*largeBuffer {
		t.Errorf("%d bytes were in use", peak)
	}
}

func TestTheIdlestConnectionIsClosedAtTheLimit(t *testing.T) {
	t.Parallel()
	s, _, addr := start(t, Options{Conns: 3})
	idle := connect(t, addr)
	testkit.Eventually(t, "two seconds have passed", func() bool { return s.ticks.Load() > 3 })
	for range 2 {
		c := connect(t, addr)
		send(t, c, record(message(1, procNull)))
		receive(t, c)
	}
	closed(t, connect(t, addr)) // is refused, and the idle one is closed too
	closed(t, idle)
	testkit.Eventually(t, "there is room", func() bool { return s.Stats().Conns == 2 })
	c := connect(t, addr)
	send(t, c, record(message(1, procNull)))
	receive(t, c)
}

func TestAConnectionIsClosedWhenItsClientEndsItWithTheLastCall(t *testing.T) {
	t.Parallel()
	s, _, addr := start(t, Options{})
	c := connect(t, addr)
	send(t, c, record(message(1, procNull)))
	c.(*net.TCPConn).CloseWrite()
	receive(t, c)
	testkit.Eventually(t, "the connection is gone", func() bool { return s.Stats().Conns == 0 })
}

func TestAllSlowCallsTogetherAreBounded(t *testing.T) {
	t.Parallel()
	_, b, addr := start(t, Options{Running: 2})
	for i := range uint32(5) {
		send(t, connect(t, addr), record(message(i, procWait, i)))
	}
	c := connect(t, addr)
	testkit.Eventually(t, "two run", func() bool { return b.ran.Load() == 2 })
	send(t, c, record(message(1, procNull)))
	receive(t, c)
	time.Sleep(20 * time.Millisecond)
	if n := b.ran.Load(); n != 2 {
		t.Errorf("%d calls ran at once", n)
	}
	close(b.gate)
	testkit.Eventually(t, "all run", func() bool { return b.ran.Load() == 5 })
}

func TestAConnectionWhoseCallsAreRefusedIsClosed(t *testing.T) {
	t.Parallel()
	for what, proc := range map[string]uint32{"denied": procDenied, "rejected": 99} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			_, _, addr := start(t, Options{})
			c, answers := connect(t, addr), 0
			for ; answers < 2*maxRefused; answers++ {
				if _, err := c.Write(record(message(uint32(answers), proc))); err != nil {
					break
				}
				mark := make([]byte, 4)
				if _, err := io.ReadFull(c, mark); err != nil {
					break
				}
				n := int64(binary.BigEndian.Uint32(mark) &^ lastFragment)
				if _, err := io.CopyN(io.Discard, c, n); err != nil {
					break
				}
			}
			if answers < maxRefused || answers > maxRefused+2 {
				t.Errorf("%d calls were answered, want %d", answers, maxRefused)
			}
			other := connect(t, addr)
			send(t, other, record(message(1, proc)))
			receive(t, other)
		})
	}
}
