package oncrpc

import (
	"sync"
	"sync/atomic"
)

// The sizes of pooled buffers. Large holds a record with 1 MiB of data and its headers.
const (
	smallBuffer = 64 << 10
	largeBuffer = 1<<20 + 64<<10
)

// pool lends buffers. The number of small ones follows from the bounds on connections and calls. Large ones are counted
// against a limit.
type pool struct {
	small, large sync.Pool
	lent         atomic.Int64 // bytes of buffers above smallBuffer
	limit        int64
	waiters      atomic.Int32

	mu    sync.Mutex
	freed *sync.Cond // a large buffer was released while wait waited
}

func newPool(limit int64) *pool {
	p := &pool{limit: limit}
	p.freed = sync.NewCond(&p.mu)
	return p
}

// buffer is a pooled byte slice. It returns to the pool when refs reaches 0.
type buffer struct {
	mem  []byte
	pool *pool
	refs atomic.Int32
}

// get returns a buffer of at least n bytes with one reference, also when that exceeds the limit.
func (p *pool) get(n int) *buffer {
	var b *buffer
	switch {
	case n <= smallBuffer:
		b, _ = p.small.Get().(*buffer)
		n = smallBuffer
	case n <= largeBuffer:
		b, _ = p.large.Get().(*buffer)
		n = largeBuffer
	}
	if b == nil {
		b = &buffer{mem: make([]byte, n), pool: p}
	}
	if n > smallBuffer {
		p.lent.Add(int64(n))
	}
	b.refs.Store(1)
	return b
}

// overLimit reports whether a buffer of n more bytes exceeds the limit. A small buffer never does.
func (p *pool) overLimit(n int) bool { return n > smallBuffer && p.lent.Load()+int64(n) > p.limit }

// wait blocks until a buffer of n bytes does not exceed the limit, or giveUp returns true. wakeAll makes it check both
// again.
func (p *pool) wait(n int, giveUp func() bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiters.Add(1)
	defer p.waiters.Add(-1)
	for p.overLimit(n) && !giveUp() {
		p.freed.Wait()
	}
}

func (p *pool) wakeAll() {
	p.mu.Lock()
	p.freed.Broadcast()
	p.mu.Unlock()
}

func (b *buffer) hold() { b.refs.Add(1) }

func (b *buffer) release() {
	if b.refs.Add(-1) > 0 {
		return
	}
	p := b.pool
	switch n := len(b.mem); {
	case n == smallBuffer:
		p.small.Put(b)
		return
	case n == largeBuffer:
		p.large.Put(b)
	}
	p.lent.Add(-int64(len(b.mem)))
	if p.waiters.Load() > 0 {
		p.wakeAll()
	}
}

// moveTo replaces b as the buffer of e by one of at least n bytes with the same content.
func (b *buffer) moveTo(e *Encoder, n int) {
	bigger := b.pool.get(n)
	e.b = append(bigger.mem[:0], e.b...)
	e.own = bigger
	b.release()
}
