package dirfs

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"dim/internal/vfs"
)

// Create makes a regular file. The verifier of an exclusive create is kept in the times of the file, as RFC 1813
// section 3.3.8 suggests. The client sets the times afterwards.
func (f *FS) Create(c *vfs.Cred, dir vfs.Handle, name string, how *vfs.Create) (vfs.Made, error) {
	s := how.Attr
	if how.Mode == vfs.Exclusive {
		s.Valid |= vfs.SetAtime | vfs.SetMtime
		s.Valid &^= vfs.SetAtimeNow | vfs.SetMtimeNow | vfs.SetSize
		s.Atime, s.Mtime = verifierTimes(how.Verifier)
	}
	return f.newEntry(c, dir, name, creation{
		typ: vfs.Regular,
		set: &s,
		make: func(d *object) error {
			const flags = unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC
			fd, err := unix.Openat(d.fd, name, flags, 0o600)
			if err == nil {
				unix.Close(fd)
			}
			return err
		},
		exists: func(old *object) error { return f.takeExisting(c, old, how) },
	})
}

func verifierTimes(v [8]byte) (atime, mtime vfs.Time) {
	const positive = 1<<31 - 1
	return vfs.Time{Sec: int64(binary.BigEndian.Uint32(v[4:]) & positive)},
		vfs.Time{Sec: int64(binary.BigEndian.Uint32(v[:4]) & positive)}
}

// takeExisting returns nil if Create may return the existing object.
func (f *FS) takeExisting(c *vfs.Cred, old *object, how *vfs.Create) error {
	switch how.Mode {
	case vfs.Exclusive:
		atime, mtime := verifierTimes(how.Verifier)
		a := &old.attr
		if a.Type == vfs.Regular && a.Size == 0 && a.Atime == atime && a.Mtime == mtime {
			return nil
		}
		return vfs.EEXIST
	case vfs.Unchecked:
		if old.attr.Type == vfs.Directory {
			return vfs.EISDIR
		}
		if old.attr.Type != vfs.Regular {
			return vfs.EEXIST
		}
		s := vfs.SetAttr{Valid: how.Attr.Valid & vfs.SetSize, Size: how.Attr.Size}
		if err := c.MaySet(&old.attr, &s); err != nil {
			return err
		}
		return f.apply(c, old, &s)
	}
	return vfs.EEXIST
}

// Mkdir makes a directory.
func (f *FS) Mkdir(c *vfs.Cred, dir vfs.Handle, name string, s *vfs.SetAttr) (vfs.Made, error) {
	return f.newEntry(c, dir, name, creation{
		typ: vfs.Directory, set: s,
		make: func(d *object) error { return unix.Mkdirat(d.fd, name, 0o700) },
	})
}

// Symlink makes a symbolic link. Its mode is always 0777.
func (f *FS) Symlink(c *vfs.Cred, dir vfs.Handle, name, target string, s *vfs.SetAttr) (vfs.Made, error) {
	if target == "" {
		return vfs.Made{}, vfs.ENOENT
	}
	if len(target) >= unix.PathMax {
		return vfs.Made{}, vfs.ENAMETOOLONG
	}
	return f.newEntry(c, dir, name, creation{
		typ: vfs.Symlink, set: s,
		make: func(d *object) error { return unix.Symlinkat(target, d.fd, name) },
	})
}

// Mknod makes a device, FIFO or socket.
func (f *FS) Mknod(c *vfs.Cred, dir vfs.Handle, name string, n *vfs.Node, s *vfs.SetAttr) (vfs.Made, error) {
	var mode uint32
	switch n.Type {
	case vfs.CharDevice:
		mode = unix.S_IFCHR
	case vfs.BlockDevice:
		mode = unix.S_IFBLK
	case vfs.FIFO:
		mode = unix.S_IFIFO
	case vfs.Socket:
		mode = unix.S_IFSOCK
	default:
		return vfs.Made{}, vfs.EINVAL
	}
	device := n.Type == vfs.CharDevice || n.Type == vfs.BlockDevice
	dev := 0
	if device {
		dev = int(unix.Mkdev(n.Major, n.Minor))
	}
	return f.newEntry(c, dir, name, creation{
		typ: n.Type, set: s,
		make: func(d *object) error {
			if device && c.UID != 0 {
				return vfs.EPERM
			}
			return unix.Mknodat(d.fd, name, mode|0o600, dev)
		},
	})
}

// creation says how to make an entry.
type creation struct {
	typ    vfs.Type
	set    *vfs.SetAttr
	make   func(d *object) error
	exists func(old *object) error // returns nil if an existing object is the result; nil: EEXIST
}

func (f *FS) newEntry(c *vfs.Cred, dir vfs.Handle, name string, m creation) (made vfs.Made, err error) {
	made.Dir, err = f.inDir(c, dir, name, func(d *object) (*object, bool, error) {
		o, created, err := f.createIn(c, d, name, m)
		if err != nil {
			return nil, false, err
		}
		if made.Handle, err = f.handleOf(o.fd); err == nil {
			err = statFD(o.fd, &made.Attr)
		}
		return o, created, err
	})
	return made, err
}

// createIn makes the entry, or returns the existing one if m.exists allows it.
func (f *FS) createIn(c *vfs.Cred, d *object, name string, m creation) (o *object, created bool, err error) {
	old, err := f.child(d, name)
	switch {
	case err == nil:
		err = vfs.EEXIST
		if m.exists != nil {
			err = m.exists(old)
		}
		if err != nil {
			old.close()
			return nil, false, err
		}
		return old, false, nil
	case err != vfs.ENOENT:
		return nil, false, err
	case !c.Permits(&d.attr, vfs.MayWrite):
		return nil, false, vfs.EACCES
	}
	s, err := newAttr(c, &d.attr, &m)
	if err != nil {
		return nil, false, err
	}
	if err := m.make(d); err != nil {
		return nil, false, vfs.ErrnoOf(err)
	}
	if o, err = f.child(d, name); err == nil {
		if err = f.apply(&vfs.Cred{}, o, s); err == nil {
			return o, true, nil
		}
		o.close()
	}
	f.undo(d, name, m.typ)
	return nil, false, err
}

// undo removes a new entry whose attributes could not be set.
func (f *FS) undo(d *object, name string, t vfs.Type) {
	flags := 0
	if t == vfs.Directory {
		flags = unix.AT_REMOVEDIR
	}
	unix.Unlinkat(d.fd, name, flags)
}

// newAttr returns the attributes to set on a new object in directory d.
func newAttr(c *vfs.Cred, d *vfs.Attr, m *creation) (*vfs.SetAttr, error) {
	a, err := c.NewAttr(d, m.typ, m.set)
	if err != nil {
		return nil, err
	}
	s := *m.set
	s.Guard = nil
	s.UID, s.GID, s.Mode = a.UID, a.GID, a.Mode
	s.Valid |= vfs.SetUID | vfs.SetGID | vfs.SetMode
	if m.typ != vfs.Regular {
		s.Valid &^= vfs.SetSize
	}
	if m.typ == vfs.Symlink {
		s.Valid &^= vfs.SetMode
	}
	return &s, nil
}

// Link makes a further name for h.
func (f *FS) Link(c *vfs.Cred, h vfs.Handle, dir vfs.Handle, name string) (lc vfs.LinkChange, err error) {
	lc.Dir, err = f.inDir(c, dir, name, func(d *object) (*object, bool, error) {
		o, err := f.open(h)
		if err != nil {
			return nil, false, err
		}
		lc.Attr = o.attr
		if err := f.linkIn(c, d, name, o); err != nil {
			return o, false, err
		}
		return o, true, statFD(o.fd, &lc.Attr)
	})
	return lc, err
}

func (f *FS) linkIn(c *vfs.Cred, d *object, name string, o *object) error {
	old, err := f.child(d, name)
	switch {
	case err == nil:
		old.close()
		return vfs.EEXIST
	case err != vfs.ENOENT:
		return err
	case !c.Permits(&d.attr, vfs.MayWrite):
		return vfs.EACCES
	case o.attr.Type == vfs.Directory:
		return vfs.EPERM
	}
	return vfs.ErrnoOf(unix.Linkat(o.fd, "", d.fd, name, unix.AT_EMPTY_PATH))
}
