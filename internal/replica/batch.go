package replica

import (
	"errors"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// snapshotsTogether is how many snapshots become durable by one flush. So many replicas wait for each other's
// snapshots.
const snapshotsTogether = 64

// carryOut switches the replicas that need no snapshot first. Then it switches the others in batches, each
// after its snapshots.
func (s *Set) carryOut(list []*transition, report *Report) error {
	var due, rest []*transition
	for _, t := range list {
		if t.due() {
			due = append(due, t)
		} else {
			rest = append(rest, t)
		}
	}
	var errs []error
	if len(rest) > 0 {
		errs = append(errs, s.switchBatch(rest, report))
		s.noteVersions(rest)
	}
	for part := range slices.Chunk(due, snapshotsTogether) {
		if err := s.snapshotAll(part, report); err != nil {
			failAll(due, err)
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, s.switchBatch(part, report))
	}
	for _, t := range due {
		_, err := t.r.retireSnapshots(s.expiry())
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// due reports whether a snapshot must be taken first: the version changes, and the layer has changed since its
// last snapshot.
func (t *transition) due() bool {
	return t.changes != nil && t.rules.Snapshots > 0 && !t.r.snaps.current() && !t.r.nothingToKeep()
}

// noteVersions records in snapshots that are still current that they show the layer over the version that the
// replica follows until now.
func (s *Set) noteVersions(list []*transition) {
	for _, t := range list {
		if t.changes == nil || t.rules.Snapshots == 0 {
			continue
		}
		if err := t.r.addOver(t.from); err != nil {
			s.log.Warn("version of a snapshot not noted", "replica", t.r.dir, "error", err)
		}
	}
}

// snapshotAll takes snapshots of the replicas' layers. A replica is locked only while its own layer is copied.
// Failures go to the report. The error is only that of a test's Fault.
func (s *Set) snapshotAll(list []*transition, report *Report) error {
	made := make([]*snapshot, len(list))
	failed := make([]error, len(list))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, t := range list {
		g.Go(func() error {
			t.r.mu.Lock()
			defer t.r.mu.Unlock()
			made[i], failed[i] = t.r.copySnapshot(t.why(), t.rules.snapshotLimit())
			return nil
		})
	}
	_ = g.Wait()
	copied := uint64(0)
	for _, m := range made {
		if m != nil {
			copied += m.copied
		}
	}
	synced := s.syncCopies(copied)
	for i, m := range made {
		if m != nil {
			err := synced
			if err == nil {
				err = m.publish()
			}
			if err == nil {
				report.Snapshots++
				continue
			}
			failed[i] = errors.Join(err, m.discard())
		}
		if failed[i] != nil {
			report.Missed = append(report.Missed, list[i].r.snapshotFailed(failed[i]))
		}
	}
	return s.failAt("after snapshots")
}

// why is what snapshots and set-aside entries have as their reason.
func (t *transition) why() string {
	return "switch " + t.from.Ref().String() + " " + t.version.Ref().String()
}

// switchBatch switches those replicas at once whose layers have nothing at the paths that differ, then the
// others some at a time.
func (s *Set) switchBatch(list []*transition, report *Report) error {
	for _, t := range list {
		if t.changes != nil {
			report.Paths = max(report.Paths, t.changes.paths)
		}
	}
	started := s.now()
	slow, err := s.switchQuick(list, report)
	report.Took = max(report.Took, s.now().Sub(started))
	errs := []error{err}
	together := 64
	if !list[0].r.attached { // nobody waits for these: all are being attached
		together = 512
	}
	for part := range slices.Chunk(slow, together) {
		errs = append(errs, s.switchSlow(part, report))
	}
	return errors.Join(errs...)
}

// batchStep is what replicas share that are switched in one step.
type batchStep struct {
	at       int64
	steps    map[stepKey]*step
	segments map[*changes]*segment
	joins    joins
}

// beginStep begins the step of replicas that are all locked. A stamp from before that would be earlier than
// what a node has written meanwhile: a directory of its layer would keep the ctime of that write, and the
// node's kernel its cached names.
func (s *Set) beginStep(report *Report) *batchStep {
	at := s.journal.stamp(s.now())
	report.Stamp = time.Unix(0, at)
	return newBatchStep(at)
}

func newBatchStep(at int64) *batchStep {
	return &batchStep{at: at, steps: make(map[stepKey]*step), segments: make(map[*changes]*segment), joins: make(joins)}
}

// segment returns what the step adds to the history of replicas that go from one version to another.
func (w *batchStep) segment(c *changes) *segment {
	g := w.segments[c]
	if g == nil {
		g = newSegment(c.delta, w.at)
		w.segments[c] = g
	}
	return g
}
