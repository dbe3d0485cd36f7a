package replica

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/layer"
)

// Attach is AttachAll for one replica.
func (s *Set) Attach(spec Spec) (*Replica, error) {
	all, errs := s.AttachAll(context.Background(), []Spec{spec})
	return all[0], errs[0]
}

// AttachAll serves replicas of nodes. For each spec it returns the replica, or nil and why it is not served. A layer is
// not read before the first call, unless the journal says that the replica followed another version or showed other
// node files. Then it is switched first, as by Switch, together with all others. Each replica fails alone.
func (s *Set) AttachAll(ctx context.Context, specs []Spec) (all []*Replica, errs []error) {
	s.switching.Lock()
	defer s.switching.Unlock()
	a := attaching{set: s, trees: make(map[Tree]bool)}
	all, errs = make([]*Replica, len(specs)), make([]error, len(specs))
	for i := range specs {
		all[i], errs[i] = a.begin(ctx, &specs[i])
	}
	flushed := a.flush()
	failed := a.catchUp()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range all {
		if errs[i] == nil {
			errs[i] = failed[r]
		}
		if errs[i] == nil && flushed != nil && slices.Contains(a.first, r) {
			errs[i] = flushed
		}
		if errs[i] != nil {
			all[i], errs[i] = nil, fmt.Errorf("attach %s/%s: %w", specs[i].Node, specs[i].Image, errs[i])
			continue
		}
		r.attached = true
		s.replicas[r.tree] = r
	}
	return all, errs
}

// attaching is one call of AttachAll.
type attaching struct {
	set   *Set
	trees map[Tree]bool
	first []*Replica    // that have a layer, and are not in the journal yet
	list  []*transition // of those that show something else
}

// begin makes a replica, which no call uses yet.
func (a *attaching) begin(ctx context.Context, spec *Spec) (*Replica, error) {
	s := a.set
	if err := checkDirNames(spec.Node, spec.Image); err != nil {
		return nil, err
	}
	index, err := s.indexes.get(spec.Version)
	if err != nil {
		return nil, err
	}
	r := &Replica{
		set: s, node: spec.Node, image: spec.Image, dir: layer.Home(spec.Node + "/" + spec.Image),
		tree: ReplicaTree(spec.Node, spec.Image), keep: spec.Keep, shared: spec.Shared, rules: spec.Rules,
		view: &view{index: index, files: spec.Files},
	}
	r.promise.Store(uint32(spec.Durability))
	if _, twice := s.Find(r.tree); twice || a.trees[r.tree] {
		return nil, errors.New("it is attached already")
	}
	a.trees[r.tree] = true
	if err := s.settleDoubt(r); err != nil {
		return nil, err
	}
	v := s.journal.version(spec.Version)
	var known bool
	r.state, known = s.journal.state(string(r.dir), v, fingerprints(spec.Files), s.journal.stamp(s.now()))
	if known {
		err = a.compare(ctx, r, spec)
		if err != nil && ctx.Err() == nil && !r.mayHaveLayer() {
			// What it followed may have been removed. Nothing of the node is over it.
			s.log.Warn("a replica without files of its own starts anew", "replica", r.dir, "error", err)
			s.journal.forget(string(r.dir))
			r.view = &view{index: index, files: spec.Files}
			r.state, _ = s.journal.state(string(r.dir), v, fingerprints(spec.Files), s.journal.stamp(s.now()))
			err = nil
		}
		r.recorded = !r.state.unwritten
	} else if r.hasLayer() {
		a.first = append(a.first, r)
	}
	if err == nil {
		err = s.endDoubt(r)
	}
	if err != nil { // compare may have noted it
		a.list = slices.DeleteFunc(a.list, func(t *transition) bool { return t.r == r })
	}
	r.history.made = r.state.made
	return r, err
}

// flush records over which version the layers are of which nothing was known.
func (a *attaching) flush() error {
	if len(a.first) == 0 {
		return nil
	}
	return a.set.journal.flush()
}

// checkDirNames refuses names that could lead out of the set's directory.
func checkDirNames(names ...string) error {
	for _, n := range names {
		if checkName(n) != nil || n[0] == '.' {
			return fmt.Errorf("attach replica: %q is not a name for a directory", n)
		}
	}
	return nil
}

func (r *Replica) hasLayer() bool {
	fd, err := r.set.root.Open(r.dir.Upper(""), unix.O_PATH)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// mayHaveLayer reports whether r has a layer. If the disk does not tell, it may have one.
func (r *Replica) mayHaveLayer() bool {
	there, err := r.set.root.Exists(r.dir.Upper(""))
	return there || err != nil
}

// compare completes a switch that was interrupted, and notes what r is to be switched to.
func (a *attaching) compare(ctx context.Context, r *Replica, spec *Spec) error {
	s := a.set
	if p := r.state.pending; p != nil {
		t, err := s.resume(ctx, r, p)
		if err != nil {
			return err
		}
		r.mu.Lock()
		err = s.moveAside([]*transition{t}, newBatchStep(p.at), new(Report))
		r.mu.Unlock()
		if err != nil {
			return err
		}
		index, err := s.indexes.get(spec.Version)
		if err != nil {
			return err
		}
		r.view = &view{index: index, files: spec.Files}
	}
	t, err := s.transition(ctx, &Move{
		Replica: r, Version: spec.Version, Files: spec.Files, Keep: spec.Keep, Shared: spec.Shared, Rules: spec.Rules,
		Durability: spec.Durability,
	})
	if t != nil && err == nil {
		a.list = append(a.list, t)
	}
	return err
}

// catchUp switches the replicas that show something else. It returns why some could not be.
func (a *attaching) catchUp() map[*Replica]error {
	if len(a.list) == 0 {
		return nil
	}
	s, report, failed := a.set, Report{}, make(map[*Replica]error)
	if err := s.carryOut(a.list, &report); err != nil {
		s.log.Warn("not all replicas could be switched", "error", err)
	}
	for _, t := range a.list {
		if t.err != nil {
			failed[t.r] = t.err
		} else if err := t.r.sweepSnapshots(); err != nil {
			s.log.Warn("old snapshots are not removed", "replica", t.r.dir, "error", err)
		}
	}
	for i := range report.Aside {
		x := &report.Aside[i]
		s.log.Info("a node's own copy was set aside", "node", x.Node, "image", x.Image, "path", "/"+x.Path,
			"kind", x.What())
	}
	for _, err := range report.Missed {
		s.log.Warn("no snapshot was taken before a switch", "error", err)
	}
	if report.Replicas > 0 {
		s.log.Info("replicas switched", "replicas", report.Replicas, "paths", report.Paths, "aside", len(report.Aside),
			"took", report.Took)
	}
	return failed
}

// resume makes the transition of a switch that the journal has as begun and not as done.
func (s *Set) resume(ctx context.Context, r *Replica, p *step) (*transition, error) {
	index, err := s.indexes.get(*p.to)
	if err != nil {
		return nil, err
	}
	r.view = &view{index: index}
	t := &transition{
		r: r, to: r.view, keep: r.keep, shared: r.shared, rules: r.rules, from: r.state.to, version: p.to,
		hidden: make(map[string]bool),
	}
	if t.from.Digest != t.version.Digest {
		if t.changes, err = s.changesBetween(ctx, t.from, t.version); err != nil {
			return nil, err
		}
	}
	after := p.files
	if after == nil {
		after = r.state.files
	}
	t.compareFiles(after)
	if t.changes != nil {
		t.addExtra(p.extra)
		t.setStay(p.stay)
	}
	return t, nil
}

// fingerprints returns a fingerprint of each node file by path: its id, which depends on the content, a checksum of the
// attributes, and the modification time.
func fingerprints(files NodeFiles) map[string]string {
	m := make(map[string]string, len(files.List))
	for i := range files.List {
		f := &files.List[i]
		m[f.Path] = fmt.Sprintf("%s/%d.%d", f.sameness(), f.Mtime.Sec, f.Mtime.Nsec)
	}
	return m
}

// sameness is the part of f's fingerprint that does not depend on the modification time.
func (f *NodeFile) sameness() string {
	attrs := crc32.ChecksumIEEE(fmt.Append(nil, f.Mode, f.UID, f.GID))
	return fmt.Sprintf("%016x%08x", uint64(fileid.OfNodeFile(f.Path, f.Digest)), attrs)
}

// keepTimes returns files in which those that are as they were, except for the modification time, have the one that
// they had. All files are rendered with a new time when the description changes, and only those that really differ must
// cost a switch. was has their fingerprints.
func keepTimes(files NodeFiles, was map[string]string) NodeFiles {
	files.List = slices.Clone(files.List)
	for i := range files.List {
		f := &files.List[i]
		same, mtime, _ := strings.Cut(was[f.Path], "/")
		if same != f.sameness() {
			continue
		}
		seconds, nanoseconds, _ := strings.Cut(mtime, ".")
		sec, err := strconv.ParseInt(seconds, 10, 64)
		nsec, err2 := strconv.ParseUint(nanoseconds, 10, 32)
		if err == nil && err2 == nil {
			f.Mtime = image.Time{Sec: sec, Nsec: uint32(nsec)}
		}
	}
	return files
}

func fingerprintID(f string) fileid.ID {
	id, _ := strconv.ParseUint(f[:min(16, len(f))], 16, 64)
	return fileid.ID(id)
}

// loadedHistory is the history up to a step, as replicas have it that share the step.
type loadedHistory struct {
	versions chain
	own      chain
	floor    int64
}

// loadHistory builds the history of r from the journal and the trees. A step whose versions are no longer in
// the store is left out, with all before it.
func (s *Set) loadHistory(r *Replica) {
	steps, floor := recent(r.state.steps, s.retained(), s.retain.switches)
	mem := loadedHistory{floor: floor}
	if last := r.state.steps; last != nil {
		s.mu.RLock()
		known, ok := s.historyLoaded[last]
		s.mu.RUnlock()
		if ok {
			mem, steps = known, nil
		}
	}
	known := make(joins)
	for _, st := range steps {
		mem = s.addStep(mem, st, known)
	}
	if last := r.state.steps; last != nil && len(steps) > 0 {
		s.mu.Lock()
		s.historyLoaded[last] = mem
		s.mu.Unlock()
	}
	r.history.versions, r.history.own, r.history.made = mem.versions, mem.own, max(r.history.made, mem.floor)
}

func (s *Set) addStep(mem loadedHistory, st *step, known joins) loadedHistory {
	if st.from.Digest != st.to.Digest {
		c, err := s.changesBetween(context.Background(), st.from, st.to)
		if err != nil {
			from, to := st.from.Ref().String(), st.to.Ref().String()
			s.log.Warn("the history of an earlier switch is not available", "from", from, "to", to, "error", err)
			return loadedHistory{floor: st.at}
		}
		mem.versions = mem.versions.add(newSegment(c.delta, st.at), known)
	}
	if st.files != nil {
		mem.own = mem.own.add(newSegment(filesDelta(st.prior, st.files), st.at), known)
	}
	return mem
}

// filesDelta returns the ids that a change of node files touches, from their fingerprints.
func filesDelta(before, after map[string]string) *delta {
	d := newDelta()
	for _, path := range differing(before, after) {
		d.touchAbove(path)
		if f, ok := after[path]; ok {
			d.touched[fingerprintID(f)] = struct{}{}
		}
	}
	return d
}

// differing returns the paths at which the fingerprints differ, in walk order.
func differing(before, after map[string]string) []string {
	var paths []string
	for path, f := range after {
		if before[path] != f {
			paths = append(paths, path)
		}
	}
	for path := range before {
		if _, stays := after[path]; !stays {
			paths = append(paths, path)
		}
	}
	slices.SortFunc(paths, image.ComparePaths)
	return paths
}

// touchAbove adds the directories above path to what is touched: names in them change.
func (d *delta) touchAbove(path string) {
	for path != "" {
		path = parentPath(path)
		d.touched[fileid.OfDir(path)] = struct{}{}
	}
}
