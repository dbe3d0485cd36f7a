package replicate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"dim/internal/image"
	"dim/internal/store"
	"dim/internal/vfs"
)

// A version can be served before all of it is here: its trees are stored first (Options.Early), and then a blob that is
// opened comes before all others. So the store has trees without their blobs as long as the version is not whole.

// maxWaiting bounds the calls that wait for blobs at the same time. Without a bound they would take all threads of the
// server.
const maxWaiting = 256

// earlyInterval is the interval between checks whether the version that is being pulled is to be served already.
const earlyInterval = time.Second

// Content provides the trees and blobs of the store, and those of versions that are not whole yet.
type Content struct {
	*store.Store
	puller *Puller
	wait   time.Duration
}

// Content returns the content of the store and of versions that are not whole yet. wait is how long its OpenBlob waits
// for a blob that has not arrived.
func (p *Puller) Content(wait time.Duration) *Content { return &Content{p.store, p, wait} }

// OpenBlob opens a blob. One that has not arrived, of a version that is not whole yet, is brought before all others. If
// it does not arrive in time, the error wraps vfs.ELATER. Other errors are those of store.Store.OpenBlob.
func (c *Content) OpenBlob(d image.Digest) (*os.File, error) {
	f, err := c.puller.openBlob(d)
	if !errors.Is(err, store.ErrNotFound) {
		return f, err
	}
	select {
	case c.puller.waiting <- struct{}{}:
		defer func() { <-c.puller.waiting }()
		return c.puller.openArriving(d, c.wait, err)
	default:
		return c.puller.openArriving(d, 0, err)
	}
}

// openArriving opens a blob that is not here, for which the error is absent.
func (p *Puller) openArriving(d image.Digest, wait time.Duration, absent error) (*os.File, error) {
	deadline := time.Now().Add(wait)
	for {
		q, news := p.lacking(d)
		if q == nil {
			f, err := p.openBlob(d) // it may have arrived meanwhile
			if errors.Is(err, store.ErrNotFound) {
				return nil, absent
			}
			return f, err
		}
		q.demand(d)
		left := time.Until(deadline)
		if left <= 0 {
			return nil, fmt.Errorf("open blob %s of %s, which is not whole yet: %w", d.Short(), q.v.Ref(), vfs.ELATER)
		}
		t := time.NewTimer(min(left, earlyInterval)) // another pull may begin
		select {
		case <-news:
		case <-t.C:
		}
		t.Stop()
		if f, err := p.openBlob(d); !errors.Is(err, store.ErrNotFound) {
			return f, err
		}
	}
}

// lacking returns a pull of a version that is served and lacks a blob, the one that is under way if there is one.
// news is closed when something arrives.
func (p *Puller) lacking(d image.Digest) (q *pull, news <-chan struct{}) {
	p.mu.Lock()
	list := []*pull{p.now}
	for _, q := range p.partial {
		list = append(list, q)
	}
	p.mu.Unlock()
	for _, q := range list {
		if q == nil {
			continue
		}
		q.mu.Lock()
		n, news := q.needed[d], q.news
		lacks := n != nil && n.batch == nil
		q.mu.Unlock()
		if lacks {
			return q, news
		}
	}
	return nil, nil
}

// Partial reports whether a version can be served that is not whole yet: its trees are here.
func (p *Puller) Partial(v image.Version) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.partial[v.Digest] != nil
}

// ForgetPartial makes Partial false for all versions. It is called when no version is needed that is not whole.
func (p *Puller) ForgetPartial() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.partial)
}

// serveEarly stores the trees as soon as the version is to be served.
func (p *pull) serveEarly(ctx context.Context) error {
	if p.damaged != nil {
		return nil // it is served
	}
	t := time.NewTicker(earlyInterval)
	defer t.Stop()
	for !p.o.early(p.v) {
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
	if err := p.storeTrees(ctx); err != nil {
		return err
	}
	p.o.mu.Lock()
	p.o.partial[p.v.Digest] = p
	p.o.mu.Unlock()
	p.o.log.Info("version is served while it arrives", "version", p.v.Ref().String(), "count", p.all.files,
		"bytes", p.all.bytes)
	p.o.listed(ctx)
	return nil
}

func (p *pull) storeTrees(ctx context.Context) error {
	b, err := p.newBatch()
	if err != nil {
		return err
	}
	if err := p.putTrees(b.Batch); err != nil {
		return errors.Join(err, b.Abort())
	}
	return p.commit(ctx, b)
}

// putTrees adds the trees and the root to a batch.
func (p *pull) putTrees(b *store.Batch) error {
	for _, t := range p.trees {
		if _, err := b.PutTree(t); err != nil {
			return &localError{err}
		}
	}
	if _, err := b.PutRoot(*p.root); err != nil {
		return &localError{err}
	}
	return nil
}

// demand adds a job that brings a blob before all others.
func (p *pull) demand(d image.Digest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.needed[d]
	if n == nil || n.batch != nil || n.urgent || p.err != nil {
		return
	}
	n.urgent = true
	p.jobs = slices.Insert(p.jobs, 0, &job{needs: []*need{n}, large: n.size > large, urgent: true})
	p.changed.Broadcast()
}

// trim removes from a job the blobs that have arrived, and those that an urgent job brings.
func (j *job) trim() {
	j.needs = slices.DeleteFunc(j.needs, func(n *need) bool { return n.batch != nil || n.urgent && !j.urgent })
}
