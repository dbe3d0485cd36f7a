package replicate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/store"
)

// Options of a Puller.
type Options struct {
	Store *store.Store
	Name  string                           // of this server
	Named func(name string) (Source, bool) // the server with a name, if this server may ask it; nil: none is asked
	Rate  func() uint64                    // bytes a second that may be received now; 0: any. nil: any
	// Early reports whether a version is to be served while it arrives: see Content. Listed is called when it can be.
	// Nil: no version is.
	Early  func(image.Version) bool
	Listed func(context.Context)
	Log    *slog.Logger
}

// Puller brings versions into a store.
type Puller struct {
	store   *store.Store
	name    string
	named   func(string) (Source, bool)
	log     *slog.Logger
	limit   limiter
	ledger  *ledger
	early   func(image.Version) bool
	listed  func(context.Context)
	waiting chan struct{}  // an element for each call that waits for a blob
	packed  *sharedAnswers // packed answers that have arrived and that other servers may ask for

	pulling sync.Mutex // held by Pull

	mu      sync.Mutex
	now     *pull                  // nil: none
	last    *Progress              // of the pull that has ended last; nil: it never knew what was missing
	partial map[image.Digest]*pull // the last pull of each version that is served while it arrives
}

// New returns a Puller.
func New(o Options) *Puller {
	if o.Rate == nil {
		o.Rate = func() uint64 { return 0 }
	}
	if o.Early == nil {
		o.Early, o.Listed = func(image.Version) bool { return false }, func(context.Context) {}
	}
	return &Puller{
		early: o.Early, listed: o.Listed, partial: map[image.Digest]*pull{}, waiting: make(chan struct{}, maxWaiting),
		store: o.Store, name: o.Name, named: o.Named, log: o.Log, limit: limiter{rate: o.Rate}, ledger: newLedger(),
		packed: newSharedAnswers(),
	}
}

// Progress is how far a pull is.
type Progress struct {
	Version image.Ref
	Files   int    // that are missing, with equal ones counted once
	Bytes   uint64 // that are missing in them
	Rate    float64
	Left    time.Duration // until nothing is missing, at that rate in bytes a second; 0: not known
}

// Progress returns how far the pull is that is under way; if there is none, what was still missing when the last one
// ended, at a rate of 0. It returns false if that is not known: a pull finds out first what is missing.
func (p *Puller) Progress() (Progress, bool) {
	p.mu.Lock()
	now, last := p.now, p.last
	p.mu.Unlock()
	switch {
	case now != nil:
		return now.progress()
	case last != nil:
		return *last, true
	}
	return Progress{}, false
}

// Counts returns what has been received from each source since the start.
func (p *Puller) Counts() map[string]Counts { return p.ledger.all() }

// Pull brings a version into the store. It asks the first of the sources for the trees, and all of them, and those that
// they name, for the content. What was stored stays there when Pull fails or ctx ends; the next Pull asks for the rest.
func (p *Puller) Pull(ctx context.Context, v image.Version, sources []Source) error {
	return p.pull(ctx, v, nil, sources)
}

// Repair brings objects of a version that the store has, but damaged, replaces them, and deletes them from damaged.
// Those that do not belong to the version stay in it.
func (p *Puller) Repair(
	ctx context.Context, v image.Version, damaged map[image.Digest]bool, sources []Source,
) error {
	return p.pull(ctx, v, damaged, sources)
}

func (p *Puller) pull(
	ctx context.Context, v image.Version, damaged map[image.Digest]bool, sources []Source,
) error {
	p.pulling.Lock()
	defer p.pulling.Unlock()
	hold, err := p.store.Hold()
	if err != nil {
		return err
	}
	defer hold.Unlock()
	peers := p.ledger.usable(sources)
	if len(peers) == 0 {
		return fmt.Errorf("pull %s: there is no server to ask", v.Ref())
	}
	q := &pull{
		goal: goal{v, damaged}, o: p, peers: peers, trees: map[image.Digest]image.Tree{}, started: time.Now(),
		news: make(chan struct{}),
	}
	q.changed = sync.NewCond(&q.mu)
	p.show(q)
	defer p.hide(q)
	if err := q.run(ctx); err != nil {
		return fmt.Errorf("pull %s: %w", v.Ref(), err)
	}
	maps.DeleteFunc(damaged, func(d image.Digest, _ bool) bool { return q.brought(d) })
	p.noteWhole(v)
	p.log.Info("version pulled", "version", v.Ref().String(), "count", q.all.files, "bytes", q.all.bytes,
		"took", time.Since(q.started))
	return nil
}

// brought reports whether an object has come by the pull.
func (p *pull) brought(d image.Digest) bool {
	_, tree := p.trees[d]
	return tree || p.needed[d] != nil || d == p.v.Digest
}

// noteWhole notes that the store has a version.
func (p *Puller) noteWhole(v image.Version) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.partial, v.Digest)
}

func (p *Puller) show(q *pull) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = q
}

// hide notes that a pull has ended.
func (p *Puller) hide(q *pull) {
	left, known := q.progress()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.now, p.last = nil, nil; known {
		p.last = &Progress{Version: left.Version, Files: left.Files, Bytes: left.Bytes}
	}
}

// need is a blob that is missing.
type need struct {
	digest image.Digest
	size   uint64
	sparse bool
	before image.Digest // the blob that its path has in an earlier version; zero: none

	// Guarded by pull.mu:
	batch  *store.Batch // that it has arrived in; nil: it has not
	urgent bool         // there is an urgent job for it
}

type amount struct {
	files int
	bytes uint64
}

// goal is what a pull brings.
type goal struct {
	v       image.Version
	damaged map[image.Digest]bool // objects that are brought although the store has them; nil: none
}

// pull is one call of Pull or Repair.
type pull struct {
	goal
	o     *Puller
	peers []*peer

	bases []image.Digest // roots of versions of the image that are in the store, the newest first
	base  *image.Entry   // the root of the first; nil: none
	root  *image.Entry   // nil: not here yet
	trees map[image.Digest]image.Tree

	exchanging bool // parts are exchanged with other servers; set before planned is

	mu      sync.Mutex // guards what follows, and all of peers
	changed *sync.Cond // something of jobs, working, peers or err
	jobs    []*job     // that nobody works on
	working int        // on jobs
	err     error      // ends the pull
	batch   *sharedBatch
	needed  map[image.Digest]*need // all that was missing at the beginning
	news    chan struct{}          // closed and replaced when blobs have arrived

	all, left amount
	started   time.Time // of the pull, then of the transfer of content
	planned   bool      // all is known
}

func (p *pull) progress() (Progress, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := Progress{Version: p.v.Ref(), Files: p.left.files, Bytes: p.left.bytes}
	if took := time.Since(p.started).Seconds(); took > 0 {
		out.Rate = float64(p.all.bytes-min(p.left.bytes, p.all.bytes)) / took
	}
	if out.Rate > 0 {
		out.Left = time.Duration(float64(out.Bytes) / out.Rate * float64(time.Second))
	}
	return out, p.planned
}

// run brings the trees, then the blobs, then stores the trees and the version.
func (p *pull) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go p.watchUntil(ctx)
	if err := p.resume(ctx); err != nil {
		return err
	}
	if err := p.findBases(); err != nil {
		return err
	}
	needs, err := p.list(ctx)
	if err != nil {
		return err
	}
	p.findGetters(ctx, needs)
	p.begin(needs)
	if err := p.transfer(ctx); err != nil {
		if kerr := p.keep(ctx); kerr != nil && !isLocal(err) {
			return errors.Join(err, kerr)
		}
		return err
	}
	return p.finish(ctx)
}

func (p *pull) watchUntil(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			p.watch()
		case <-ctx.Done():
			return
		}
	}
}

// resume stores what a killed process has left of a pull.
func (p *pull) resume(ctx context.Context) error {
	blobs, bytes, err := p.o.store.Resume(ctx)
	if blobs > 0 {
		p.o.log.Info("parts of an interrupted pull stored", "count", blobs, "bytes", bytes)
	}
	return err
}

// findBases finds the versions of the image that are in the store: what they have is not brought.
func (p *pull) findBases() error {
	if p.damaged != nil {
		return nil // what is damaged can be in them too
	}
	list, err := p.o.store.Versions(p.v.Image)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	for _, v := range slices.Backward(list) {
		if p.base == nil {
			p.base = &v.Root
		}
		if len(p.bases) < maxBases {
			p.bases = append(p.bases, v.Digest)
		}
	}
	return nil
}

// list brings the trees and returns the blobs that are missing.
func (p *pull) list(ctx context.Context) ([]*need, error) {
	for {
		needs, missing, err := p.plan(ctx)
		if err != nil || len(missing) == 0 {
			return needs, err
		}
		err = p.fetchTrees(ctx, missing)
		switch {
		case err == nil:
		case p.base != nil && ctx.Err() == nil:
			p.forgetBases() // one may be damaged
		default:
			return nil, err
		}
	}
}

func (p *pull) forgetBases() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.base, p.bases, p.err = nil, nil, nil
}

// plan returns the blobs that the store lacks, and the trees that neither it nor the pull has, without which there may
// be more of both. It does not trust that the store has what a tree leads to, unless a version does: a crash may have
// come between two trees.
func (p *pull) plan(ctx context.Context) (needs []*need, missing []image.Digest, err error) {
	if p.root == nil {
		root, err := p.o.store.Root(p.v.Digest)
		if errors.Is(err, store.ErrNotFound) || p.damaged[p.v.Digest] {
			return nil, []image.Digest{p.v.Digest}, nil
		}
		if err != nil {
			return nil, nil, err
		}
		p.root = &root
	}
	load := func(d image.Digest) (image.Tree, error) {
		t, ok := p.trees[d]
		if ok {
			return t, nil
		}
		t, err := p.o.store.Tree(d)
		if errors.Is(err, store.ErrNotFound) || p.damaged[d] {
			missing = append(missing, d)
			return nil, nil
		}
		return t, err
	}
	seen := map[image.Digest]bool{}
	err = treediff.Diff(ctx, load, p.base, p.root, func(c treediff.Change) error {
		if c.New == nil || c.New.Type != image.Regular || seen[c.New.Digest] {
			return nil
		}
		seen[c.New.Digest] = true
		if p.o.store.HasBlob(c.New.Digest) && !p.damaged[c.New.Digest] {
			return nil
		}
		n := &need{digest: c.New.Digest, size: c.New.Size, sparse: c.New.Data != nil}
		if c.Old != nil && c.Old.Type == image.Regular {
			n.before = c.Old.Digest
		}
		needs = append(needs, n)
		return nil
	})
	return needs, missing, err
}

// transfer lets all sources work on the jobs until none is left.
func (p *pull) transfer(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { p.fail(ctx.Err()) })
	defer stop()
	var g errgroup.Group
	for _, s := range p.peers {
		for range streams {
			g.Go(func() error { p.work(ctx, s, anyJob); return nil })
		}
		if !s.partial {
			g.Go(func() error { p.work(ctx, s, urgentOnly); return nil })
		}
	}
	early, end := context.WithCancel(ctx)
	var serving errgroup.Group
	serving.Go(func() error { return p.serveEarly(early) })
	_ = g.Wait()
	end()
	if err := serving.Wait(); err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		p.fail(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// keep stores what has arrived of a pull that has failed, with the trees: they tell a removal of objects what belongs
// to the version.
func (p *pull) keep(ctx context.Context) error {
	err := p.commit(context.WithoutCancel(ctx), p.swap(nil))
	if err != nil {
		return err
	}
	return p.storeTrees(context.WithoutCancel(ctx))
}

// finish stores the trees, then the version.
func (p *pull) finish(ctx context.Context) error {
	b := p.swap(nil)
	if b == nil {
		var err error
		if b, err = p.newBatch(); err != nil {
			return err
		}
	}
	if err := p.putTrees(b.Batch); err != nil {
		return errors.Join(err, b.Abort())
	}
	if err := p.commit(ctx, b); err != nil || p.damaged != nil {
		return err
	}
	_, err := p.o.store.AddVersion(p.v)
	return err
}
