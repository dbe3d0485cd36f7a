package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/vfs"
)

// Rewinding says what a layer is to be again.
type Rewinding struct {
	To  string // which snapshot, see pick
	Dry bool   // only tell what would be done
}

// Rewound tells what a Rewind has done.
type Rewound struct {
	Snapshot Snapshot
	Undo     string // the stamp of the snapshot that shows the layer as it was before; "" when there was none, and in a dry run
	Paths    []RewoundPath
	Copies   uint64 // bytes that it takes to copy, for the undo too, while the node's calls wait: the disk cannot share them
	Unknown  bool   // the version that the snapshot was taken over is no longer in the store: what the master has changed since is not known
}

// RewoundPath is a path at which a Rewind changes the layer, or does not although the snapshot has something there.
type RewoundPath struct {
	Path      string
	What      RewoundWhat
	Kind      AsideKind
	Displaced bool // of what came back: the layer had something else there, which is set aside now
}

// RewoundWhat tells what became of a path.
type RewoundWhat string

// The snapshot's is in the layer again; the layer's, which the snapshot has not, was set aside; the snapshot's stays there alone, for the master
// has changed the path since.
const (
	RewoundBack  RewoundWhat = "restored"
	RewoundAside RewoundWhat = "set aside"
	RewoundHeld  RewoundWhat = "held back"
)

// Snapshots lists the snapshots of r's layer, the latest first.
func (r *Replica) Snapshots() ([]Snapshot, error) { return r.snapshots() }

// Rewind makes the layer what it was at a snapshot. What it holds besides is set aside, as by a reset, and kept in a snapshot of its own first:
// if that cannot be taken nothing is done. Files that are what they were stay the same files; others come back under new ids, so that who has
// the present ones open keeps them.
//
// When the replica follows another version than at the snapshot, the rules of a switch from that version hold.
func (r *Replica) Rewind(q Rewinding) (*Rewound, error) {
	a, err := r.mend("restore")
	if err != nil {
		return nil, err
	}
	w, err := r.rewinder(a, q.To)
	if err == nil {
		err = w.plan()
	}
	if err != nil || q.Dry || !w.changes() {
		if err = a.giveUp(err); err != nil {
			return nil, err
		}
		return &w.out, nil
	}
	if err := w.keep(); err != nil {
		return nil, a.giveUp(err)
	}
	if err := a.finish(w.apply()); err != nil {
		return nil, fmt.Errorf("restore layer %s: %w", r.dir, err)
	}
	_, err = r.thin()
	return &w.out, err
}

// changes reports whether anything is to be done.
func (w *rewinder) changes() bool {
	return slices.ContainsFunc(w.out.Paths, func(p RewoundPath) bool { return p.What != RewoundHeld })
}

// rewinder carries out one Rewind.
type rewinder struct {
	a       *asider
	r       *Replica
	from    string // the snapshot, from the set's directory
	tree    *change
	hidden  map[string]bool
	out     Rewound
	there   map[string]bool // paths in the layer as it will be; whether they are directories
	planned bool            // out says already what happens
}

func (r *Replica) rewinder(a *asider, to string) (*rewinder, error) {
	list, err := r.snapshots()
	if err != nil {
		return nil, err
	}
	one, err := pick(list, to)
	if err != nil {
		return nil, err
	}
	w := &rewinder{a: a, r: r, from: r.dir + "/" + snapshotArea + "/" + one.ID(), there: make(map[string]bool), hidden: make(map[string]bool)}
	w.out.Snapshot = *one
	for path := range r.state.files {
		w.hidden[path] = true
	}
	return w, w.compareVersions()
}

// compareVersions finds what the master has changed since the snapshot.
func (w *rewinder) compareVersions() error {
	over := w.out.Snapshot.Over
	if len(over) == 0 {
		w.out.Unknown = true
		return nil
	}
	was := over[len(over)-1].Digest
	if was == w.r.state.to.Digest {
		return nil
	}
	s := w.r.set
	s.journal.mu.Lock()
	from := s.journal.versions[was]
	s.journal.mu.Unlock()
	if from == nil {
		w.out.Unknown = true
		return nil
	}
	c, err := s.changesBetween(context.Background(), from, w.r.state.to)
	if err != nil {
		w.out.Unknown = true
		return nil
	}
	w.tree = c.tree
	return nil
}

// plan goes through the snapshot without making anything, then through the layer.
func (w *rewinder) plan() error {
	c := treeCopy{set: w.r.set, from: w.from, choose: w.choose}
	if err := c.run(); err != nil {
		return err
	}
	if err := w.surplus(w.r.root); err != nil {
		return err
	}
	if w.changes() && !w.r.set.shares() {
		undo, err := w.r.keepingTakes()
		if err != nil {
			return err
		}
		w.out.Copies = c.copied + undo
	}
	slices.SortFunc(w.out.Paths, func(a, b RewoundPath) int { return image.ComparePaths(a.Path, b.Path) })
	w.planned = true
	return nil
}

func (w *rewinder) note(p RewoundPath) {
	if !w.planned {
		w.out.Paths = append(w.out.Paths, p)
	}
}

// choose decides about an entry of the snapshot.
func (w *rewinder) choose(e *treeEntry) (choice, error) {
	how, held := w.rule(e)
	for _, kind := range held {
		w.note(RewoundPath{Path: e.path, What: RewoundHeld, Kind: kind})
	}
	if how.leave {
		return how, nil
	}
	isDir := vfs.TypeOf(e.st.Mode) == vfs.Directory
	w.there[e.path] = isDir
	p := w.r.placeAt(e.path)
	if isDir {
		return how, w.directory(e, p, held)
	}
	if isWhiteout(&e.st) {
		if p == nil || !p.white {
			w.note(RewoundPath{Path: e.path, What: RewoundBack, Kind: AsideRemoval, Displaced: p != nil && p.obj != nil})
		}
		return how, nil
	}
	same, err := w.same(e, p)
	if err != nil {
		return how, err
	}
	if same {
		how.link = func(dir int, name string) error { return w.link(p, dir, name) }
		return how, nil
	}
	w.note(RewoundPath{Path: e.path, What: RewoundBack, Kind: AsideEntry, Displaced: p != nil && (p.obj != nil || p.white)})
	how.dress = renamed
	return how, nil
}

// renamed gives a file that comes back an id that it never had: under the old one somebody may have other content open.
func renamed(at string) error {
	if err := unix.Lremovexattr(at, xattrGroup); err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
		return err
	}
	return unix.Lsetxattr(at, xattrID, idValue(newID(), nil), 0)
}

func (w *rewinder) link(p *place, dir int, name string) error {
	d, own, err := w.r.where(p.obj)
	if err != nil {
		return err
	}
	defer d.Release()
	return unix.Linkat(d.FD, own, dir, name, 0)
}

// directory notes when a directory comes back, or has other attributes or hides something else than now.
func (w *rewinder) directory(e *treeEntry, p *place, held []AsideKind) error {
	then := dirAttrs{e.st.Mode & 0o7777, e.st.Uid, e.st.Gid}
	if p == nil || p.obj == nil || p.obj.kind != vfs.Directory {
		theirs := w.r.lowAttrs(&place{low: w.r.lowAt(e.path)})
		switch {
		case e.path != "" && !w.merged(e):
			w.note(RewoundPath{Path: e.path, What: RewoundBack, Kind: AsideEntry, Displaced: p != nil && (p.obj != nil || p.white)})
		case theirs != nil && then != *theirs && !slices.Contains(held, AsideAttributes):
			w.note(RewoundPath{Path: e.path, What: RewoundBack, Kind: AsideAttributes})
		}
		return nil
	}
	if opaque := hasXattr(e.dir, e.name, xattrOpaque); opaque && !p.obj.opaque && !slices.Contains(held, AsideOpaque) {
		w.note(RewoundPath{Path: e.path, What: RewoundBack, Kind: AsideOpaque})
	}
	var st unix.Stat_t
	if err := w.r.stat(p.obj, &st); err != nil {
		return err
	}
	if then != (dirAttrs{st.Mode & 0o7777, st.Uid, st.Gid}) && !slices.Contains(held, AsideAttributes) {
		w.note(RewoundPath{Path: e.path, What: RewoundBack, Kind: AsideAttributes})
	}
	return nil
}

// merged reports whether the directory e is in the snapshot only for what is in it.
func (w *rewinder) merged(e *treeEntry) bool {
	v, err := getXattr(e.dir, e.name, xattrID, make([]byte, 64))
	id, _, ok := parseIDValue(v)
	return (err != nil || ok && id == image.DirID(e.path)) && !hasXattr(e.dir, e.name, xattrOpaque)
}

// surplus notes what the layer has at p and below and the snapshot has not.
func (w *rewinder) surplus(p *place) error {
	path := p.path()
	isDir, there := w.there[path]
	switch {
	case there && !isDir:
		return nil // in the place of what there is
	case there || p.obj == nil && !p.white:
	case p.white:
		w.note(RewoundPath{Path: path, What: RewoundAside, Kind: AsideRemoval})
		return nil
	case p.obj.kind != vfs.Directory || p.obj.opaque || p.obj.id != image.DirID(path):
		w.note(RewoundPath{Path: path, What: RewoundAside, Kind: AsideEntry})
		return nil
	default:
		var st unix.Stat_t
		if err := w.r.stat(p.obj, &st); err != nil {
			return err
		}
		if theirs := w.r.lowAttrs(p); theirs != nil && *theirs != (dirAttrs{st.Mode & 0o7777, st.Uid, st.Gid}) {
			w.note(RewoundPath{Path: path, What: RewoundAside, Kind: AsideAttributes})
		}
	}
	for _, k := range p.kids {
		if err := w.surplus(k); err != nil {
			return err
		}
	}
	return nil
}

// same reports whether the layer's file at p is what the snapshot has, so that it can stay what it is.
func (w *rewinder) same(e *treeEntry, p *place) (bool, error) {
	if p == nil || p.obj == nil || p.obj.kind != vfs.TypeOf(e.st.Mode) {
		return false, nil
	}
	v, _ := getXattr(e.dir, e.name, xattrID, make([]byte, 64))
	id, _, ok := parseIDValue(v)
	d, name, err := w.r.where(p.obj)
	if err != nil {
		return false, err
	}
	defer d.Release()
	var st unix.Stat_t
	if err := unix.Fstatat(d.FD, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	if (!ok || id != p.obj.id) && (st.Nlink > 1 || e.st.Nlink > 1) {
		return false, nil // which names are one file could change
	}
	if of, err := getXattr(e.dir, e.name, xattrOf, make([]byte, 64)); err == nil && string(of) == string(originOf(&st)) {
		return true, nil
	}
	if st.Mode != e.st.Mode || st.Uid != e.st.Uid || st.Gid != e.st.Gid || st.Size != e.st.Size || st.Mtim != e.st.Mtim || st.Rdev != e.st.Rdev {
		return false, nil
	}
	if same, err := sameXattrs(procPath(e.dir, e.name), procPath(d.FD, name)); !same {
		return false, err
	}
	return sameContent(e.dir, e.name, d.FD, name)
}

// keep takes the snapshot by which a Rewind can be undone.
func (w *rewinder) keep() error {
	at, err := w.r.snapshot("restore", 0)
	if errors.Is(err, errNoRoom) {
		return fmt.Errorf("what the node has now cannot be kept: %w", err)
	}
	if err == nil && at != 0 {
		w.out.Undo = stampOf(at)
	}
	return err
}

// apply builds the layer anew beside the present one and swaps the two; then it moves what is of no more use of the older to the saved area.
func (w *rewinder) apply() error {
	r, at := w.r, stampOf(w.a.at)
	area, err := r.set.makePath(r.dir + "/saved")
	if err != nil {
		return err
	}
	defer unix.Close(area)
	built := r.dir + "/saved/" + swapMark + at
	fd, err := r.set.makePath(built)
	if err != nil {
		return err
	}
	unix.Close(fd)
	clear(w.there)
	c := treeCopy{set: r.set, from: w.from, to: built, choose: w.choose}
	if err := c.run(); err != nil {
		return errors.Join(err, r.set.abandon(area, swapMark+at))
	}
	if err := r.set.settleCopies(c.copied); err != nil {
		return err
	}
	if err := r.renew(w.a.at); err != nil {
		return err
	}
	return w.swap(area, at)
}

// abandon removes what a call has made that does not come about.
func (s *Set) abandon(dir int, name string) error {
	if s.crash("in abandon") != nil {
		return nil // the next start does
	}
	return removeAll(dir, name)
}

// swap puts the layer that was built into the place of the present one.
func (w *rewinder) swap(area int, at string) error {
	r := w.r
	dir, err := r.set.makePath(r.dir)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if err := r.set.crash("before swap"); err != nil {
		return err
	}
	if r.root.obj == nil {
		if err := w.workDir(); err != nil {
			return err
		}
		if err := renameNew(area, swapMark+at, dir, "upper"); err != nil {
			return err
		}
		return errors.Join(r.set.settle(area), r.set.settle(dir))
	}
	if err := unix.Lsetxattr(procPath(dir, "upper"), xattrWhy, []byte(w.a.why), 0); err != nil {
		return err
	}
	if err := swapDirs(area, swapMark+at, dir, "upper", at); err != nil {
		return err
	}
	if err := errors.Join(r.set.settle(area), r.set.settle(dir)); err != nil {
		return err
	}
	if err := r.set.crash("after swap"); err != nil {
		return err
	}
	return r.endSwap(area, at)
}

// workDir makes work/ for a layer that there was none of.
func (w *rewinder) workDir() error {
	fd, err := w.r.set.makePath(w.r.dir + "/work")
	if err == nil {
		unix.Close(fd)
	}
	return err
}
