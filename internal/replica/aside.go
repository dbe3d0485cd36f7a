package replica

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/layer"
	"dim/internal/replica/commit"
	"dim/internal/vfs"
)

// run moves what the layer, which is locked and prepared, holds at the paths that differ to the saved area. It may be
// interrupted anywhere and done again: what is done is not found a second time. What it has done is durable after a
// flush.
func (a *setAsideOp) run() error {
	defer a.r.snaps.changed()
	if err := a.walkAll(); err != nil {
		return err
	}
	return a.keepStaying()
}

// flushAll makes durable what ops have done. It takes one flush of the file system, or a sync of each directory if
// there is only one op and the file system has no ordered log.
func (s *Set) flushAll(ops []*setAsideOp) error {
	var c commit.Changes
	for _, a := range ops {
		slices.Reverse(a.dirty) // as in op.flush
		c.Names = append(c.Names, a.dirty...)
		c.Others = c.Others || a.others || a.several
	}
	if len(c.Names) == 0 && !c.Others {
		return nil
	}
	return s.sync(c)
}

// walkAll treats what the layer has at all paths that differ.
func (a *setAsideOp) walkAll() (err error) {
	for _, c := range a.t.all() {
		if c != nil && err == nil {
			a.own, a.extra = c == a.t.own, c == a.t.extra
			err = a.walk(c.tree, a.r.root)
		}
	}
	return err
}

// savedDir returns the directory for what is set aside at a time, from the replica's directory.
func savedDir(at int64) string { return layer.Home("").Saved(stampName(at)) }

type setAsideOp struct {
	op
	t     *transition
	at    int64
	dir   string // where it goes, from the replica's directory
	why   string // what made the change; kept in the saved area
	made  bool   // dir exists and has why
	own   bool   // the changes are those of node files
	extra bool   // the changes are those of Move.Extra
	dry   bool   // only list is filled

	several bool // flushAll makes the changes of several ops durable
	list    []layer.SetAside

	pending map[string]*pendingMerge // by path: merged files that have no name yet
}

// walk treats what the layer has at p and below. c is what changes at p and below.
func (a *setAsideOp) walk(c *change, p *dentry) error {
	if p == nil {
		return nil
	}
	path := p.path()
	if a.t.keep.Cover(path) || !a.own && a.t.hidden[path] {
		return nil
	}
	if p.white || p.obj != nil && p.obj.kind != vfs.Directory {
		if !a.extra && a.t.isExtra[path] {
			return nil // it is treated with the extra paths
		}
		if !a.own && a.t.stay.keeps(path) {
			return nil
		}
		if stays, err := a.stays(c, p); stays || err != nil {
			return err
		}
	}
	switch {
	case p.white:
		return a.whiteout(c, p)
	case p.obj == nil:
		return a.below(c, p)
	case p.obj.kind != vfs.Directory:
		return a.file(c, p)
	case c.differs && c.to != 0 && c.to != vfs.Directory:
		return a.move(p, layer.AsideEntry)
	}
	if err := a.attributes(c, p); err != nil {
		return err
	}
	if p.obj.opaque && c.shows {
		if err := a.unhide(p); err != nil {
			return err
		}
	}
	if err := a.below(c, p); err != nil {
		return err
	}
	if c.differs && c.to == 0 && p.up != nil && !a.dry {
		return a.removeEmpty(p)
	}
	return nil
}

func (a *setAsideOp) below(c *change, p *dentry) error {
	if len(p.kids) == 0 {
		return nil
	}
	for _, k := range c.kids {
		if err := a.walk(k, p.kid(k.name, k.hash)); err != nil {
			return err
		}
	}
	return nil
}

// whiteout sets aside that the node removed p. If nothing is left to remove the whiteout is only deleted.
func (a *setAsideOp) whiteout(c *change, p *dentry) error {
	if c.shows {
		return a.move(p, layer.AsideRemoval)
	}
	if a.dry || !c.differs || c.to != 0 {
		return nil // something below was removed, and the node does not see it
	}
	d, err := a.r.layerDir(p.up)
	if err != nil {
		return err
	}
	a.sync(d)
	return a.quietly(d.FD, func() error {
		err := unix.Unlinkat(d.FD, p.name, 0)
		if err == nil {
			a.r.change(p, func() { p.white = false })
		}
		return err
	})
}

// quietly runs do, which changes names in the open directory, and keeps the times of that.
func (a *setAsideOp) quietly(dir int, do func() error) error {
	if err := a.r.set.failAt("in set-aside"); err != nil {
		return err
	}
	return layer.Dir(dir).KeepTimes(do)
}

// saved returns the directory of the saved area for the entries of the directory p, open and to be synced.
func (a *setAsideOp) saved(p string) (int, error) {
	dir := a.r.dir.Join(a.dir)
	if !a.made {
		fd, err := a.makePath(dir)
		if err != nil {
			return -1, err
		}
		a.sync(a.r.set.files.Put(a.r.asideKey(a.dir), fd))
		if err := layer.At(fd, "").SetWhy(a.why); err != nil {
			return -1, err
		}
		a.made = true
	}
	if p != "" {
		dir += "/" + p
	}
	fd, err := a.makePath(dir)
	if err != nil {
		return -1, err
	}
	f := a.r.set.files.Put(a.r.asideKey(strings.TrimPrefix(dir, string(a.r.dir)+"/")), fd)
	a.sync(f)
	return f.FD, nil
}

// makePath makes the directory path below the set's. One of several ops leaves it to flushAll to make it durable.
func (a *setAsideOp) makePath(path string) (int, error) {
	if a.several {
		return a.r.set.root.MakePath(path, func(int) error { return nil })
	}
	return a.r.set.makePath(path)
}

// move moves what the layer has at p, with all that is below, to the saved area.
func (a *setAsideOp) move(p *dentry, kind layer.AsideKind) error {
	path := p.path()
	if a.dry {
		a.note(path, kind)
		return nil
	}
	to, err := a.saved(parentPath(path))
	if err != nil {
		return err
	}
	from, err := a.r.layerDir(p.up)
	if err != nil {
		return err
	}
	a.sync(from)
	err = a.quietly(from.FD, func() error {
		err := unix.Renameat(from.FD, p.name, to, p.name)
		if err == unix.ENOTEMPTY || err == unix.EEXIST || err == unix.ENOTDIR || err == unix.EISDIR {
			if err = layer.Dir(to).RemoveAll(p.name); err == nil { // of an attempt that was interrupted
				err = unix.Renameat(from.FD, p.name, to, p.name)
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("set aside %s: %w", path, err)
	}
	a.note(path, kind)
	a.r.moved(p, a.dir)
	return nil
}

func (a *setAsideOp) note(path string, kind layer.AsideKind) {
	a.list = append(a.list, layer.SetAside{
		Node: a.r.node, Image: a.r.image, Path: path, Stamp: time.Unix(0, a.at), Kind: kind, Why: a.why,
	})
}

// moved removes p and all below it from the dentries. Files that have no other name are found below dir, in the
// saved area, from now on.
func (r *Replica) moved(p *dentry, dir string) {
	for _, k := range slices.Clone(p.kids) {
		r.moved(k, dir)
	}
	obj := p.obj
	if obj != nil {
		path := p.path()
		obj.names = slices.DeleteFunc(obj.names, func(n *dentry) bool { return n == p })
		if len(obj.names) == 0 {
			delete(r.objects, obj.id)
			r.count(obj, 0)
			if obj.kind == vfs.Directory {
				r.drop(obj)
			} else {
				r.addAside(obj, dir+"/"+path)
			}
		}
	}
	r.change(p, func() { p.obj, p.white = nil, false })
}

func (r *Replica) addAside(o *object, path string) {
	o.aside = path
	if r.history.aside == nil {
		r.history.aside = make(map[fileid.ID]*object)
	}
	r.history.aside[o.id] = o
}

// attributes gives a directory that the node has in its layer the attributes that the master has given it.
// Those that the node had changed are kept in the saved area, on an empty directory.
func (a *setAsideOp) attributes(c *change, p *dentry) error {
	if !c.differs || c.new == nil || c.new.Type != image.Directory {
		return nil
	}
	var st unix.Stat_t
	if err := a.r.stat(p.obj, &st); err != nil {
		return err
	}
	d, name, err := a.r.where(p.obj)
	if err != nil {
		return err
	}
	a.held = append(a.held, d)
	now := attrsOf(c.new)
	mine := layer.AttrsOf(&st)
	if mine != now && (c.old == nil || c.old.Type != image.Directory || mine != attrsOf(c.old)) {
		if err := a.keepAttributes(p, &st); err != nil {
			return err
		}
	}
	if a.dry {
		return nil
	}
	f, err := a.r.layerDir(p)
	if err != nil {
		return err
	}
	a.sync(f)
	if err := unix.Fchownat(d.FD, name, int(now.UID), int(now.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if err := unix.Fchmodat(d.FD, name, now.Mode, 0); err != nil {
		return err
	}
	p.obj.mode, p.obj.uid, p.obj.gid = now.Mode, now.UID, now.GID
	if err := masterXattrs(layer.At(d.FD, name), c); err != nil {
		return err
	}
	mtime := st.Mtim
	if c.old != nil && timeOf(nanos(st.Mtim)) == vfs.Time(c.old.Mtime) {
		mtime = timespecOf(vfs.Time(c.new.Mtime)) // the node has not changed it
	}
	return unix.UtimesNanoAt(d.FD, name, []unix.Timespec{st.Atim, mtime}, unix.AT_SYMLINK_NOFOLLOW)
}

func attrsOf(e *image.Entry) layer.Attrs { return layer.Attrs{Mode: e.Mode, UID: e.UID, GID: e.GID} }

// masterXattrs gives a directory the extended attributes that the master has given it.
func masterXattrs(e layer.Entry, c *change) error {
	var old []image.Xattr
	if c.old != nil {
		old = c.old.Xattrs
	}
	return e.ReplaceXattrs(old, c.new.Xattrs)
}

func (a *setAsideOp) keepAttributes(p *dentry, st *unix.Stat_t) error {
	if a.dry {
		a.note(p.path(), layer.AsideAttributes)
		return nil
	}
	fd, err := a.saved(p.path())
	if err != nil {
		return err
	}
	if err := layer.At(fd, "").SetAttributes(); err != nil {
		return err
	}
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return err
	}
	a.note(p.path(), layer.AsideAttributes)
	return nil
}

// unhide makes an opaque directory merge with the version's again.
func (a *setAsideOp) unhide(p *dentry) error {
	if a.dry {
		a.note(p.path(), layer.AsideOpaque)
		return nil
	}
	fd, err := a.saved(p.path())
	if err != nil {
		return err
	}
	if err := layer.At(fd, "").SetOpaque(); err != nil {
		return err
	}
	d, name, err := a.r.where(p.obj)
	if err != nil {
		return err
	}
	a.held = append(a.held, d)
	f, err := a.r.layerDir(p)
	if err != nil {
		return err
	}
	a.sync(f)
	if err := a.r.set.failAt("in set-aside"); err != nil {
		return err
	}
	if err := layer.At(d.FD, name).DropOpaque(); err != nil {
		return err
	}
	p.obj.opaque = false
	a.note(p.path(), layer.AsideOpaque)
	return nil
}

// removeEmpty removes the directory p, which the master has deleted, if the node has nothing in it.
func (a *setAsideOp) removeEmpty(p *dentry) error {
	for _, k := range p.kids {
		if k.obj != nil || k.anyFile() {
			return nil
		}
	}
	d, err := a.r.layerDir(p.up)
	if err != nil {
		return err
	}
	a.sync(d)
	if err := a.quietly(d.FD, func() error { return layer.Dir(d.FD).RemoveAll(p.name) }); err != nil {
		return err
	}
	a.r.detach(p, false)
	return nil
}

// savedArea is the saved area, from the replica's directory.
const savedArea = "saved"

// scanAside finds the files in the saved area.
func (r *Replica) scanAside() error {
	err := r.scanAsideDir(savedArea)
	if err == unix.ENOENT {
		err = nil
	}
	return err
}

// scanAsideDir reads one directory. It closes it before it reads those in it.
func (r *Replica) scanAsideDir(path string) error {
	fd, err := r.set.root.OpenDir(r.dir.Join(path))
	if err != nil {
		return err
	}
	below, err := r.scanAsideEntries(fd, path)
	unix.Close(fd)
	for _, sub := range below {
		if err == nil {
			err = r.scanAsideDir(sub)
		}
	}
	return err
}

func (r *Replica) scanAsideEntries(fd int, path string) (below []string, err error) {
	names, err := layer.Dir(fd).Names()
	if err != nil {
		return nil, err
	}
	slices.Sort(names) // the latest stamp wins
	for _, name := range names {
		if path == savedArea && name[0] == '#' {
			continue // being made or removed
		}
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, err
		}
		if vfs.TypeOf(st.Mode) == vfs.Directory {
			below = append(below, path+"/"+name)
			continue
		}
		id, origin, ok, err := layer.At(fd, name).ID(make([]byte, 64))
		if err != nil || !ok || layer.IsWhiteout(&st) || r.objects[id] != nil {
			continue
		}
		o := newObject(id, vfs.TypeOf(st.Mode))
		o.origin, o.mode, o.uid, o.gid = origin, st.Mode&0o7777, st.Uid, st.Gid
		o.spent = layer.At(fd, name).HasSavedMark()
		r.addAside(o, path+"/"+name)
	}
	return below, nil
}
