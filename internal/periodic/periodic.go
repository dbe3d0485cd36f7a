// Package periodic runs a function at intervals.
package periodic

import (
	"context"
	"time"
)

// Run calls f every interval until ctx ends, and returns nil then. Calls never overlap: an interval that passes
// while f runs is skipped. The first call comes after one interval.
func Run(ctx context.Context, interval time.Duration, f func(context.Context)) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			f(ctx)
		}
	}
}
