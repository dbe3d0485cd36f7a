package store

import (
	"encoding"
	"fmt"
	"hash"
	"sync"
)

// zeros keeps what hashing a hole at the beginning of a file leads to. The digest of a file depends on each of its
// bytes, so a hole costs as much to hash as data does. Only what is at the beginning of a file is the same for all
// files that begin so; and a file with a large hole mostly begins with it.
type zeros struct {
	chunk [chunk]byte // is never written

	mu     sync.Mutex
	states [][]byte // the state of the hash after each zeroStep bytes more
}

const (
	zeroStep  = 64 << 20
	maxStates = 16 << 10 // for 1 TiB, in 2 MB
)

// resume sets h to its state after as many zeros as are known, at most end, and returns how many.
func (z *zeros) resume(h hash.Hash, end int64) int64 {
	z.mu.Lock()
	defer z.mu.Unlock()
	known := min(int(end/zeroStep), len(z.states))
	if known == 0 {
		return 0
	}
	u, ok := h.(encoding.BinaryUnmarshaler)
	if !ok {
		return 0
	}
	if err := u.UnmarshalBinary(z.states[known-1]); err != nil {
		panic(fmt.Sprintf("store: the state of a hash cannot be restored: %v", err)) // it is of the same program
	}
	return int64(known) * zeroStep
}

// keep keeps the state of h after n zeros.
func (z *zeros) keep(h hash.Hash, n int64) {
	m, ok := h.(encoding.BinaryMarshaler)
	if !ok || n%zeroStep != 0 {
		return
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if len(z.states) >= maxStates || n/zeroStep != int64(len(z.states))+1 {
		return
	}
	if state, err := m.MarshalBinary(); err == nil {
		z.states = append(z.states, state)
	}
}
