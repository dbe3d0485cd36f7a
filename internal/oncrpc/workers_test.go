package oncrpc

import (
	"testing"

	"dim/internal/testkit"
)

// Many slow calls at once need as many goroutines. Some of these are kept, and serve later calls.
func TestSomeWorkersAreKeptForLaterCalls(t *testing.T) {
	t.Parallel()
	const conns, each = 4, 32
	s, b, addr := start(t, Options{InFlight: each})
	for range conns {
		c := connect(t, addr)
		for i := range uint32(each) {
			send(t, c, record(message(i, procWait, i)))
		}
		defer func() {
			for range each {
				receive(t, c)
			}
			for i := range uint32(10) {
				send(t, c, record(message(i, procSlowEcho, i)))
				receive(t, c)
			}
			testkit.Eventually(t, "idle workers", func() bool { return s.workers.idle.Load() == idleWorkers })
		}()
	}
	testkit.Eventually(t, "all calls run", func() bool { return b.ran.Load() == conns*each })
	if n := s.workers.idle.Load(); n != 0 {
		t.Errorf("%d idle workers beside calls that run", n)
	}
	close(b.gate)
}
