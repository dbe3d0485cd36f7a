package replica

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/layer"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// stayWish is what a Move leaves as the node shows it, whatever the master changes: see Move.Stay. At paths at which
// the node shows a file of the old version, the layer gets a copy of it. At paths at which it shows nothing, the new
// version's file is hidden.
type stayWish struct{ paths, packages []string }

// stayPlan is what a stayWish means for one layer. It is decided once, and is in the journal before the layer changes,
// so that a switch that was interrupted is completed in the same way.
type stayPlan struct {
	Kept     []string `json:"kept,omitempty"`   // where the layer's entry stays, or a copy is made of the old file
	Hidden   []string `json:"hidden,omitempty"` // where the new version's file is hidden
	Packages []string `json:"packages,omitempty"`

	kept map[string]bool // Kept
}

func (p *stayPlan) keeps(path string) bool { return p != nil && p.kept[path] }

func (p *stayPlan) packages() []string {
	if p == nil {
		return nil
	}
	return p.Packages
}

// paths returns all that the journal has of p.
func (p *stayPlan) paths() []string {
	if p == nil {
		return nil
	}
	return slices.Concat(p.Kept, p.Hidden, p.Packages)
}

// setStay makes p what t does. p may be nil.
func (t *transition) setStay(p *stayPlan) {
	if t.stay = p; p == nil {
		return
	}
	p.kept = make(map[string]bool, len(p.Kept))
	for _, path := range p.Kept {
		p.kept[path] = true
	}
}

// planStay decides what t.wanted means for the layer of the replica, which is locked.
func (t *transition) planStay() error {
	if len(t.wanted.paths) == 0 || t.stay != nil {
		return nil
	}
	wanted := make(map[string]bool, len(t.wanted.paths))
	for _, path := range t.wanted.paths {
		wanted[path] = true
	}
	plan := &stayPlan{Packages: t.wanted.packages}
	for _, path := range t.wanted.paths {
		if path == "" || t.keep.Cover(path) || t.hidden[path] || !t.staysReachable(path) {
			continue
		}
		switch keep, hide := t.staysAt(path, wanted); {
		case keep:
			plan.Kept = append(plan.Kept, path)
		case hide:
			plan.Hidden = append(plan.Hidden, path)
		}
	}
	t.setStay(plan)
	return nil
}

// staysReachable reports whether nothing that the new version has above path is something else than a directory. Below
// such an entry nothing can stay.
func (t *transition) staysReachable(path string) bool {
	for up := parentPath(path); up != ""; up = parentPath(up) {
		if low, ok := t.to.index.Find(up); ok {
			return t.to.index.IsDir(low) // and so is all above
		}
	}
	return true
}

// staysAt decides about one path: whether what shows there is kept, or whether what the new version has is hidden.
// Directories are not decided about, since packages have them in common; one that the node has removed stays so if all
// that the master changes below it is of the packages.
func (t *transition) staysAt(path string, wanted map[string]bool) (keep, hide bool) {
	r := t.r
	p := r.dentryAt(path)
	if p != nil && p.obj != nil {
		return p.obj.kind != vfs.Directory, false
	}
	low, next := t.to.index.Find(path)
	nextFile := next && !t.to.index.IsDir(low)
	c := t.changes.tree.find(path)
	if p != nil && p.white {
		return nextFile || next && c != nil && c.onlyOf(path, wanted), false
	}
	s, shows := r.vnodeAt(path)
	switch {
	case !shows:
		return false, nextFile
	case s.low == lower.None || c == nil || !c.differs || c.old == nil:
		return false, false
	}
	return c.old.Type == image.Regular || c.old.Type == image.Symlink, false
}

// onlyOf reports whether everything that is new at or below path is in a set. Directories need not be.
func (c *change) onlyOf(path string, set map[string]bool) bool {
	if c.differs && c.to != 0 && c.to != vfs.Directory && !set[path] {
		return false
	}
	return !slices.ContainsFunc(c.kids, func(k *change) bool { return !k.onlyOf(image.JoinPath(path, k.name), set) })
}

// keepStaying makes the copies and whiteouts of the plan that the layer does not have yet.
func (a *setAsideOp) keepStaying() error {
	plan := a.t.stay
	if plan == nil {
		return nil
	}
	for _, path := range plan.Kept {
		if c := a.t.changes.tree.find(path); c != nil && c.old != nil {
			if err := a.keepFile(path, c.old); err != nil {
				return fmt.Errorf("keep /%s: %w", path, err)
			}
		}
	}
	for _, path := range plan.Hidden {
		if err := a.hideFile(path); err != nil {
			return fmt.Errorf("hide /%s: %w", path, err)
		}
	}
	return nil
}

// stayDir returns the dentry of the directory at path, which it makes in the layer. It is nil if the layer shows
// nothing of a version there.
func (a *setAsideOp) stayDir(path string) (*dentry, error) {
	p := a.r.root
	if p.obj == nil {
		if err := a.copyUpRoot(); err != nil {
			return nil, err
		}
	}
	at := ""
	for name := range strings.SplitSeq(path, "/") {
		if path == "" {
			break
		}
		at = image.JoinPath(at, name)
		p = a.r.need(p, name, lower.Hash(name))
		switch {
		case p.obj != nil && p.obj.kind == vfs.Directory && !p.obj.opaque:
			continue
		case p.obj != nil || p.white:
			return nil, nil
		}
		m := a.stayDirSpec(at)
		if m == nil {
			a.r.prune(p)
			return nil, nil
		}
		if err := a.createCopy(p, m, m.object()); err != nil {
			a.r.prune(p)
			return nil, err
		}
	}
	return p, nil
}

// stayDirSpec describes the directory at path as the new version has it, or else as the old one has it.
func (a *setAsideOp) stayDirSpec(path string) *objectSpec {
	if low, ok := a.t.to.index.Find(path); ok {
		var attr vfs.Attr
		a.t.to.index.Attr(low, &attr)
		return &objectSpec{
			kind: vfs.Directory, mode: attr.Mode, uid: attr.UID, gid: attr.GID, id: fileid.OfDir(path),
			xattrs: a.t.to.index.Xattrs(low), mtime: &attr.Mtime, atime: &attr.Mtime,
		}
	}
	c := a.t.changes.tree.find(path)
	if c == nil || c.old == nil || c.old.Type != image.Directory {
		return nil
	}
	return specOfEntry(path, c.old)
}

// specOfEntry describes the entry e of a version, without its content.
func specOfEntry(path string, e *image.Entry) *objectSpec {
	mtime := vfs.Time(e.Mtime)
	m := &objectSpec{
		kind: lower.TypeOf(e.Type), mode: e.Mode, uid: e.UID, gid: e.GID, target: e.Target, xattrs: e.Xattrs,
		id: fileid.OfEntry(path, e), mtime: &mtime, atime: &mtime,
	}
	if e.Type == image.Regular {
		digest := e.Digest
		m.origin = &digest
	}
	return m
}

// keepFile makes a copy of the old version's file at path, if the layer has nothing there.
func (a *setAsideOp) keepFile(path string, e *image.Entry) error {
	dir, err := a.stayDir(parentPath(path))
	if dir == nil || err != nil {
		return err
	}
	name := path[strings.LastIndexByte(path, '/')+1:]
	p := a.r.need(dir, name, lower.Hash(name))
	defer a.r.prune(p)
	if p.obj != nil || p.white {
		return nil
	}
	m := specOfEntry(path, e)
	if e.Link != "" || a.r.objects[m.id] != nil || a.r.history.aside[m.id] != nil {
		m.id, m.origin = layer.NewID(), nil // another entry has this id, or may get it
	}
	var file body
	if e.Type == image.Regular && e.Size > 0 {
		if file, err = a.r.set.entryBody(e); err != nil {
			return err
		}
		defer file.release()
		m.fill = func(fd int) error { return file.copyTo(fd, e.Size) }
	}
	return a.putCopy(p, m)
}

// putCopy makes m at p, as an object that is on the disk before it has its name.
func (a *setAsideOp) putCopy(p *dentry, m *objectSpec) error {
	if err := a.r.set.failAt("in set-aside"); err != nil {
		return err
	}
	work, err := a.work()
	if err != nil {
		return err
	}
	tmp, fd, err := a.r.createPending(work, m)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if fd >= 0 {
		defer unix.Close(fd)
		if a.r.durability() != Relaxed {
			err = a.r.set.commit.Stage(fd)
		}
		if err == nil {
			err = unix.Fstat(fd, &st)
		}
		if err != nil {
			unix.Unlinkat(work, tmp, 0)
			return err
		}
	}
	obj := m.object()
	if err := a.putQuietly(p, work, tmp, obj); err != nil {
		return err
	}
	if fd >= 0 {
		a.r.count(obj, layer.Occupied(&st))
	} else {
		a.r.count(obj, occupiedByLink(len(m.target)))
	}
	return nil
}

// hideFile makes a whiteout at path, if the layer has nothing there.
func (a *setAsideOp) hideFile(path string) error {
	dir, err := a.stayDir(parentPath(path))
	if dir == nil || err != nil {
		return err
	}
	name := path[strings.LastIndexByte(path, '/')+1:]
	p := a.r.need(dir, name, lower.Hash(name))
	defer a.r.prune(p)
	if p.obj != nil || p.white {
		return nil
	}
	fd, err := a.op.dir(dir)
	if err != nil {
		return err
	}
	return a.quietly(fd, func() error {
		err := unix.Mknodat(fd, name, unix.S_IFCHR, 0)
		if err == nil {
			a.r.whiteOut(p)
		}
		return err
	})
}

// entryBody opens the content of a version's regular file.
func (s *Set) entryBody(e *image.Entry) (b body, err error) {
	b.fixed, b.size, b.data = true, e.Size, e.Data
	if e.Data == nil {
		b.data = []image.Extent{{Length: e.Size}}
	}
	b.file, err = s.blob(&e.Digest)
	return b, err
}
