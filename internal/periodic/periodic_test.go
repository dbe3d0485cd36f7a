package periodic

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestAFunctionRunsAtIntervalsUntilTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		begin, calls := time.Now(), []time.Duration{}
		err := Run(ctx, time.Second, func(context.Context) {
			calls = append(calls, time.Since(begin))
			time.Sleep(300 * time.Millisecond)
		})
		if err != nil || len(calls) != 3 || calls[0] != time.Second || calls[2] != 3*time.Second {
			t.Errorf("calls at %v, error %v", calls, err)
		}
		if took := time.Since(begin); took != 3500*time.Millisecond {
			t.Errorf("it returned after %v", took)
		}
	})
}

func TestFunctionsRunAtTheSameMoments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		moments, calls := map[time.Time]bool{}, 0
		var all sync.WaitGroup
		var mu sync.Mutex
		for i := range 10 {
			time.Sleep(70 * time.Millisecond)
			all.Go(func() {
				_ = Run(ctx, time.Duration(1+i%2)*time.Second, func(context.Context) {
					mu.Lock()
					defer mu.Unlock()
					moments[time.Now()] = true
					calls++
				})
			})
		}
		all.Wait()
		if len(moments) > 60 || calls < 400 {
			t.Errorf("%d calls at %d moments of a minute", calls, len(moments))
		}
	})
}

func TestAMomentThatIsVeryNearIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Second - time.Millisecond)
		if d := Next(time.Second); d != time.Second+time.Millisecond {
			t.Errorf("the next moment is in %v", d)
		}
	})
}
