// Package compare finds what differs between two versions and what that means for machines that run the first.
// It does so once for all that ask: the capture that makes a version, its rollout, and everybody who looks at either.
//
// The changes of the last few pairs are kept in memory, up to a number of changes; what they mean is small and is kept
// for more pairs. Versions never change, so what is kept is never wrong.
//
// A Comparer may be used by several goroutines. Two that ask for the same pair at the same time may both compare it.
//
// It must not know who asks, or how a version came to be.
package compare

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"dim/internal/confine"
	"dim/internal/confine/readfs"
	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/verdict"
)

// What is kept. A change costs some 100 bytes and holds the trees in memory that it points into.
const (
	maxPairs    = 16
	maxChanges  = 200_000
	maxVerdicts = 256
	failureLife = 10 * time.Minute // of a verdict without a look at the files
)

// Comparer compares versions and keeps the last results.
type Comparer struct {
	load   treediff.Loader
	files  func(root image.Entry) readfs.FS
	reader confine.Program
	log    *slog.Logger
	tasks  chan struct{} // an element for each process that looks at files

	mu       sync.Mutex
	kept     []comparison // the last used one last
	verdicts map[pair]keptVerdict
}

// keptVerdict is a verdict and when it was made.
type keptVerdict struct {
	verdict.Verdict
	at time.Time
}

type pair [2]image.Digest

type comparison struct {
	pair    pair
	changes []treediff.Change
}

// New returns a Comparer. Load returns trees, and files the files of a version. Reader must run Task.
func New(
	load treediff.Loader, files func(root image.Entry) readfs.FS, reader confine.Program, log *slog.Logger,
) *Comparer {
	return &Comparer{
		load: load, files: files, reader: reader, log: log, tasks: make(chan struct{}, maxTasks),
		verdicts: map[pair]keptVerdict{},
	}
}

// Changes returns all paths at which two versions differ, in walk order. The caller must not change them.
func (c *Comparer) Changes(ctx context.Context, from, to *image.Version) ([]treediff.Change, error) {
	if changes, ok := c.lookup(pair{from.Digest, to.Digest}); ok {
		return changes, nil
	}
	begin := time.Now()
	var changes []treediff.Change
	err := treediff.Diff(ctx, c.load, &from.Root, &to.Root, func(change treediff.Change) error {
		changes = append(changes, change)
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.log.Debug("versions compared",
		"from", from.Ref().String(), "to", to.Ref().String(), "paths", len(changes), "took", time.Since(begin))
	c.Keep(from, to, changes)
	return changes, nil
}

func (c *Comparer) lookup(p pair) ([]treediff.Change, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.kept, func(k comparison) bool { return k.pair == p })
	if i < 0 {
		return nil, false
	}
	found := c.kept[i]
	c.kept = append(slices.Delete(c.kept, i, i+1), found)
	return found.changes, true
}

// Keep keeps the changes between two versions that the caller has found, all and in walk order. Too many are not kept.
func (c *Comparer) Keep(from, to *image.Version, changes []treediff.Change) {
	if len(changes) > maxChanges {
		return
	}
	p := pair{from.Digest, to.Digest}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = slices.DeleteFunc(c.kept, func(k comparison) bool { return k.pair == p })
	c.kept = append(c.kept, comparison{p, changes})
	first, total := len(c.kept), 0
	for first > 0 && len(c.kept)-first < maxPairs && total+len(c.kept[first-1].changes) <= maxChanges {
		first--
		total += len(c.kept[first].changes)
	}
	c.kept = slices.Delete(c.kept, 0, first)
}

// Verdict tells what a change between two versions means for a machine that runs the first. The programs and package
// databases of the versions, which are a master's bytes, are read by a process of its own. If that fails, the verdict
// has what follows from the changed paths, and says why in Unknown.
func (c *Comparer) Verdict(ctx context.Context, from, to *image.Version) (verdict.Verdict, error) {
	p := pair{from.Digest, to.Digest}
	if v, ok := c.keptVerdict(p); ok {
		return v, nil
	}
	changes, err := c.Changes(ctx, from, to)
	if err != nil {
		return verdict.Verdict{}, err
	}
	col := verdict.New()
	for _, change := range changes {
		col.Add(change)
	}
	select {
	case c.tasks <- struct{}{}:
	case <-ctx.Done():
		return verdict.Verdict{}, ctx.Err()
	}
	defer func() { <-c.tasks }()
	if v, ok := c.keptVerdict(p); ok { // while this call waited
		return v, nil
	}
	v, err := c.makeVerdict(ctx, col, from, to)
	if ctx.Err() != nil {
		return verdict.Verdict{}, ctx.Err()
	}
	if err != nil {
		c.log.Warn("the files of a version cannot be looked at",
			"from", from.Ref().String(), "to", to.Ref().String(), "error", err)
		v = col.VerdictWithout(err.Error())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.verdicts) >= maxVerdicts {
		clear(c.verdicts)
	}
	c.verdicts[p] = keptVerdict{v, time.Now()}
	return v, nil
}

// keptVerdict returns the verdict that is kept for two versions.
func (c *Comparer) keptVerdict(p pair) (verdict.Verdict, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, ok := c.verdicts[p]
	return k.Verdict, ok && (k.Unknown == "" || time.Since(k.at) < failureLife)
}

// makeVerdict returns the verdict of the changes that were collected.
func (c *Comparer) makeVerdict(
	ctx context.Context, col *verdict.Collector, from, to *image.Version,
) (verdict.Verdict, error) {
	found, err := c.find(ctx, c.files(from.Root), c.files(to.Root), col.Replaced())
	if err != nil {
		return verdict.Verdict{}, err
	}
	return col.Verdict(found)
}
