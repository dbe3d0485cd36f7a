package replicate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"dim/internal/image"
	"dim/internal/store"
)

const (
	// streams is how many answers of one source are read at the same time.
	streams = 2
	// jobBytes is from how many bytes on small blobs are asked for together. The source has so much in memory for each
	// asker, and repetitions are found within the window anyway.
	jobBytes = window
	// batchBytes is after how many bytes what has arrived is made durable.
	batchBytes = 256 << 20
	// busyWait is for how long a source is not asked that is busy.
	busyWait = 500 * time.Millisecond
)

// job is what is asked for in one request: one large file, or small blobs.
type job struct {
	needs  []*need
	large  bool
	owner  *peer          // a partial source that is to be asked; nil: one with the whole version is
	urgent bool           // somebody waits for it: it is brought by its own worker, and is in the store at once
	alone  bool           // one source has to deliver all of a file, so that a wrong one can be told
	plain  bool           // a file is not to come as a difference
	not    map[*peer]bool // sources that do not have it
}

// begin makes the jobs.
func (p *pull) begin(needs []*need) {
	owners := p.owners(needs)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.needed = make(map[image.Digest]*need, len(needs))
	small := map[*peer]*jobMaker{}
	for _, x := range needs {
		p.needed[x.digest] = x
		p.all.files, p.all.bytes = p.all.files+1, p.all.bytes+x.size
		owner := owners[x]
		if x.size > large {
			p.jobs = append(p.jobs, &job{needs: []*need{x}, large: true, owner: owner})
			continue
		}
		if small[owner] == nil {
			small[owner] = &jobMaker{job: &job{owner: owner}}
		}
		if full := small[owner].add(x); full != nil {
			p.jobs = append(p.jobs, full)
		}
	}
	for _, m := range small {
		if len(m.job.needs) > 0 {
			p.jobs = append(p.jobs, m.job)
		}
	}
	// The largest files come first, because one of them at the end would be waited for alone.
	slices.SortStableFunc(p.jobs, func(a, b *job) int {
		switch {
		case a.large && b.large:
			return cmp.Compare(b.needs[0].size, a.needs[0].size)
		case a.large:
			return -1
		case b.large:
			return 1
		}
		return 0
	})
	p.left, p.planned, p.started = p.all, true, time.Now()
}

// jobMaker gathers small blobs for a job.
type jobMaker struct {
	job   *job
	bytes uint64
}

// add adds a blob. It returns the job if that is full.
func (m *jobMaker) add(x *need) *job {
	m.job.needs, m.bytes = append(m.job.needs, x), m.bytes+x.size
	if m.bytes < jobBytes && len(m.job.needs) < maxBlobs {
		return nil
	}
	full := m.job
	m.job, m.bytes = &job{owner: full.owner}, 0
	return full
}

// work works on jobs with one source until none is left that it may do.
func (p *pull) work(ctx context.Context, s *peer, urgent urgency) {
	for {
		j := p.take(s, urgent)
		if j == nil {
			return
		}
		var rest *job
		var err error
		if j.large {
			rest, err = p.largeJob(ctx, s, j)
		} else {
			rest, err = p.smallJob(ctx, s, j)
		}
		p.done(ctx, s, rest, err)
		if errors.Is(err, errBusy) {
			select {
			case <-time.After(busyWait):
			case <-ctx.Done():
			}
		}
	}
}

// urgency is which jobs a worker takes.
type urgency bool

const (
	anyJob     urgency = false
	urgentOnly urgency = true
)

// take returns a job for a source; nil if none will come.
func (p *pull) take(s *peer, urgent urgency) *job {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if p.err != nil || s.out || len(p.jobs) == 0 && p.working == 0 {
			return nil
		}
		fits := func(j *job) bool { return p.mayAsk(s, j) && (urgent == anyJob || j.urgent) }
		if i := slices.IndexFunc(p.jobs, fits); i >= 0 {
			j := p.jobs[i]
			p.jobs = slices.Delete(p.jobs, i, i+1)
			if j.trim(); len(j.needs) == 0 {
				p.changed.Broadcast() // it may have been the last one
				continue
			}
			p.working++
			return j
		}
		p.changed.Wait()
	}
}

// done ends the work on a job, of which rest is left (nil: nothing), because of err.
func (p *pull) done(ctx context.Context, s *peer, rest *job, err error) {
	if err != nil {
		p.judge(ctx, s, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.changed.Broadcast()
	p.working--
	if rest != nil && len(rest.needs) > 0 {
		rest.owner = nil
		p.jobs = append(p.jobs, rest)
	}
	for _, j := range p.jobs {
		if p.err == nil && !slices.ContainsFunc(p.peers, func(s *peer) bool { return p.mayAsk(s, j) }) {
			if err == nil {
				err = errAbsent
			}
			p.err = fmt.Errorf("no server is left that has blob %s: %w", j.needs[0].digest.Short(), err)
		}
	}
}

// judge decides what follows for a source from an error.
func (p *pull) judge(ctx context.Context, s *peer, err error) {
	switch {
	case isLocal(err):
		p.fail(err)
		return
	case ctx.Err() != nil, errors.Is(err, errBusy), errors.Is(err, errAbsent):
		return
	case errors.Is(err, errRefused), errors.Is(err, store.ErrMismatch):
		p.o.ledger.ban(s.Name)
		p.o.log.Error("a server sent what no honest server sends; it is not asked for a while",
			"server", s.Name, "version", p.v.Ref().String(), "error", err)
		p.drop(s)
		return
	case errors.Is(err, errSlow):
		p.o.ledger.count(s.Name, func(c *Counts) { c.Slow++ })
		if errors.Is(err, errLate) {
			p.o.log.Warn("a server has let this one wait for too long; the others are asked", "server", s.Name,
				"version", p.v.Ref().String())
			p.drop(s)
			return
		}
	default:
		p.o.ledger.count(s.Name, func(c *Counts) { c.Failed++ })
	}
	p.mu.Lock()
	s.failed++
	out := s.failed >= patience && !s.out
	p.mu.Unlock()
	if out {
		p.o.log.Warn("a server does not deliver; the others are asked", "server", s.Name, "error", err)
		p.drop(s)
	}
}

func (p *pull) drop(s *peer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.out = true
	for _, j := range p.jobs {
		if j.owner == s {
			j.owner = nil
		}
	}
	p.changed.Broadcast()
}

// fail ends the pull.
func (p *pull) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	p.changed.Broadcast()
}

// got counts what has arrived, or, if n is negative, what has to come again.
func (p *pull) got(files int, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left.files -= files
	p.left.bytes = uint64(max(0, int64(p.left.bytes)-n)) // what was urgent may come twice
}

// localError is an error of this server's store or disk: no source is at fault.
type localError struct{ error }

func (e *localError) Unwrap() error { return e.error }

func isLocal(err error) bool {
	_, ok := errors.AsType[*localError](err)
	return ok
}

// sharedBatch is a batch that several jobs put to.
type sharedBatch struct {
	*store.Batch
	users sync.WaitGroup
}

func (p *pull) newBatch() (*sharedBatch, error) {
	b, err := p.o.store.BeginResumable()
	if err != nil {
		return nil, &localError{err}
	}
	return &sharedBatch{Batch: b}, nil
}

// put lets add put the blobs of a job into the batch that all jobs share, and commits that when it is full. An urgent
// job has a batch of its own, which is committed at once.
func (p *pull) put(ctx context.Context, j *job, add func(b *store.Batch) error) error {
	if j.urgent {
		b, err := p.newBatch()
		if err != nil {
			return err
		}
		return errors.Join(add(b.Batch), p.commit(ctx, b))
	}
	b, err := p.use()
	if err != nil {
		return err
	}
	err = add(b.Batch)
	_, bytes := b.Staged()
	b.users.Done()
	if bytes < batchBytes || !p.retire(b) {
		return err
	}
	return errors.Join(err, p.commit(ctx, b))
}

// retire replaces a full batch. It returns false if another job has done that.
func (p *pull) retire(b *sharedBatch) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.batch != b {
		return false
	}
	p.batch = nil
	return true
}

// use returns the batch that jobs put to. Its users must be told when they are done.
func (p *pull) use() (*sharedBatch, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.batch == nil {
		b, err := p.newBatch()
		if err != nil {
			return nil, err
		}
		p.batch = b
	}
	p.batch.users.Add(1)
	return p.batch, nil
}

// swap replaces the batch that jobs put to.
func (p *pull) swap(b *sharedBatch) *sharedBatch {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.batch
	p.batch = b
	return old
}

// commit makes a batch durable; nil is none.
func (p *pull) commit(ctx context.Context, b *sharedBatch) error {
	if b == nil {
		return nil
	}
	b.users.Wait()
	if err := b.Commit(ctx); err != nil {
		return &localError{err}
	}
	return nil
}
