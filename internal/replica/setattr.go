package replica

import (
	"golang.org/x/sys/unix"

	"dim/internal/layer"
	"dim/internal/vfs"
)

// SetAttr checks everything before it changes anything.
func (r *Replica) SetAttr(c *vfs.Cred, h vfs.Handle, s *vfs.SetAttr) (ch vfs.Change, err error) {
	keep := uint64(whole)
	if s.Valid&vfs.SetSize != 0 {
		keep = s.Size
	}
	err = r.update(func(o *op) error {
		at, err := r.resolve(h)
		if err != nil {
			return err
		}
		var before vfs.Attr
		if err := r.attr(at, &before); err != nil {
			return err
		}
		ch = unchanged(&before)
		if err := r.maySet(c, at, &before, s); err != nil || s.Valid == 0 {
			return err
		}
		if at, err = o.copyUp(at, keep); err != nil {
			return err
		}
		err = o.setAttr(at, &attrChange{c, &before, s})
		ch = r.changed(at, &before)
		return err
	})
	return ch, err
}

func (r *Replica) maySet(c *vfs.Cred, at vnode, before *vfs.Attr, s *vfs.SetAttr) error {
	if s.Guard != nil && *s.Guard != before.Ctime {
		return vfs.EAGAIN
	}
	if at.gone != nil {
		// Linux then looks the path up again and retries (do_filp_open, retry_estale). So what was replaced a
		// moment ago can be opened with O_TRUNC, and changed by its name, before the node's cache expires.
		return vfs.ESTALE
	}
	if err := r.mayChange(at); err != nil {
		return err
	}
	return c.MaySet(before, s)
}

// attrChange is a change of attributes.
type attrChange struct {
	c   *vfs.Cred
	was *vfs.Attr
	set *vfs.SetAttr
}

// setAttr changes the layer's object s. The steps that can fail for lack of room come first.
func (o *op) setAttr(s vnode, ch *attrChange) error {
	set := ch.set
	dir, name, err := o.r.where(s.obj)
	if err != nil {
		return err
	}
	o.held = append(o.held, dir)
	if err := o.syncObject(s.obj); err != nil {
		return err
	}
	if set.Valid&vfs.SetSize != 0 {
		if err := o.truncate(s.obj, set.Size); err != nil {
			return err
		}
	}
	if err := chown(dir.FD, name, set); err != nil {
		return err
	}
	if err := o.chmod(s.obj, layer.At(dir.FD, name), ch); err != nil {
		return err
	}
	if err := utimes(dir.FD, name, set); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir.FD, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	s.obj.mode, s.obj.uid, s.obj.gid = st.Mode&0o7777, st.Uid, st.Gid
	o.r.recount(s.obj, &st)
	return nil
}

func (o *op) truncate(obj *object, size uint64) error {
	f, err := o.r.content(obj)
	if err != nil {
		return err
	}
	defer f.Release()
	return unix.Ftruncate(f.FD, int64(size))
}

func chown(dir int, name string, set *vfs.SetAttr) error {
	uid, gid := -1, -1
	if set.Valid&vfs.SetUID != 0 {
		uid = int(set.UID)
	}
	if set.Valid&vfs.SetGID != 0 {
		gid = int(set.GID)
	}
	if uid < 0 && gid < 0 {
		return nil
	}
	// The kernel clears setuid and setgid of a file here, for root too.
	return unix.Fchownat(dir, name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

func (o *op) chmod(obj *object, at layer.Entry, ch *attrChange) error {
	c, was, set := ch.c, ch.was, ch.set
	if set.Valid&vfs.SetMode == 0 {
		if set.Valid&vfs.SetSize == 0 || c.UID == 0 {
			return nil
		}
		f, err := o.r.content(obj)
		if err != nil {
			return err
		}
		defer f.Release()
		return o.r.dropPrivileges(c, f.FD, was.Mode)
	}
	mode, gid := set.Mode&0o7777, was.GID
	if set.Valid&vfs.SetGID != 0 {
		gid = set.GID
	}
	if c.UID != 0 && !c.InGroup(gid) {
		mode &^= 0o2000
	}
	return unix.Fchmodat(at.FD, at.Name, mode, 0)
}

func utimes(dir int, name string, set *vfs.SetAttr) error {
	times := []unix.Timespec{
		timespec(set.Valid&vfs.SetAtime != 0, set.Valid&vfs.SetAtimeNow != 0, set.Atime),
		timespec(set.Valid&vfs.SetMtime != 0, set.Valid&vfs.SetMtimeNow != 0, set.Mtime),
	}
	if times[0].Nsec == unix.UTIME_OMIT && times[1].Nsec == unix.UTIME_OMIT {
		return nil
	}
	return unix.UtimesNanoAt(dir, name, times, unix.AT_SYMLINK_NOFOLLOW)
}

func timespec(value, now bool, t vfs.Time) unix.Timespec {
	switch {
	case now:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case value:
		return timespecOf(t)
	}
	return unix.Timespec{Nsec: unix.UTIME_OMIT}
}
