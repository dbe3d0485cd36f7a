package bounds

import (
	"sync"
	"time"
)

// Rate bounds how often each user does something: Burst times at once, and then once in Every. The fields must be set
// before its first use. It may be used by any number of goroutines.
type Rate[K comparable] struct {
	Every time.Duration
	Burst int

	mu    sync.Mutex
	full  map[K]time.Time // when all of a burst is there again (the "theoretical arrival time" of GCRA)
	sweep int             // number of keys at which those are dropped that have all of their burst
}

// minSweep is the number of keys below which nothing is swept.
const minSweep = 1024

// Allow reports whether key may do it now.
func (r *Rate[K]) Allow(key K, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full == nil {
		r.full, r.sweep = make(map[K]time.Time), minSweep
	}
	full := r.full[key]
	if full.Before(now) {
		full = now
	}
	if full = full.Add(r.Every); full.Sub(now) > time.Duration(r.Burst)*r.Every {
		return false
	}
	r.full[key] = full
	if len(r.full) >= r.sweep {
		for k, at := range r.full {
			if at.Before(now) {
				delete(r.full, k)
			}
		}
		r.sweep = max(minSweep, 2*len(r.full))
	}
	return true
}
