// Package heap returns memory that a server no longer needs to the system.
package heap

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"dim/internal/periodic"
)

const (
	// interval is the interval between checks whether there is memory to release.
	interval = 5 * time.Second
	// idleAllocation is the most that is allocated within one interval while nothing is under way, in bytes.
	idleAllocation = 1 << 20
	// releaseMinimum is what must have been allocated since the last release, in bytes. A release takes a garbage
	// collection.
	releaseMinimum = 8 << 20
)

// Release runs until ctx ends, and returns memory to the system after something that needed much of it: reading a
// version, a capture, a boot of many nodes. The Go runtime alone keeps twice the live heap of its last collection,
// which may have run at the peak. While allocation goes on nothing is released, so a busy server does not pay for it.
func Release(ctx context.Context) error {
	var m use
	return periodic.Run(ctx, interval, func(context.Context) {
		if m.releaseNow(allocatedBytes()) {
			debug.FreeOSMemory()
		}
	})
}

// use is what this process had allocated since its start, in bytes.
type use struct {
	checked  uint64 // at the last check
	released uint64 // at the last release
}

// releaseNow reports whether to release memory, given the bytes allocated until now.
func (m *use) releaseNow(allocated uint64) bool {
	idle := allocated-m.checked <= idleAllocation
	m.checked = allocated
	if !idle || allocated-m.released < releaseMinimum {
		return false
	}
	m.released = allocated
	return true
}

// allocatedBytes returns how many bytes this process has allocated since its start.
func allocatedBytes() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
