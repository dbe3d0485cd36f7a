// Package periodic runs a function at intervals.
package periodic

import (
	"context"
	"hash/fnv"
	"io"
	"os"
	"strconv"
	"time"
)

// Run calls f every interval until ctx ends, and returns nil then. Calls never overlap: an interval that passes
// while f runs is skipped. All that runs at the same interval in a process runs at the same moments, see Next, so that
// an idle process is awake as seldom as possible. The first call comes after half an interval to one and a half.
func Run(ctx context.Context, interval time.Duration, f func(context.Context)) error {
	phase := phase()
	first := next(interval, phase)
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
			timer.Reset(next(interval, phase))
		}
	}
}

// Next returns the time until the next moment of an interval, or until the one after that if it is very near: the clock
// may have been set back a little since a timer was set to it. Within a process, each moment of an interval is one of
// every interval that divides it. Other processes have other moments: the servers of a cluster do not call a head all
// at once.
func Next(interval time.Duration) time.Duration { return next(interval, phase()) }

// next is Next for a phase, which all intervals of a process share.
func next(interval, phase time.Duration) time.Duration {
	left := interval - time.Duration(time.Now().Add(phase).UnixNano())%interval
	if left < interval/16 {
		left += interval
	}
	return left
}

// maxPhase bounds phases. It is longer than the intervals at which servers call each other.
const maxPhase = time.Hour

// phase returns the phase of this process. It is computed from the host and the process: a random one would be a
// variable of the package.
func phase() time.Duration {
	host, _ := os.Hostname() // "": the process alone decides
	return phaseOf(host, os.Getpid())
}

func phaseOf(host string, pid int) time.Duration {
	h := fnv.New64a()
	_, _ = io.WriteString(h, strconv.Itoa(pid)+" "+host)
	return time.Duration(h.Sum64() % uint64(maxPhase))
}
