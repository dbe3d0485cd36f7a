package nodeinit

import (
	"math/rand/v2"
	"time"
)

// backoff gives growing intervals, each by chance up to a quarter shorter or longer, so that nodes that were switched
// on together do not ask together.
type backoff struct {
	next, most time.Duration
	rand       *rand.Rand
}

func (b *backoff) take() time.Duration {
	d := b.next
	b.next = min(2*b.next, b.most)
	return d - d/4 + time.Duration(b.rand.Int64N(int64(d/2)+1))
}

// newRand mixes the card's address in: a machine without a source of entropy gives every node the same "random"
// start, but no two nodes have the same address.
func newRand(seed uint64, mac []byte) *rand.Rand {
	h := uint64(14695981039346656037) // FNV-1a
	for _, c := range mac {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return rand.New(rand.NewPCG(seed, h))
}
