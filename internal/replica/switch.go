package replica

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/pathmatch"
	"dim/internal/layer"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// Move is what a replica is to show from now on.
type Move struct {
	Replica *Replica
	Version image.Version
	Files   NodeFiles
	Keep    pathmatch.List
	Shared  pathmatch.List
	Mounted []string // mount points of the node, without a leading slash; see Held

	// Extra are further paths, in walk order and without a leading slash: what the layer has there is set aside too if
	// the version changes. A package of which the master changes a part is set aside as a whole.
	Extra []string

	// Stay are paths at which the replica goes on to show what it shows now, if the version changes: all files of
	// packages that stay the node's. StayPackages are the names of these packages, whose records in dpkg's database
	// stay, too.
	Stay         []string // in walk order and without a leading slash
	StayPackages []string

	Durability Durability
	Rules      Rules
}

// Report is what a Switch did.
type Report struct {
	Stamp    time.Time          // of the last step of the switch; what it changed has this ctime
	Replicas int                // how many were switched
	Paths    int                // at how many paths the versions differ
	Aside    []layer.SetAside   // what the nodes had of their own there
	Held     []Held             // replicas that were not switched because of a mount
	Failed   map[*Replica]error // those that stay with what they showed, and why
	Missed   []error            // for each replica that was switched without the snapshot that its rules ask for

	Snapshots int           // how many were taken
	Took      time.Duration // for how long replicas were locked
}

// transition is a Move that is being done.
type transition struct {
	r          *Replica
	to         *view
	keep       pathmatch.List
	shared     pathmatch.List
	rules      Rules
	from       *image.Version // what the replica follows before
	version    *image.Version
	files      map[string]string // the node files' fingerprints after it; nil: as before
	changes    *changes          // between the versions; nil: none
	own        *changes          // of the node files; nil: none
	extra      *changes          // see Move.Extra; nil: none
	extraPaths []string          // the paths in extra, in walk order
	isExtra    map[string]bool   // the same
	wanted     stayWish          // see Move.Stay
	stay       *stayPlan         // what that means for the layer; nil: nothing
	hidden     map[string]bool   // paths at which node files hide what the versions do
	err        error             // why it could not be done; nil: it was, or is still to be done
}

// Switch moves replicas to other versions or node files. Each goes from the one to the other in one step: no
// call sees a mix. The cost depends on the paths that differ; a replica whose layer holds none of them costs
// next to nothing.
//
// What a layer holds at a path that differs is moved to the saved area and listed in the report, unless Keep
// covers it. A replica that cannot be switched, for example because its disk is full or its version cannot be read,
// stays with what it showed. The others are switched. The report lists those that failed, and the error joins why. The
// same Move can be tried again.
//
// If the rules ask for it, a snapshot is taken of each layer that has changed since its last one. Replicas that
// need none are switched first. A replica whose snapshot cannot be taken is switched without.
func (s *Set) Switch(ctx context.Context, moves []Move) (Report, error) {
	report, err := s.switchAll(ctx, moves)
	for i := range moves {
		if report.Snapshots > 0 && moves[i].Rules.Snapshots > 0 {
			err = errors.Join(err, moves[i].Replica.sweepSnapshots())
		}
	}
	return report, err
}

func (s *Set) switchAll(ctx context.Context, moves []Move) (Report, error) {
	s.switching.Lock()
	defer s.switching.Unlock()
	report := Report{Failed: make(map[*Replica]error)}
	var list []*transition
	var errs []error
	for i := range moves {
		t, err := s.transition(ctx, &moves[i])
		if held, is := errors.AsType[*Held](err); is {
			report.Held = append(report.Held, *held)
			continue
		}
		if err != nil {
			report.Failed[moves[i].Replica] = err
			errs = append(errs, fmt.Errorf("switch %s: %w", moves[i].Replica.dir, err))
			continue
		}
		if t != nil {
			list = append(list, t)
		}
	}
	if len(list) == 0 {
		return report, errors.Join(errs...)
	}
	errs = append(errs, s.carryOut(list, &report))
	for _, t := range list {
		if t.err != nil {
			report.Failed[t.r] = t.err
		}
	}
	s.afterSwitch()
	return report, errors.Join(errs...)
}

// transition prepares a Move. It returns nil if only the rules change.
func (s *Set) transition(ctx context.Context, m *Move) (*transition, error) {
	t, err := s.differences(ctx, m)
	if err != nil {
		return nil, err
	}
	r := m.Replica
	r.promise.Store(uint32(m.Durability))
	if t.changes == nil && t.own == nil {
		r.mu.Lock()
		r.keep, r.shared, r.rules, r.view.files = m.Keep, m.Shared, m.Rules, m.Files
		r.mu.Unlock()
		return nil, nil
	}
	if path, held := t.blockedBy(m.Mounted); held {
		return nil, &Held{Node: r.node, Image: r.image, Path: path}
	}
	return t, nil
}

// differences finds what a Move changes.
func (s *Set) differences(ctx context.Context, m *Move) (*transition, error) {
	r := m.Replica
	if r.dir == "" {
		return nil, errReadOnly
	}
	index, err := s.indexes.get(m.Version)
	if err != nil {
		return nil, err
	}
	if r.attached && m.Version.Digest != r.state.to.Digest && index.Damage() != nil {
		return nil, index.Damage()
	}
	m.Files = keepTimes(m.Files, r.state.files)
	t := &transition{
		r: r, to: &view{index: index, files: m.Files}, keep: m.Keep, shared: m.Shared, rules: m.Rules,
		from: r.state.to, version: s.journal.version(m.Version),
	}
	if t.from.Digest != t.version.Digest {
		if t.changes, err = s.changesBetween(ctx, t.from, t.version); err != nil {
			return nil, err
		}
	}
	if r.attached && slices.Equal(t.to.files.List, r.view.files.List) {
		t.compareFiles(r.state.files)
	} else {
		t.compareFiles(fingerprints(t.to.files))
	}
	if t.changes != nil {
		t.addExtra(m.Extra)
		t.wanted = stayWish{m.Stay, m.StayPackages}
	}
	return t, nil
}

var errReadOnly = errors.New("a version served read-only follows nothing")

// changesBetween compares two versions, once for all replicas.
func (s *Set) changesBetween(ctx context.Context, from, to *image.Version) (*changes, error) {
	pair := [2]image.Digest{from.Digest, to.Digest}
	s.mu.RLock()
	c := s.compared[pair]
	s.mu.RUnlock()
	if c != nil {
		return c, nil
	}
	list, err := s.compare(ctx, from, to)
	if err != nil {
		return nil, err
	}
	c = newChanges(list)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.compared) >= comparedMax {
		clear(s.compared)
	}
	s.compared[pair] = c
	return c, nil
}

const comparedMax = 128

// switchQuick switches the replicas whose layers hold nothing at the paths that differ. On disk only the
// journal changes for them: one record is written while all of them are locked, so that no write of a node can
// come between the record and the switch. It returns the other replicas.
func (s *Set) switchQuick(list []*transition, report *Report) (slow []*transition, err error) {
	var quick []*transition
	defer func() {
		for _, t := range quick {
			t.r.mu.Unlock()
		}
	}()
	for _, t := range list {
		t.r.mu.Lock()
		hit, err := t.touches()
		if err != nil || hit {
			t.r.mu.Unlock()
			slow = append(slow, t) // an error is reported for this replica alone
			continue
		}
		quick = append(quick, t)
	}
	if len(quick) == 0 {
		return slow, nil
	}
	steps := s.beginStep(report)
	err = s.record(recordDone, steps.at, quick)
	report.Replicas += applyAll(quick, steps)
	if err != nil {
		failAll(slow, err)
		return nil, err
	}
	return slow, nil
}

// applyAll applies those transitions that have not failed. It returns how many.
func applyAll(list []*transition, steps *batchStep) (count int) {
	for _, t := range list {
		if t.err == nil {
			t.apply(steps)
			count++
		}
	}
	return count
}

// switchSlow switches replicas whose layers hold entries that must be set aside. An intent is written first, so
// that the switch is completed after a crash. That it is done is written before a node can write again, so that
// it is never done twice.
func (s *Set) switchSlow(list []*transition, report *Report) error {
	for _, t := range list {
		t.mergeAhead()
	}
	for _, t := range list {
		t.r.mu.Lock()
		defer t.r.mu.Unlock()
	}
	return s.moveAside(list, s.beginStep(report), report)
}

// moveAside is switchSlow for replicas that are locked.
func (s *Set) moveAside(list []*transition, steps *batchStep, report *Report) error {
	var errs []error
	ready := slices.DeleteFunc(slices.Clone(list), func(t *transition) bool {
		if t.err = t.planAside(); t.err != nil {
			errs = append(errs, fmt.Errorf("switch %s: %w", t.r.dir, t.err))
		}
		return t.err != nil
	})
	if err := s.record(recordIntent, steps.at, ready); err != nil {
		failAll(ready, err)
		return errors.Join(append(errs, err)...)
	}
	done, undone := s.setAllAside(ready, steps, report)
	for _, t := range undone {
		errs = append(errs, fmt.Errorf("switch %s: %w", t.r.dir, t.err))
	}
	why := make([]error, len(undone))
	for i, t := range undone {
		why[i] = t.err
	}
	errs = append(errs, s.record(recordUndone, steps.at, undone), s.record(recordDone, steps.at, done))
	for i, t := range undone {
		t.err = why[i]
	}
	report.Replicas += applyAll(done, steps)
	return errors.Join(errs...)
}

// planAside reads the layer, if it was not read yet, and decides what stays in it.
func (t *transition) planAside() error {
	if !t.r.ready {
		if err := t.r.prepare(); err != nil {
			return err
		}
	}
	return t.planStay()
}

// setAllAside sets aside what all replicas in list hold at paths that differ, and makes that durable together.
func (s *Set) setAllAside(list []*transition, steps *batchStep, report *Report) (done, undone []*transition) {
	ops := make([]*setAsideOp, len(list))
	for i, t := range list {
		ops[i] = &setAsideOp{
			op: op{r: t.r}, t: t, at: steps.at, dir: savedDir(steps.at), why: t.why(), several: len(list) > 1,
		}
		t.err = ops[i].stageMerges()
	}
	err := s.stageAll(ops)
	for i, t := range list {
		if t.err == nil && err == nil {
			t.err = ops[i].run()
		}
		report.Aside = append(report.Aside, ops[i].list...)
		ops[i].discardPending()
		if t.err == nil {
			done = append(done, t)
			continue
		}
		undone = append(undone, t)
	}
	if err == nil {
		err = s.flushAll(ops)
	}
	for _, a := range ops {
		a.release()
	}
	if err != nil {
		failAll(done, err)
		return nil, list
	}
	return done, undone
}

// failAll notes why none of list could be done.
func failAll(list []*transition, err error) {
	for _, t := range list {
		t.err = err
	}
}

// apply makes the replica, which is locked, show the new view. The next call makes its dentries.
func (t *transition) apply(with *batchStep) {
	r := t.r
	r.set.journal.advance(r.state, shared(with.steps, step{
		before: r.state.steps, at: with.at, from: t.from, to: t.version, prior: r.state.files,
	}, t.files))
	if t.changes != nil && r.historyLoaded {
		r.history.versions = r.history.versions.add(with.segment(t.changes), with.joins)
	}
	if t.own != nil && r.historyLoaded {
		r.history.own = r.history.own.add(newSegment(t.own.delta, with.at), with.joins)
	}
	if t.extra != nil || t.stay != nil {
		r.renewed = with.at // directories have changed in which the versions are the same
	}
	r.history.forget(r.set.retained(), r.set.retain.switches)
	r.view, r.keep, r.shared, r.rules = t.to, t.keep, t.shared, t.rules
	r.ready = false
}

// afterSwitch drops indexes that are no longer used, and shortens the journal.
func (s *Set) afterSwitch() {
	s.merges.forget()
	s.pruneIndexes()
	if err := s.shortenJournal(); err != nil {
		s.log.Error("journal of switches could not be shortened", "error", err)
	}
}

// pruneIndexes drops the indexes of versions that no replica shows.
func (s *Set) pruneIndexes() {
	used := make(map[*lower.Index]bool)
	s.mu.RLock()
	all := slices.Collect(maps.Values(s.replicas))
	s.mu.RUnlock()
	for _, r := range all {
		r.mu.RLock()
		used[r.view.index] = true
		r.mu.RUnlock()
	}
	s.indexes.prune(used)
}

// shortenJournal writes the journal anew if it has grown large.
func (s *Set) shortenJournal() error {
	return s.journal.rewrite(s.retained(), s.retain.switches)
}

func parentPath(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[:i]
		}
	}
	return ""
}

// all returns what is to be set aside, in this order. Some may be nil.
func (t *transition) all() []*changes { return []*changes{t.extra, t.changes, t.own} }

// touches reports whether the layer has anything at the paths that differ, or hides one. If the layer was not
// read yet only these paths are.
func (t *transition) touches() (bool, error) {
	r := t.r
	if len(t.wanted.paths) > 0 {
		return true, nil
	}
	if r.scanned {
		return r.root != nil && slices.ContainsFunc(t.all(), func(c *changes) bool {
			return t.touchesDentry(c, r.root)
		}), nil
	}
	fd, err := r.set.root.OpenDir(r.dir.Upper(""))
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	for _, c := range t.all() {
		if c == nil {
			continue
		}
		if hit, err := touchesDir(c.tree, fd, "."); hit || err != nil {
			return hit, err
		}
	}
	return false, nil
}

func (t *transition) touchesDentry(c *changes, p *dentry) bool {
	return c != nil && touchesDentry(c.tree, p)
}

func touchesDentry(c *change, p *dentry) bool {
	if p.white || p.obj != nil && (c.differs || p.obj.kind != vfs.Directory || p.obj.opaque) {
		return true
	}
	if len(p.kids) < len(c.kids)/8 { // most layers hold little, and a version may change much
		for _, q := range p.kids {
			if k := c.kid(q.name); k != nil && touchesDentry(k, q) {
				return true
			}
		}
		return false
	}
	for _, k := range c.kids {
		if q := p.kid(k.name, k.hash); q != nil && touchesDentry(k, q) {
			return true
		}
	}
	return false
}

// touchesDir is touchesDentry for the entry name of an open directory of the disk.
func touchesDir(c *change, dir int, name string) (bool, error) {
	var st unix.Stat_t
	switch err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case err == unix.ENOENT:
		return false, nil
	case err != nil:
		return false, err
	case c.differs || vfs.TypeOf(st.Mode) != vfs.Directory:
		return true, nil
	}
	if layer.At(dir, name).OpaqueValue(make([]byte, 8)) == "y" {
		return true, nil
	}
	fd, err := layer.Dir(dir).Enter(name)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	for _, k := range c.kids {
		if hit, err := touchesDir(k, fd, k.name); hit || err != nil {
			return hit, err
		}
	}
	return false, nil
}
