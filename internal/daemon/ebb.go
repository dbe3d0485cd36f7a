package daemon

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// ebbEvery is how often is looked whether there is memory to give back.
	ebbEvery = 5 * time.Second
	// ebbCalm is what is allocated at most between two looks when nothing is under way.
	ebbCalm = 1 << 20
	// ebbWorth is what must have been allocated since memory was given back last: it takes a collection.
	ebbWorth = 8 << 20
)

// ebb gives memory back to the system after something that took much of it: a version that was read, a capture, a boot of many
// nodes. Go by itself keeps twice what lived when it collected last, which may have been in the middle of that. While
// more is allocated nothing is done, so that what is busy does not pay for it.
func (d *daemon) ebb(ctx context.Context) error {
	tick := time.NewTicker(ebbEvery)
	defer tick.Stop()
	var t tide
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if t.out(allocated()) {
			debug.FreeOSMemory()
		}
	}
}

// tide is how much had been allocated since the start of the process at the last look, and when memory was given back last.
type tide struct{ seen, freed uint64 }

// out reports whether memory is to be given back, now that so much has been allocated.
func (t *tide) out(allocated uint64) bool {
	calm := allocated-t.seen <= ebbCalm
	t.seen = allocated
	if !calm || allocated-t.freed < ebbWorth {
		return false
	}
	t.freed = allocated
	return true
}

// allocated is how many bytes this process has allocated since its start.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
