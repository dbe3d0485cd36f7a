package periodic

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestAFunctionRunsAtIntervalsUntilTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(next(time.Second, phase()))
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
		time.Sleep(next(time.Second, phase()) - time.Millisecond)
		if d := Next(time.Second); d != time.Second+time.Millisecond {
			t.Errorf("the next moment is in %v", d)
		}
	})
}

func TestProcessesHaveTheirOwnMoments(t *testing.T) {
	const parts = 10
	busy := map[time.Duration]int{} // servers, by the tenth of a second in which their moment is
	synctest.Test(t, func(t *testing.T) {
		for i := range 40 {
			first := next(5*time.Second, phaseOf(fmt.Sprintf("is%02d", i), 700)) // as after the start of equal machines
			busy[first/(5*time.Second/parts)]++
		}
		for pid := range 40 {
			first := next(5*time.Second, phaseOf("lab", 4000+pid))
			busy[first/(5*time.Second/parts)]++
		}
	})
	for at, n := range busy {
		if n > 80/parts*3 {
			t.Errorf("%d of 80 processes have their moment in part %d of %d", n, at, parts)
		}
	}
}
