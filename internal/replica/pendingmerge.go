package replica

import (
	"fmt"

	"golang.org/x/sys/unix"

	"dim/internal/layer"
	"dim/internal/vfs"
)

// pendingMerge is a merged file without its name in the layer.
type pendingMerge struct {
	merged *mergedFile
	spec   *objectSpec
	work   int // open directory
	tmp    string
	fd     int
}

// pendingMerge makes the merged file m under a temporary name. Its content may not be on disk yet.
func (a *setAsideOp) pendingMerge(m *mergedFile) (*pendingMerge, error) {
	work, err := a.work()
	if err != nil {
		return nil, err
	}
	n := &pendingMerge{merged: m, spec: m.spec(a.at), work: work}
	if n.tmp, n.fd, err = a.r.createPending(work, n.spec); err != nil {
		return nil, err
	}
	if err := layer.At(n.fd, "").SetMergedAt(stampName(a.at)); err != nil {
		n.discard()
		return nil, err
	}
	return n, nil
}

// discard removes the file.
func (n *pendingMerge) discard() {
	unix.Unlinkat(n.work, n.tmp, 0)
	unix.Close(n.fd)
}

// takePending returns the file that stageMerges has made for path, if m is what it has.
func (a *setAsideOp) takePending(path string, m *mergedFile) *pendingMerge {
	n := a.pending[path]
	if n == nil || n.merged.result != m.result || n.merged.Attrs != m.Attrs {
		return nil
	}
	delete(a.pending, path)
	return n
}

// discardPending removes the files that nothing has used.
func (a *setAsideOp) discardPending() {
	for _, n := range a.pending {
		n.discard()
	}
	a.pending = nil
}

// stageMerges makes the merged files that the replica, which is locked, will need, so that the content of those of many
// replicas reaches the disk together. What it does not make is made one by one.
func (a *setAsideOp) stageMerges() error {
	if a.t.changes == nil {
		return nil
	}
	for path := range a.t.rules.Merge {
		m, err := a.needsMerge(path)
		if m == nil || err != nil {
			continue // an error is found again
		}
		n, err := a.pendingMerge(m)
		if err != nil {
			return fmt.Errorf("merge %s: %w", path, err)
		}
		if a.pending == nil {
			a.pending = make(map[string]*pendingMerge)
		}
		a.pending[path] = n
	}
	return nil
}

// needsMerge returns the file that the set-aside will put at path; nil if it will put none.
func (a *setAsideOp) needsMerge(path string) (*mergedFile, error) {
	t, c, p := a.t, a.t.changes.tree.find(path), a.r.dentryAt(path)
	switch {
	case c == nil || c.old == nil && c.new == nil || sameButTimes(c.old, c.new):
		return nil, nil
	case p == nil || p.obj == nil || p.obj.kind != vfs.Regular:
		return nil, nil
	case t.hidden[path] || t.keep.Cover(path) || t.stay.keeps(path) || t.isExtra[path] || t.rules.isBackup(path):
		return nil, nil
	}
	dir, err := a.r.layerDir(p.up)
	if err != nil {
		return nil, err
	}
	defer dir.Release()
	at := layer.At(dir.FD, p.name)
	if at.MergedAt() == stampName(a.at) {
		return nil, nil
	}
	m, err := t.mergedFile(t.rules.Merge[path], c, at)
	if err != nil || m.sameAs(c.new) {
		return nil, err
	}
	return m, nil
}

// stageAll brings the content of the files that ops have made to disk.
func (s *Set) stageAll(ops []*setAsideOp) error {
	var fds []int
	for _, a := range ops {
		for _, n := range a.pending {
			if a.r.durability() != Relaxed {
				fds = append(fds, n.fd)
			}
		}
	}
	return s.commit.StageAll(fds)
}
