// Package periodic runs a function at intervals.
package periodic

import (
	"context"
	"time"
)

// Run calls f every interval until ctx ends, and returns nil then. Calls never overlap: an interval that passes
// while f runs is skipped. All that runs at the same interval in a process runs at the same moments, see Next, so that
// an idle process is awake as seldom as possible. The first call comes after half an interval to one and a half.
func Run(ctx context.Context, interval time.Duration, f func(context.Context)) error {
	first := Next(interval)
	if first < interval/2 {
		first += interval
	}
	timer := time.NewTimer(first)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			f(ctx)
			timer.Reset(Next(interval))
		}
	}
}

// Next returns the time until the clock shows a multiple of interval, or the one after that if it is very near: the
// clock may have been set back a little since a timer was set to it.
func Next(interval time.Duration) time.Duration {
	left := interval - time.Duration(time.Now().UnixNano())%interval
	if left < interval/16 {
		left += interval
	}
	return left
}
