package durable

import "sync"

// Flush lets those who want the same thing to be on disk at the same time share one costly call: whoever comes while
// one is under way waits for the next one, with all others who came meanwhile. Who comes alone waits for nobody.
//
// The zero value is ready. Its methods may be called concurrently.
type Flush struct {
	mu   sync.Mutex
	now  *turn // under way
	next *turn // those who came since it began; it does not cover them

	waits, flushes uint64
}

// turn is one call of flush. err is set when done is closed.
type turn struct {
	done chan struct{}
	err  error
}

// Do returns when a call of flush that began after the call of Do has ended, with its error.
func (f *Flush) Do(flush func() error) error {
	f.mu.Lock()
	f.waits++
	if f.now == nil {
		t := &turn{done: make(chan struct{})}
		f.now = t
		f.mu.Unlock()
		return f.lead(t, flush)
	}
	if t := f.next; t != nil {
		f.mu.Unlock()
		<-t.done
		return t.err
	}
	before, t := f.now, &turn{done: make(chan struct{})}
	f.next = t
	f.mu.Unlock()
	<-before.done
	f.mu.Lock()
	f.now, f.next = t, nil
	f.mu.Unlock()
	return f.lead(t, flush)
}

// Counts tells how often Do was called and how many calls of flush that took.
func (f *Flush) Counts() (waits, flushes uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waits, f.flushes
}

// lead does the flush of t.
func (f *Flush) lead(t *turn, flush func() error) error {
	t.err = flush()
	f.mu.Lock()
	f.flushes++
	if f.next == nil {
		f.now = nil
	}
	f.mu.Unlock()
	close(t.done)
	return t.err
}
