package replica

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/image/treediff"
	"dim/internal/layer"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// errNoLayer refuses changes of a version served read-only.
var errNoLayer = errors.New("a version has no layer")

// Edit is a change of a replica's layer that an administrator asked for. Calls of the node wait until End or
// Cancel. Entries that the change replaces or removes go to the saved area, under one stamp and with one
// reason.
//
// Paths are relative to the root, without a leading slash.
type Edit struct{ setAsideOp }

// Edit begins a change of r's layer. It must be ended by End or Cancel. why is kept with what is set aside.
func (r *Replica) Edit(why string) (*Edit, error) {
	if r.dir == "" {
		return nil, errNoLayer
	}
	o, err := r.begin()
	if err != nil {
		return nil, err
	}
	r.snaps.unchanged() // End counts the change
	at := r.set.journal.stamp(r.set.now())
	return &Edit{setAsideOp{op: *o, at: at, dir: savedDir(at), why: why}}, nil
}

// End makes the change durable, unless err is not nil, and returns err. The next call of the node reads the
// layer again.
func (e *Edit) End(err error) error {
	r := e.r
	r.snaps.changed()
	r.forgetLayer()
	r.renewed = e.at
	e.others = true // attributes and whiteouts were changed too, and are not in dirty
	if e := e.end(nil); err == nil {
		err = e
	}
	return err
}

// Cancel ends an Edit that has changed nothing in the layer, and returns err.
func (e *Edit) Cancel(err error) error {
	e.r.mu.Unlock()
	e.release()
	return err
}

// Reread makes the next call of the node read the layer and the saved area again.
func (e *Edit) Reread() { e.r.forgetLayer() }

// forgetLayer makes the next call read the layer of r, which is locked, from the disk. The dentries are no
// longer right.
func (r *Replica) forgetLayer() {
	for _, all := range []map[fileid.ID]*object{r.objects, r.history.aside} {
		for _, o := range all {
			o.dead = true
			r.drop(o)
		}
	}
	r.previous = r.objects
	r.scanned, r.ready = false, false
}

// Stamp returns the time of the change. It names the directory of the saved area.
func (e *Edit) Stamp() time.Time { return time.Unix(0, e.at) }

// Moved returns what the Edit has set aside until now.
func (e *Edit) Moved() []layer.SetAside { return e.list }

// Fault calls Options.Fault.
func (r *Replica) Fault(point string) error { return r.set.failAt(point) }

// Snapshot takes a snapshot of the layer, whatever the rules say, and returns its stamp; "" if there is nothing
// to keep.
func (e *Edit) Snapshot() (stamp string, err error) {
	at, err := e.r.takeSnapshot(e.why, 0)
	if err != nil || at == 0 {
		return "", err
	}
	return stampName(at), nil
}

// SnapshotFirst takes the snapshot that the rules ask for before a change. If that fails the change goes on
// without it: what it takes from the layer is set aside.
func (e *Edit) SnapshotFirst() {
	rules := &e.r.rules
	if rules.Snapshots == 0 {
		return
	}
	if _, err := e.r.takeSnapshot(e.why, rules.snapshotLimit()); err != nil {
		e.r.set.log.Warn("no snapshot was taken before a change", "replica", e.r.dir, "reason", e.why, "error", err)
	}
}

// Renew gives everything that is not in the layer a ctime of at least the stamp, permanently. What shows from
// now on may be older than what a client has seen.
func (e *Edit) Renew() error {
	r := e.r
	since := r.set.retained()
	if err := r.set.journal.renew(string(r.dir), e.at, since, r.set.retain.switches); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	r.history.made = max(r.history.made, e.at)
	return nil
}

// Sync makes the names in an open directory durable if replies promise that.
func (e *Edit) Sync(dir int) error { return e.r.set.syncDir(dir) }

func (s *Set) syncDir(dir int) error {
	if s.least == Relaxed {
		return nil
	}
	return layer.Dir(dir).Fsync()
}

// SyncCopies makes copies of layers durable. copied is how many bytes could not be shared.
func (e *Edit) SyncCopies(copied uint64) error { return e.r.set.syncCopies(copied) }

// MakePath makes a directory, relative to the directory of all replicas, and returns it open.
func (e *Edit) MakePath(path string) (fd int, err error) { return e.r.set.makePath(path) }

// Swap returns what replaces the layer by another one.
func (e *Edit) Swap() *layer.Swap { return e.r.swap() }

func (r *Replica) swap() *layer.Swap {
	return &layer.Swap{
		Root: r.set.root, Home: r.dir, VersionDir: r.versionDir,
		Sync: r.set.syncDir, Fault: r.set.failAt, MakePath: r.set.makePath,
	}
}

// OpenSaved opens the directory of the saved area that s is in. It stays open until the end of the Edit, and is
// synced then.
func (e *Edit) OpenSaved(s *layer.SetAside) (fd int, err error) {
	dir := layer.Home("").Saved(s.ID(), parentPath(s.Path))
	f, err := e.r.set.files.Get(e.r.asideKey(dir), func() (int, error) {
		return e.r.set.root.OpenDir(e.r.dir.Join(dir))
	})
	if err != nil {
		return -1, err
	}
	e.sync(f)
	return f.FD, nil
}

// Discard renames name in an open directory of the saved area, so that Sweep removes it.
func (e *Edit) Discard(dir int, name string) error {
	area, err := e.r.set.root.OpenDir(e.r.dir.Saved())
	if err != nil {
		return err
	}
	defer unix.Close(area)
	return unix.Renameat(dir, name, area, fmt.Sprintf("%s%016x", discarded, uint64(layer.NewID())))
}

// Aliased reports whether the version's entry with this id goes by another one, because a file in the saved
// area has it.
func (e *Edit) Aliased(id fileid.ID) bool { return e.r.history.aliased(id) }

// AliasedPaths returns the paths of the files for which Aliased is true, from the replica's directory.
func (e *Edit) AliasedPaths() []string {
	var list []string
	for id, o := range e.r.history.aside {
		if e.r.history.aliased(id) {
			list = append(list, o.aside)
		}
	}
	return list
}

// Kind returns the type of what the replica shows at path.
func (e *Edit) Kind(path string) (kind vfs.Type, ok bool) {
	s, ok := e.r.vnodeAt(path)
	if !ok {
		return 0, false
	}
	return e.r.kind(s), true
}

// vnodeAt returns what shows at path.
func (r *Replica) vnodeAt(path string) (s vnode, ok bool) {
	s, ok = r.root.vnode()
	if path == "" {
		return s, ok
	}
	for name := range strings.SplitSeq(path, "/") {
		if !ok || r.kind(s) != vfs.Directory {
			return vnode{}, false
		}
		s, ok = r.child(s, name)
	}
	return s, ok
}

// Shared reports whether the node must not write at path.
func (e *Edit) Shared(path string) bool { return len(e.r.shared) > 0 && e.r.shared.Cover(path) }

// Kept reports whether what the node has at path stays when the master changes it.
func (e *Edit) Kept(path string) bool { return e.r.keep.Cover(path) }

// HasNodeFile reports whether there is a node file at path.
func (e *Edit) HasNodeFile(path string) bool {
	_, has := e.r.state.files[path]
	return has
}

// Root returns the top of the layer.
func (e *Edit) Root() LayerEntry { return LayerEntry{e.r, e.r.root} }

// At returns what the layer has at path; ok is false if it has nothing there or below.
func (e *Edit) At(path string) (entry LayerEntry, ok bool) {
	p := e.r.dentryAt(path)
	return LayerEntry{e.r, p}, p != nil
}

// VersionEntry fills a with the attributes of the version's entry at path, whether it is visible or hidden.
func (e *Edit) VersionEntry(path string, a *vfs.Attr) bool {
	low, ok := e.r.view.index.Find(path)
	if ok {
		e.r.view.index.Attr(low, a)
	}
	return ok
}

// versionDir returns the attributes of the version's directory at path, whether it is visible or hidden.
func (r *Replica) versionDir(path string) (layer.Attrs, bool) {
	low, ok := r.view.index.Find(path)
	if !ok || !r.view.index.IsDir(low) {
		return layer.Attrs{}, false
	}
	return r.lowAttrs(low), true
}

// lowAttrs returns the attributes of the version's directory low.
func (r *Replica) lowAttrs(low lower.Ref) layer.Attrs {
	var a vfs.Attr
	r.view.index.Attr(low, &a)
	return layer.Attrs{Mode: a.Mode, UID: a.UID, GID: a.GID}
}

// Changes finds what differs between the present version and an earlier one with the given digest. find returns
// what changes at a path. Its Old and New are nil if only something below changes. shows tells whether
// something at the path or below is new in the present version, or another object. ok is false if the earlier
// version is no longer known.
func (e *Edit) Changes(since image.Digest) (find func(path string) (c treediff.Change, shows, changed bool), ok bool) {
	r := e.r
	none := func(string) (c treediff.Change, shows, changed bool) { return c, false, false }
	if since == r.state.to.Digest {
		return none, true
	}
	s := r.set
	s.journal.mu.Lock()
	from := s.journal.versions[since]
	s.journal.mu.Unlock()
	if from == nil {
		return none, false
	}
	all, err := s.changesBetween(context.Background(), from, r.state.to)
	if err != nil {
		return none, false
	}
	return func(path string) (c treediff.Change, shows, changed bool) {
		n := all.tree.find(path)
		if n == nil {
			return c, false, false
		}
		return treediff.Change{Path: path, Old: n.old, New: n.new}, n.shows, true
	}, true
}

// find returns what changes at a path or below, or nil.
func (c *change) find(path string) *change {
	for path != "" && c != nil {
		name, rest, _ := strings.Cut(path, "/")
		c, path = c.kid(name), rest
	}
	return c
}

// SetAside moves what the layer has at entry, with all that is below, to the saved area.
func (e *Edit) SetAside(entry LayerEntry) error {
	kind := layer.AsideEntry
	if entry.p.white {
		kind = layer.AsideRemoval
	}
	return e.move(entry.p, kind)
}

// makeParents returns the dentry of the directory that path is in. It makes directories that are missing.
func (e *Edit) makeParents(path string) (*dentry, error) {
	d, _ := e.r.root.vnode()
	p := e.r.dentry(d)
	dir := parentPath(path)
	if dir == "" {
		return p, e.copyUpDir(p)
	}
	for name := range strings.SplitSeq(dir, "/") {
		next, ok := e.r.child(d, name)
		if ok && e.r.kind(next) != vfs.Directory {
			return nil, fmt.Errorf("/%s is no directory", image.JoinPath(p.path(), name))
		}
		if ok {
			p, d = e.r.dentry(next), next
			continue
		}
		fd, err := e.op.dir(p)
		if err != nil {
			return nil, err
		}
		k := e.r.need(p, name, lower.Hash(name))
		m := &objectSpec{kind: vfs.Directory, mode: 0o755, id: layer.NewID(), opaque: k.covers()}
		if _, err := e.makeAt(k, fd, m); err != nil {
			e.r.prune(k)
			return nil, err
		}
		p = k
		d, _ = k.vnode()
	}
	return p, e.copyUpDir(p)
}

// Prepare makes the directories above path, and returns what the layer has there, for Put. release must be
// called when that is no longer used.
func (e *Edit) Prepare(path string) (entry LayerEntry, release func(), err error) {
	up, err := e.makeParents(path)
	if err != nil {
		return entry, nil, err
	}
	base := path[strings.LastIndexByte(path, '/')+1:]
	p := e.r.need(up, base, lower.Hash(base))
	return LayerEntry{e.r, p}, func() { e.r.prune(p) }, nil
}

// Put moves name from an open directory of the saved area to what Prepare has returned. What the layer has
// there goes to the saved area, in one step where the file system can swap. displaced tells whether there was
// anything.
func (e *Edit) Put(from int, name string, to LayerEntry) (displaced bool, err error) {
	p := to.p
	dir, err := e.op.dir(p.up)
	if err != nil {
		return false, err
	}
	if err := layer.At(from, name).DropConflicts(); err != nil {
		return false, err
	}
	if p.obj == nil && !p.white {
		return false, layer.Dir(from).RenameNew(name, layer.Dir(dir), p.name)
	}
	kind := layer.AsideEntry
	if p.white {
		kind = layer.AsideRemoval
	}
	err = unix.Renameat2(from, name, dir, p.name, unix.RENAME_EXCHANGE)
	if err == unix.EINVAL { // a file system that cannot swap
		if err := e.move(p, kind); err != nil {
			return false, err
		}
		return true, layer.Dir(from).RenameNew(name, layer.Dir(dir), p.name)
	}
	if err != nil {
		return false, err
	}
	path := p.path()
	area, err := e.saved(parentPath(path))
	if err != nil {
		return true, err
	}
	if err := unix.Renameat(from, name, area, p.name); err != nil {
		return true, fmt.Errorf("set aside %s: %w", path, err)
	}
	e.note(path, kind)
	e.r.moved(p, e.dir)
	return true, nil
}

// SetOpaque makes the directory that shows at path hide the version's.
func (e *Edit) SetOpaque(path string) error {
	at, _ := e.r.vnodeAt(path)
	p := e.r.dentry(at)
	dir, err := e.op.dir(p)
	if err != nil {
		return err
	}
	m := renaming{op: &e.op}
	if err := m.storeIDs(p); err != nil {
		return err
	}
	if p.obj.opaque {
		return nil
	}
	if err := layer.At(dir, ".").SetOpaque(); err != nil {
		return err
	}
	p.obj.opaque = true
	e.r.hide(p)
	return m.removeWhiteouts(p)
}

// SetAttrs gives the directory that shows at path other attributes. Those that the node had given it are set
// aside.
func (e *Edit) SetAttrs(path string, attrs layer.Attrs) error {
	at, _ := e.r.vnodeAt(path)
	p := e.r.dentry(at)
	dir, err := e.op.dir(p)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	entry := LayerEntry{e.r, p}
	if has, ok := entry.VersionDir(); ok && layer.AttrsOf(&st) != has {
		if err := e.keepAttributes(p, &st); err != nil {
			return err
		}
	}
	if err := unix.Fchown(dir, int(attrs.UID), int(attrs.GID)); err != nil {
		return err
	}
	return unix.Fchmod(dir, attrs.Mode)
}
