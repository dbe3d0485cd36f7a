package replica

import (
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/layer"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// Create makes a regular file. The verifier of an exclusive create is kept in an extended attribute, so that a
// repeated call is recognized after a restart too.
func (r *Replica) Create(c *vfs.Cred, dir vfs.Handle, name string, how *vfs.Create) (vfs.Made, error) {
	for {
		made, old, err := r.create(c, dir, name, how)
		if old.IsZero() {
			return made, err
		}
		// The file exists and is to be used: cut it to size as SetAttr does. That may copy it up.
		s := vfs.SetAttr{Valid: how.Attr.Valid & vfs.SetSize, Size: how.Attr.Size}
		ch, err := r.SetAttr(c, old, &s)
		if err == vfs.ESTALE {
			continue // it was removed in between
		}
		made.Handle, made.Attr = old, ch.After
		return made, err
	}
}

// create makes the file, or returns the handle of an existing one that is to be cut to size.
func (r *Replica) create(
	c *vfs.Cred, dir vfs.Handle, name string, how *vfs.Create,
) (made vfs.Made, old vfs.Handle, err error) {
	n := creation{c: c, kind: vfs.Regular, set: &how.Attr}
	if how.Mode == vfs.Exclusive {
		n.verf = how.Verifier[:]
	}
	n.exists = func(s vnode) error {
		err := r.acceptExisting(s, how)
		if err != nil || how.Mode == vfs.Exclusive || how.Attr.Valid&vfs.SetSize == 0 {
			return err
		}
		old = r.handle(s)
		return nil
	}
	made, err = r.make(dir, name, &n)
	return made, old, err
}

// acceptExisting returns nil if the existing s is what how asks for.
func (r *Replica) acceptExisting(s vnode, how *vfs.Create) error {
	kind := r.kind(s)
	switch how.Mode {
	case vfs.Unchecked:
		if kind == vfs.Directory {
			return vfs.EISDIR
		}
		if kind == vfs.Regular {
			return nil
		}
	case vfs.Exclusive:
		if kind != vfs.Regular || s.obj == nil {
			return vfs.EEXIST
		}
		d, name, err := r.where(s.obj)
		if err != nil {
			return err
		}
		defer d.Release()
		if layer.At(d.FD, name).Verifier() == string(how.Verifier[:]) {
			return nil
		}
	}
	return vfs.EEXIST
}

// Mkdir makes a directory.
func (r *Replica) Mkdir(c *vfs.Cred, dir vfs.Handle, name string, s *vfs.SetAttr) (vfs.Made, error) {
	return r.make(dir, name, &creation{c: c, kind: vfs.Directory, set: s})
}

// Symlink makes a symbolic link. Its mode is always 0777.
func (r *Replica) Symlink(c *vfs.Cred, dir vfs.Handle, name, target string, s *vfs.SetAttr) (vfs.Made, error) {
	switch {
	case target == "":
		return vfs.Made{}, vfs.ENOENT
	case len(target) >= unix.PathMax:
		return vfs.Made{}, vfs.ENAMETOOLONG
	case strings.IndexByte(target, 0) >= 0:
		return vfs.Made{}, vfs.EINVAL
	}
	return r.make(dir, name, &creation{c: c, kind: vfs.Symlink, set: s, target: target})
}

// Mknod makes a device, FIFO or socket. A device 0:0 would be a whiteout and is refused.
func (r *Replica) Mknod(c *vfs.Cred, dir vfs.Handle, name string, n *vfs.Node, s *vfs.SetAttr) (vfs.Made, error) {
	b := creation{c: c, kind: n.Type, set: s}
	switch n.Type {
	case vfs.CharDevice, vfs.BlockDevice:
		b.major, b.minor, b.privileged = n.Major, n.Minor, true
	case vfs.FIFO, vfs.Socket:
	default:
		return vfs.Made{}, vfs.EINVAL
	}
	return r.make(dir, name, &b)
}

// creation is an object that a node's call asks to make.
type creation struct {
	c          *vfs.Cred
	kind       vfs.Type
	set        *vfs.SetAttr
	target     string
	major      uint32
	minor      uint32
	privileged bool // only UID 0 may
	verf       []byte
	exists     func(s vnode) error // decides about a name that exists; nil: it is an error
}

// make makes b as name in dir.
func (r *Replica) make(dir vfs.Handle, name string, b *creation) (made vfs.Made, err error) {
	err = r.withRoom(func() error {
		made, err = r.makeOnce(dir, name, b)
		return err
	})
	return made, err
}

func (r *Replica) makeOnce(dir vfs.Handle, name string, b *creation) (made vfs.Made, err error) {
	o, err := r.begin()
	if err != nil {
		return made, err
	}
	to, err := o.enter(b.c, dir, name)
	d, before := to.vnode, to.attr
	if err != nil {
		return made, o.end(err)
	}
	s, ok := r.entry(d, name)
	switch {
	case ok && b.exists != nil:
		err = b.exists(s)
	case ok:
		err = vfs.EEXIST
	default:
		s, err = o.createEntry(&to, name, b)
	}
	if err != nil {
		made.Dir = unchanged(before)
		return made, o.end(err)
	}
	d = r.refresh(d)
	made.Dir = unchanged(before)
	if !ok {
		made.Dir = r.changed(d, before)
	}
	made.Handle = r.handle(s)
	err = r.attr(s, &made.Attr)
	return made, o.end(err)
}

// enter returns the directory dir, in which c must have execute permission, and its attributes before the
// change.
func (o *op) enter(c *vfs.Cred, dir vfs.Handle, name string) (d parentDir, err error) {
	d.c = c
	if d.vnode, err = o.r.resolveDir(dir); err != nil {
		return d, err
	}
	attr := new(vfs.Attr)
	if err = o.r.attr(d.vnode, attr); err != nil {
		return d, err
	}
	d.attr = attr
	if err = checkName(name); err == nil && !c.Permits(attr, vfs.MayExec) {
		err = vfs.EACCES
	}
	return d, err
}

// parentDir is a directory in which a call changes a name.
type parentDir struct {
	vnode
	c    *vfs.Cred // of the caller
	attr *vfs.Attr // before the change; nil if they are not known
}

// entry finds name in d, "." and ".." included.
func (r *Replica) entry(d vnode, name string) (vnode, bool) {
	switch name {
	case ".":
		return d, true
	case "..":
		return r.parent(d), true
	}
	return r.child(d, name)
}

// refresh returns the vnode of a directory that may have been copied up since d was found.
func (r *Replica) refresh(d vnode) vnode {
	if d.at == nil && d.gone == nil {
		return r.lowVnode(d.low)
	}
	if d.at != nil {
		d, _ = d.at.vnode()
	}
	return d
}

// mayAdd decides whether a name may be added to directory d.
func (r *Replica) mayAdd(d *parentDir, name string) error {
	switch {
	case d.gone != nil:
		return vfs.ENOENT // as in a directory that was removed
	case !d.c.Permits(d.attr, vfs.MayWrite):
		return vfs.EACCES
	}
	if err := r.checkShared(d.vnode, name); err != nil {
		return err
	}
	return r.checkPathLength(d.vnode, name)
}

// checkShared refuses changes of names at or below a shared path.
func (r *Replica) checkShared(d vnode, name string) error {
	if len(r.shared) > 0 && r.shared.Cover(image.JoinPath(r.path(d), name)) {
		return vfs.EROFS
	}
	return nil
}

// createEntry makes b as the new name in directory d.
func (o *op) createEntry(to *parentDir, name string, b *creation) (vnode, error) {
	r, d := o.r, to.vnode
	if err := r.mayAdd(to, name); err != nil {
		return vnode{}, err
	}
	if b.privileged && (b.c.UID != 0 || b.major == 0 && b.minor == 0 && b.kind == vfs.CharDevice) {
		return vnode{}, vfs.EPERM
	}
	a, err := b.c.NewAttr(to.attr, b.kind, b.set)
	if err != nil {
		return vnode{}, err
	}
	if r.crowded(d, name) {
		return vnode{}, vfs.ENOSPC
	}
	if err := r.roomForOne(); err != nil {
		return vnode{}, err
	}
	if err := r.room(occupiedByLink(len(b.target))); err != nil {
		return vnode{}, err
	}
	dir := r.dentry(d)
	fd, err := o.dir(dir)
	if err != nil {
		r.prune(dir)
		return vnode{}, err
	}
	p := r.need(dir, name, lower.Hash(name))
	obj, err := o.makeAt(p, fd, b.objectSpec(&a, p.covers()))
	if err != nil {
		r.prune(p)
		return vnode{}, err
	}
	r.count(obj, occupiedByLink(len(b.target)))
	return vnode{at: p, obj: obj, low: lower.None}, nil
}

// crowded reports whether no cookie is left for name in d because lower.Spread names have its hash. That does
// not happen by chance.
func (r *Replica) crowded(d vnode, name string) bool {
	hash := lower.Hash(name)
	m := r.merge(d, hash)
	for n := 0; n < lower.Spread; n++ {
		if _, _, cookie, ok := m.next(); !ok || cookie&^(lower.Spread-1) != hash {
			return false
		}
	}
	return true
}

func (b *creation) objectSpec(a *vfs.Attr, covers bool) *objectSpec {
	m := &objectSpec{
		kind: b.kind, mode: a.Mode, uid: a.UID, gid: a.GID, major: b.major, minor: b.minor, target: b.target,
		id: layer.NewID(), opaque: b.kind == vfs.Directory && covers, verf: b.verf,
	}
	if b.set.Valid&vfs.SetAtime != 0 {
		m.atime = &b.set.Atime
	}
	if b.set.Valid&vfs.SetMtime != 0 {
		m.mtime = &b.set.Mtime
	}
	if b.kind == vfs.Regular && b.set.Valid&vfs.SetSize != 0 && b.set.Size > 0 {
		m.fill = func(fd int) error { return unix.Ftruncate(fd, int64(b.set.Size)) }
	}
	return m
}

// makeAt makes m at p, in the open directory fd. A new file stays open for the writes that follow.
func (o *op) makeAt(p *dentry, fd int, m *objectSpec) (*object, error) {
	work, err := o.work()
	if err != nil {
		return nil, err
	}
	if m.kind == vfs.Regular && !p.white {
		obj, err := o.makeUnnamed(p, fd, work, m)
		if err != errNoUnnamed {
			return obj, err
		}
	}
	tmp, file, err := o.r.createPending(work, m)
	if err != nil {
		return nil, err
	}
	obj := m.object()
	if file >= 0 {
		o.keepOpen(obj, file)
	}
	if err := o.put(p, fd, layer.At(work, tmp), obj); err != nil {
		o.r.drop(obj)
		return nil, err
	}
	return obj, nil
}

// makeUnnamed makes the regular file m and links it to p. The layer must have nothing there.
func (o *op) makeUnnamed(p *dentry, fd, work int, m *objectSpec) (*object, error) {
	file, err := o.r.createUnnamed(work, m)
	if err != nil {
		return nil, err
	}
	if err := unix.Linkat(file, "", fd, p.name, unix.AT_EMPTY_PATH); err != nil {
		unix.Close(file)
		if err == unix.ENOENT { // linkat(2): CAP_DAC_READ_SEARCH is missing
			o.r.set.named.Store(true)
			err = errNoUnnamed
		}
		return nil, err
	}
	obj := m.object()
	o.keepOpen(obj, file)
	o.r.attach(p, obj)
	return obj, o.syncObject(obj)
}

// keepOpen gives the cache the new file fd.
func (o *op) keepOpen(obj *object, fd int) {
	o.held = append(o.held, o.r.set.files.Put(o.r.key(keyFile, uint64(obj.id)), fd))
}

// Link makes a further name for h.
func (r *Replica) Link(c *vfs.Cred, h vfs.Handle, dir vfs.Handle, name string) (lc vfs.LinkChange, err error) {
	err = r.update(func(o *op) error {
		lc = vfs.LinkChange{}
		s, err := r.resolve(h)
		if err != nil {
			return err
		}
		to, err := o.enter(c, dir, name)
		d, before := to.vnode, to.attr
		if before != nil {
			lc.Dir = unchanged(before)
		}
		if err == nil {
			err = r.mayLink(s, &to, name)
		}
		if err == nil {
			s, err = o.copyUp(s, whole)
		}
		if err == nil {
			err = o.link(s.obj, r.refresh(d), name)
		}
		if err != nil {
			return err
		}
		lc.Dir = r.changed(r.refresh(d), before)
		return r.attr(s, &lc.Attr)
	})
	return lc, err
}

func (r *Replica) mayLink(s vnode, d *parentDir, name string) error {
	if _, taken := r.entry(d.vnode, name); taken {
		return vfs.EEXIST
	}
	if r.kind(s) == vfs.Directory {
		return vfs.EPERM
	}
	if err := r.mayAdd(d, name); err != nil {
		return err
	}
	if s.removed() {
		return vfs.ESTALE
	}
	if s.gone != nil || s.obj != nil && s.obj.aside != "" {
		return vfs.ENOENT
	}
	if err := r.mayChange(s); err != nil {
		return err
	}
	if r.crowded(d.vnode, name) {
		return vfs.ENOSPC
	}
	return nil
}

// link gives obj one more name.
func (o *op) link(obj *object, d vnode, name string) error {
	r := o.r
	dir := r.dentry(d)
	fd, err := o.dir(dir)
	if err != nil {
		r.prune(dir)
		return err
	}
	p := r.need(dir, name, lower.Hash(name))
	if err := o.linkAt(obj, p, fd); err != nil {
		r.prune(p)
		return err
	}
	r.attach(p, obj)
	return o.syncObject(obj)
}

// linkAt makes the link p of obj. If there is a whiteout at p it links in work/ first, so that a rename
// replaces the whiteout in one step.
func (o *op) linkAt(obj *object, p *dentry, fd int) error {
	from, name, err := o.r.where(obj)
	if err != nil {
		return err
	}
	defer from.Release()
	if !p.white {
		return unix.Linkat(from.FD, name, fd, p.name, 0)
	}
	work, err := o.work()
	if err != nil {
		return err
	}
	tmp := o.r.set.temp()
	if err := unix.Linkat(from.FD, name, work, tmp, 0); err != nil {
		return err
	}
	if err := unix.Renameat(work, tmp, fd, p.name); err != nil {
		unix.Unlinkat(work, tmp, 0)
		return err
	}
	return nil
}
