package durable

import "sync"

// Flush combines concurrent calls of a costly function that makes data durable. A call of Do while the function runs
// waits for its next run, together with all other calls that were made in the meantime. Otherwise Do runs the function
// at once.
//
// The zero value is ready to use. Its methods may be called concurrently.
type Flush struct {
	mu      sync.Mutex
	running *run
	next    *run // for calls since running began, because running may not cover them

	waits, flushes uint64
}

// run is one run of the function. err is set when done is closed.
type run struct {
	done chan struct{}
	err  error
}

// Do returns the error of a run of flush that began after Do was called, when that run has ended.
func (f *Flush) Do(flush func() error) error {
	f.mu.Lock()
	f.waits++
	if f.running == nil {
		r := &run{done: make(chan struct{})}
		f.running = r
		f.mu.Unlock()
		return f.run(r, flush)
	}
	if r := f.next; r != nil {
		f.mu.Unlock()
		<-r.done
		return r.err
	}
	before, r := f.running, &run{done: make(chan struct{})}
	f.next = r
	f.mu.Unlock()
	<-before.done
	f.mu.Lock()
	f.running, f.next = r, nil
	f.mu.Unlock()
	return f.run(r, flush)
}

// Counts returns the number of calls of Do and of runs of flush.
func (f *Flush) Counts() (waits, flushes uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.waits, f.flushes
}

func (f *Flush) run(r *run, flush func() error) error {
	r.err = flush()
	f.mu.Lock()
	f.flushes++
	if f.next == nil {
		f.running = nil
	}
	f.mu.Unlock()
	close(r.done)
	return r.err
}
