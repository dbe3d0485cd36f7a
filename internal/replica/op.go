package replica

import (
	"slices"

	"golang.org/x/sys/unix"

	"dim/internal/image/fileid"
	"dim/internal/layer"
	"dim/internal/replica/commit"
	"dim/internal/replica/fds"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// op is one change of a replica. It holds the replica's lock from begin to end, and collects what must be
// synced before the call may be answered.
type op struct {
	r     *Replica
	dirty []*fds.File
	held  []*fds.File // open until the end, but not to be synced

	staged map[fileid.ID]*stagedCopy // content that has been copied for this call
	needed map[fileid.ID]*stagedCopy // content that must be copied before the call can go on
	others bool                      // something that is not in dirty must be synced too
}

// begin locks r for a change. Each begin needs an end.
func (r *Replica) begin() (*op, error) {
	if r.dir == "" {
		return nil, vfs.EROFS
	}
	if err := r.lock(); err != nil {
		return nil, r.edge(err)
	}
	if !r.recorded {
		// The version that a layer is over must be recorded before there is a layer.
		if err := r.set.journal.flush(); err != nil {
			r.mu.Unlock()
			return nil, r.edge(err)
		}
		r.recorded = true
	}
	r.snaps.changed()
	return &op{r: r}, nil
}

// end unlocks the replica. Unless err is not nil it makes the change durable. It returns err.
func (o *op) end(err error) error {
	o.r.mu.Unlock()
	if err == nil && o.r.durability() == Synced {
		err = o.flush()
	}
	o.release()
	return o.r.edge(err)
}

// flush makes the change durable. Entries come before the directories that they are in: they were added to
// dirty later.
func (o *op) flush() error {
	if len(o.dirty) == 0 && !o.others {
		return nil
	}
	slices.Reverse(o.dirty)
	return o.r.set.sync(commit.Changes{Names: o.dirty, Others: o.others})
}

func (o *op) release() {
	for _, f := range o.dirty {
		f.Release()
	}
	for _, f := range o.held {
		f.Release()
	}
	o.dirty, o.held = nil, nil
}

// sync takes over f. It is synced at the end, once.
func (o *op) sync(f *fds.File) {
	for _, d := range o.dirty {
		if d == f {
			f.Release()
			return
		}
	}
	o.dirty = append(o.dirty, f)
}

// syncObject makes the change of obj one that is synced at the end, also if a sync of its directory does not do
// that.
func (o *op) syncObject(obj *object) error {
	switch {
	case o.r.set.commit.Ordered():
		o.others = true
	case obj.kind == vfs.Regular:
		f, err := o.r.content(obj)
		if err != nil {
			return err
		}
		o.sync(f)
	case obj.kind == vfs.Directory && obj.aside == "":
		f, err := o.r.layerDir(obj.names[0])
		if err != nil {
			return err
		}
		o.sync(f)
	default:
		o.others = true // it cannot be opened
	}
	return nil
}

// dir returns the open directory of the layer at p, copying it up first. It is synced at the end, and stays
// open until then.
func (o *op) dir(p *dentry) (int, error) {
	if err := o.copyUpDir(p); err != nil {
		return -1, err
	}
	f, err := o.r.layerDir(p)
	if err != nil {
		return -1, err
	}
	o.sync(f)
	return f.FD, nil
}

// work returns the open work directory; it stays open until the end.
func (o *op) work() (int, error) {
	if err := o.copyUpDir(o.r.root); err != nil {
		return -1, err
	}
	f, err := o.r.workDir()
	if err != nil {
		return -1, err
	}
	o.held = append(o.held, f)
	return f.FD, nil
}

// put moves a pending object to the name of p in the open directory dir, and makes it the layer's object of p.
func (o *op) put(p *dentry, dir int, from layer.Entry, obj *object) error {
	var err error
	work, tmp := from.FD, from.Name
	switch {
	case p.white && obj.kind == vfs.Directory:
		if err = layer.Dir(work).Exchange(tmp, layer.Dir(dir), p.name); err == nil {
			unix.Unlinkat(work, tmp, 0)
		}
	case p.white || p.obj != nil:
		err = unix.Renameat(work, tmp, dir, p.name)
	default:
		err = layer.Dir(work).RenameNew(tmp, layer.Dir(dir), p.name)
	}
	if err != nil {
		layer.Dir(work).RemoveAll(tmp)
		return err
	}
	o.r.attach(p, obj)
	return o.syncObject(obj)
}

// copyUpDir copies up the directory at p, and those above it.
func (o *op) copyUpDir(p *dentry) error {
	if p.obj != nil {
		return nil
	}
	if p.up == nil {
		return o.copyUpRoot()
	}
	if p.pathLen() > layer.PathMax {
		return vfs.ENAMETOOLONG
	}
	if err := o.copyUpDir(p.up); err != nil {
		return err
	}
	s, _ := p.vnode()
	m, obj, err := o.r.specOf(s)
	if err != nil {
		return err
	}
	return o.createCopy(p, m, obj)
}

// createCopy makes the object m at p and keeps the times of the directory that it is in.
func (o *op) createCopy(p *dentry, m *objectSpec, obj *object) error {
	work, err := o.work()
	if err != nil {
		return err
	}
	tmp, fd, err := o.r.createPending(work, m)
	if err != nil {
		return err
	}
	if fd >= 0 {
		unix.Close(fd)
	}
	return o.putQuietly(p, work, tmp, obj)
}

func (o *op) putQuietly(p *dentry, work int, tmp string, obj *object) error {
	dir, err := o.dir(p.up)
	if err != nil {
		layer.Dir(work).RemoveAll(tmp)
		return err
	}
	return layer.Dir(dir).KeepTimes(func() error { return o.put(p, dir, layer.At(work, tmp), obj) })
}

// copyUpRoot makes the replica's directories: work/, then upper/ with the attributes of the root.
func (o *op) copyUpRoot() error {
	r := o.r
	dir, err := r.set.makePath(string(r.dir))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	w0, err := r.set.makePath(r.dir.Work())
	if err != nil {
		return err
	}
	unix.Close(w0)
	s, _ := r.root.vnode()
	m, obj, err := r.specOf(s)
	if err != nil {
		return err
	}
	w, err := r.workDir()
	if err != nil {
		return err
	}
	o.held = append(o.held, w)
	tmp, _, err := r.createPending(w.FD, m)
	if err != nil {
		return err
	}
	if err := layer.Dir(w.FD).RenameNew(tmp, layer.Dir(dir), "upper"); err != nil {
		layer.Dir(w.FD).RemoveAll(tmp)
		return err
	}
	if !r.set.orderly() {
		if err := layer.Dir(dir).Fsync(); err != nil {
			return err
		}
	}
	r.attach(r.root, obj)
	return o.syncObject(obj)
}

// specOf returns the spec and the object for s, which is in the version or a node file, without the content.
func (r *Replica) specOf(s vnode) (*objectSpec, *object, error) {
	var a vfs.Attr
	if err := r.attr(s, &a); err != nil {
		return nil, nil, err
	}
	m := &objectSpec{
		kind: a.Type, mode: a.Mode, uid: a.UID, gid: a.GID, major: a.Major, minor: a.Minor, id: fileid.ID(a.ID),
		origin: r.origin(s), xattrs: r.versionXattrs(s), mtime: &a.Mtime, atime: &a.Atime,
	}
	m.group = s.low != lower.None && a.Type != vfs.Directory && len(r.view.index.Names(s.low)) > 0
	if a.Type == vfs.Symlink {
		m.target = r.view.index.Target(s.low)
	}
	return m, m.object(), nil
}

func (m *objectSpec) object() *object {
	obj := newObject(m.id, m.kind)
	obj.origin, obj.mode, obj.uid, obj.gid, obj.opaque = m.origin, m.mode, m.uid, m.gid, m.opaque
	return obj
}

// linkGroup gives obj, the copied-up file of the version's entry low, all visible names of low's hard-link
// group. Then it removes the mark from which a scan knows that names are missing.
func (o *op) linkGroup(obj *object, low lower.Ref) error {
	for _, other := range o.r.view.index.Names(low) {
		if !o.r.visible(other) {
			continue
		}
		p := o.r.lowDentry(other)
		if err := o.linkQuietly(obj, p); err != nil {
			o.r.prune(p)
			return err
		}
	}
	d, name, err := o.r.where(obj)
	if err != nil {
		return err
	}
	defer d.Release()
	return layer.At(d.FD, name).DropPartOfGroup()
}

func (o *op) linkQuietly(obj *object, p *dentry) error {
	from, name, err := o.r.where(obj)
	if err != nil {
		return err
	}
	defer from.Release()
	dir, err := o.dir(p.up)
	if err != nil {
		return err
	}
	return layer.Dir(dir).KeepTimes(func() error {
		err := unix.Linkat(from.FD, name, dir, p.name, 0)
		if err == nil {
			o.r.attach(p, obj)
		}
		return err
	})
}
