package nodeinit

import (
	"math/rand/v2"
	"time"
)

// backoff yields growing intervals. Each is up to a quarter shorter or longer by chance, so that nodes that were
// switched on together do not ask together.
type backoff struct {
	interval, longest time.Duration
	rand              *rand.Rand
}

// next returns the next interval.
func (b *backoff) next() time.Duration {
	d := b.interval
	b.interval = min(2*b.interval, b.longest)
	return d - d/4 + time.Duration(b.rand.Int64N(int64(d/2)+1))
}

// newRand mixes an address into a seed: without a source of entropy every node would have the same seed, but no two
// nodes have the same address.
func newRand(seed uint64, mac []byte) *rand.Rand {
	h := uint64(14695981039346656037) // FNV-1a
	for _, c := range mac {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return rand.New(rand.NewPCG(seed, h))
}
