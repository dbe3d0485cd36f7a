package periodic

import (
	"context"
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
