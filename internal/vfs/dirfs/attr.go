package dirfs

import (
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/vfs"
)

func statFD(fd int, a *vfs.Attr) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return vfs.ErrnoOf(err)
	}
	*a = vfs.Attr{
		Type:  vfs.TypeOf(st.Mode),
		Mode:  st.Mode & 0o7777,
		Nlink: uint32(st.Nlink),
		UID:   st.Uid,
		GID:   st.Gid,
		Size:  uint64(st.Size),
		Used:  uint64(st.Blocks) * 512,
		FSID:  uint64(st.Dev),
		ID:    st.Ino,
		Atime: vfs.Time{Sec: int64(st.Atim.Sec), Nsec: uint32(st.Atim.Nsec)},
		Mtime: vfs.Time{Sec: int64(st.Mtim.Sec), Nsec: uint32(st.Mtim.Nsec)},
		Ctime: vfs.Time{Sec: int64(st.Ctim.Sec), Nsec: uint32(st.Ctim.Nsec)},
	}
	if a.Type == vfs.BlockDevice || a.Type == vfs.CharDevice {
		a.Major, a.Minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev))
	}
	return nil
}

// Attr fills a with the attributes of h.
func (f *FS) Attr(h vfs.Handle, a *vfs.Attr) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	o, err := f.open(h)
	if err != nil {
		return err
	}
	defer o.close()
	*a = o.attr
	return nil
}

// Access grants permissions by the mode bits.
func (f *FS) Access(c *vfs.Cred, h vfs.Handle, want uint32, a *vfs.Attr) (uint32, error) {
	if err := f.Attr(h, a); err != nil {
		return 0, err
	}
	if f.opt.ReadOnly {
		want &^= vfs.AccessModify | vfs.AccessExtend | vfs.AccessDelete
	}
	return c.Grant(a, want), nil
}

// change returns the change of o since it was opened. On kernels before 6.13 two changes within one clock tick may
// have the same ctime, which hides the second one from NFS clients. If changed is set, change makes the ctime
// later.
func (o *object) change(changed bool) vfs.Change {
	ch := vfs.Change{Valid: true, Before: vfs.Brief{Size: o.attr.Size, Mtime: o.attr.Mtime, Ctime: o.attr.Ctime}}
	for tries := 0; ; tries++ {
		if statFD(o.fd, &ch.After) != nil {
			return vfs.Change{}
		}
		if !changed || ch.Before.Ctime.Before(ch.After.Ctime) || tries == 20 || o.attr.Type == vfs.Symlink {
			return ch
		}
		time.Sleep(time.Millisecond)
		unix.Chmod(o.path(), ch.After.Mode)
	}
}

// SetAttr makes all checks before the first change.
func (f *FS) SetAttr(c *vfs.Cred, h vfs.Handle, s *vfs.SetAttr) (vfs.Change, error) {
	if f.opt.ReadOnly {
		return vfs.Change{}, vfs.EROFS
	}
	o, ch, err := f.setAttr(c, h, s)
	if o == nil {
		return ch, err
	}
	defer o.close()
	if err == nil && s.Valid != 0 {
		err = f.sync(o)
	}
	return ch, err
}

func (f *FS) setAttr(c *vfs.Cred, h vfs.Handle, s *vfs.SetAttr) (*object, vfs.Change, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o, err := f.open(h)
	if err != nil {
		return nil, vfs.Change{}, err
	}
	switch {
	case s.Guard != nil && *s.Guard != o.attr.Ctime:
		err = vfs.EAGAIN
	default:
		err = c.MaySet(&o.attr, s)
	}
	if err == nil {
		err = f.apply(c, o, s)
	}
	return o, o.change(err == nil && s.Valid != 0), err
}

// apply makes the change. It begins with the step that fails if the disk is full.
func (f *FS) apply(c *vfs.Cred, o *object, s *vfs.SetAttr) error {
	if s.Valid&vfs.SetSize != 0 {
		if err := o.truncate(s.Size); err != nil {
			return err
		}
	}
	if s.Valid&(vfs.SetUID|vfs.SetGID) != 0 {
		if err := o.chown(s); err != nil {
			return err
		}
	}
	if err := o.chmod(c, s); err != nil {
		return err
	}
	return o.utimes(s)
}

func (o *object) truncate(size uint64) error {
	fd, err := unix.Open(o.path(), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return vfs.ErrnoOf(err)
	}
	defer unix.Close(fd)
	return vfs.ErrnoOf(unix.Ftruncate(fd, int64(size)))
}

func (o *object) chown(s *vfs.SetAttr) error {
	uid, gid := -1, -1
	if s.Valid&vfs.SetUID != 0 {
		uid = int(s.UID)
	}
	if s.Valid&vfs.SetGID != 0 {
		gid = int(s.GID)
	}
	// The kernel clears setuid and setgid of a file here, for root too.
	return vfs.ErrnoOf(unix.Fchownat(o.fd, "", uid, gid, unix.AT_EMPTY_PATH))
}

func (o *object) chmod(c *vfs.Cred, s *vfs.SetAttr) error {
	if s.Valid&vfs.SetMode == 0 {
		if s.Valid&vfs.SetSize != 0 {
			return o.dropPrivileges(c)
		}
		return nil
	}
	mode, gid := s.Mode&0o7777, o.attr.GID
	if s.Valid&vfs.SetGID != 0 {
		gid = s.GID
	}
	if c.UID != 0 && !c.InGroup(gid) {
		mode &^= 0o2000
	}
	return vfs.ErrnoOf(unix.Chmod(o.path(), mode))
}

// dropPrivileges clears setuid and setgid of a file that c has written to. The kernel does so too, but not for
// root, and this process writes as root.
func (o *object) dropPrivileges(c *vfs.Cred) error {
	mode := o.attr.Mode &^ 0o4000
	if mode&0o010 != 0 {
		mode &^= 0o2000
	}
	if c.UID == 0 || mode == o.attr.Mode {
		return nil
	}
	return vfs.ErrnoOf(unix.Chmod(o.path(), mode))
}

func (o *object) utimes(s *vfs.SetAttr) error {
	const all = vfs.SetAtime | vfs.SetMtime | vfs.SetAtimeNow | vfs.SetMtimeNow
	if s.Valid&all == 0 {
		return nil
	}
	ts := []unix.Timespec{
		timespec(s.Valid&vfs.SetAtime != 0, s.Valid&vfs.SetAtimeNow != 0, s.Atime),
		timespec(s.Valid&vfs.SetMtime != 0, s.Valid&vfs.SetMtimeNow != 0, s.Mtime),
	}
	return vfs.ErrnoOf(unix.UtimesNanoAt(unix.AT_FDCWD, o.path(), ts, 0))
}

func timespec(value, now bool, t vfs.Time) unix.Timespec {
	switch {
	case now:
		return unix.Timespec{Nsec: unix.UTIME_NOW}
	case value:
		return unix.Timespec{Sec: t.Sec, Nsec: int64(t.Nsec)}
	}
	return unix.Timespec{Nsec: unix.UTIME_OMIT}
}
