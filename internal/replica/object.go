package replica

import (
	"errors"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/layer"
	"dim/internal/vfs"
)

// objectSpec describes an object that is to be made.
type objectSpec struct {
	kind   vfs.Type
	mode   uint32
	uid    uint32
	gid    uint32
	major  uint32
	minor  uint32
	target string
	id     fileid.ID
	origin *image.Digest
	xattrs []image.Xattr
	opaque bool
	group  bool // other names of the object are still to be linked
	verf   []byte
	mtime  *vfs.Time
	atime  *vfs.Time
	fill   func(fd int) error // writes a regular file's content
}

// pendingObject is an object that is being made: an open regular file, with or without a name, or a name in the
// directory work.
type pendingObject struct {
	work int
	name string
	fd   int // -1 when it is no regular file
}

// createPending makes an object with all its attributes under a temporary name in the directory work. A regular
// file is returned open.
func (r *Replica) createPending(work int, m *objectSpec) (tmp string, fd int, err error) {
	n := pendingObject{work: work, name: r.set.temp(), fd: -1}
	if err = m.make(&n); err != nil {
		return "", -1, err
	}
	if err = m.complete(n); err != nil {
		if n.fd >= 0 {
			unix.Close(n.fd)
		}
		layer.Dir(work).RemoveAll(n.name)
		return "", -1, err
	}
	return n.name, n.fd, nil
}

const createFlags = unix.O_RDWR | unix.O_NOATIME | unix.O_CLOEXEC

// createUnnamed makes a regular file with all its attributes and without a name. Linking it is then one change
// of a directory. A temporary name and a rename are three, and renames between directories wait for each other
// on the whole file system. On a file system that does not support this it returns errNoUnnamed.
func (r *Replica) createUnnamed(work int, m *objectSpec) (fd int, err error) {
	if r.set.named.Load() {
		return -1, errNoUnnamed
	}
	fd, err = unix.Openat(work, ".", unix.O_TMPFILE|createFlags, 0o600)
	if err == unix.EOPNOTSUPP || err == unix.EISDIR {
		r.set.named.Store(true)
		return -1, errNoUnnamed
	}
	if err != nil {
		return -1, err
	}
	if err = m.complete(pendingObject{work: work, fd: fd}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

var errNoUnnamed = errors.New("the file system makes no files without a name")

func (m *objectSpec) make(n *pendingObject) (err error) {
	switch m.kind {
	case vfs.Regular:
		n.fd, err = unix.Openat(n.work, n.name, unix.O_CREAT|unix.O_EXCL|createFlags, 0o600)
		return err
	case vfs.Directory:
		return unix.Mkdirat(n.work, n.name, 0o700)
	case vfs.Symlink:
		return unix.Symlinkat(m.target, n.work, n.name)
	}
	dev := 0
	if m.kind == vfs.CharDevice || m.kind == vfs.BlockDevice {
		dev = int(unix.Mkdev(m.major, m.minor))
	}
	return unix.Mknodat(n.work, n.name, m.kind.Bits()|0o600, dev)
}

// complete gives a new object its content and attributes, in an order in which no step undoes another. Writing
// clears capabilities, a new owner clears setuid bits, and everything except the times changes the times.
func (m *objectSpec) complete(n pendingObject) error {
	if m.fill != nil {
		if err := m.fill(n.fd); err != nil {
			return err
		}
	}
	if m.uid != 0 || m.gid != 0 {
		if err := n.chown(int(m.uid), int(m.gid)); err != nil {
			return err
		}
	}
	if m.kind != vfs.Symlink {
		if err := n.chmod(m.mode & 0o7777); err != nil {
			return err
		}
	}
	if len(m.xattrs) > 0 {
		if err := n.entry().SetXattrs(m.xattrs, m.tolerates); err != nil {
			return err
		}
	}
	if err := m.setXattrs(n.entry()); err != nil {
		return err
	}
	if m.mtime == nil && m.atime == nil {
		return nil
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_OMIT}}
	if m.atime != nil {
		times[0] = timespecOf(*m.atime)
	}
	if m.mtime != nil {
		times[1] = timespecOf(*m.mtime)
	}
	return n.setTimes(times)
}

// setXattrs sets the extended attributes of the layer's form.
func (m *objectSpec) setXattrs(e layer.Entry) error {
	if err := e.SetID(m.id, m.origin); err != nil {
		return err
	}
	if m.verf != nil {
		if err := e.SetVerifier(m.verf); err != nil {
			return err
		}
	}
	if m.group {
		if err := e.SetPartOfGroup(); err != nil {
			return err
		}
	}
	if m.opaque {
		return e.SetOpaque()
	}
	return nil
}

// tolerates reports whether err may be ignored when an extended attribute of the version is set: the layer's
// file system has no attributes of that kind.
func (m *objectSpec) tolerates(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) && m.kind == vfs.Symlink
}

func (n pendingObject) chown(uid, gid int) error {
	if n.fd >= 0 {
		return unix.Fchown(n.fd, uid, gid)
	}
	return unix.Fchownat(n.work, n.name, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
}

func (n pendingObject) chmod(mode uint32) error {
	if n.fd >= 0 {
		return unix.Fchmod(n.fd, mode)
	}
	return unix.Fchmodat(n.work, n.name, mode, 0)
}

func (n pendingObject) entry() layer.Entry {
	if n.fd >= 0 {
		return layer.At(n.fd, "")
	}
	return layer.At(n.work, n.name)
}

func (n pendingObject) setTimes(times []unix.Timespec) error {
	if n.fd >= 0 {
		return unix.UtimesNanoAt(n.fd, "", times, unix.AT_EMPTY_PATH)
	}
	return unix.UtimesNanoAt(n.work, n.name, times, unix.AT_SYMLINK_NOFOLLOW)
}
