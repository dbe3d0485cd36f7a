package tftp

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
)

// Transfers are started up to a bound. One that waits for its client leaves its place to the next one.
func TestFewTransfersAreStartedAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{}
		ctx, cancel := context.WithCancel(t.Context())
		const more = 3
		places, results := make(chan func(), 100), make(chan bool, 100)
		bound := max(2, runtime.GOMAXPROCS(0)/2)
		for range bound + more {
			go func() {
				started, ok := s.begin(ctx)
				places <- started
				results <- ok
			}()
		}
		if synctest.Wait(); len(results) != bound {
			t.Errorf("%d transfers are started, want %d", len(results), bound)
		}
		first := <-places
		first()
		first() // counts once
		if synctest.Wait(); len(results) != bound+1 {
			t.Errorf("after one waits for its client %d are started, want %d", len(results), bound+1)
		}
		cancel()
		started := 0
		for range bound + more {
			if <-results {
				started++
			}
		}
		if started != bound+1 {
			t.Errorf("after the end of the server %d were started, want %d", started, bound+1)
		}
	})
}
