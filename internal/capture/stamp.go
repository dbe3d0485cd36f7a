package capture

import (
	"encoding/binary"
	"errors"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dim/internal/image"
)

// stamp is what the kernel tells of an entry that changes with it. The ctime alone would do on a well-behaved file
// system; the rest costs nothing. Two stamps are compared with ==.
type stamp struct {
	ino, size            uint64
	ctimeSec, mtimeSec   int64
	ctimeNsec, mtimeNsec uint32
	mode                 uint32 // with the type
	uid, gid, nlink      uint32
	rdevMajor, rdevMinor uint32
	devMajor, devMinor   uint32 // zero: the device of the master's root, whatever its numbers are today
	flags                uint32
}

const (
	// flagOmitted marks a directory whose content is left out, and a file on which another is mounted.
	flagOmitted = 1 << iota
	// flagMount marks what belongs to another mount.
	flagMount
)

func (s *stamp) kind() uint32 { return s.mode & unix.S_IFMT }

func (s *stamp) isDir() bool { return s.kind() == unix.S_IFDIR }

// before reports whether the entry's last change is older than t.
func (s *stamp) before(t time.Time) bool {
	return s.ctimeSec < t.Unix() || s.ctimeSec == t.Unix() && int64(s.ctimeNsec) < int64(t.Nanosecond())
}

// omit takes out what tells of things that are not captured.
func (s *stamp) omit(flags uint32) {
	*s = stamp{mode: s.mode, uid: s.uid, gid: s.gid, rdevMajor: s.rdevMajor, rdevMinor: s.rdevMinor, flags: flags}
}

// entry returns the attributes that a stamp has.
func (s *stamp) entry(name string) image.Entry {
	e := image.Entry{Name: name, Mode: s.mode & 0o7777, UID: s.uid, GID: s.gid, Nlink: 1,
		Mtime: image.Time{Sec: s.mtimeSec, Nsec: s.mtimeNsec}}
	switch s.kind() {
	case unix.S_IFREG:
		e.Type = image.Regular
		e.Digest = image.Sum(nil)
	case unix.S_IFDIR:
		e.Type = image.Directory
	case unix.S_IFLNK:
		e.Type = image.Symlink
	case unix.S_IFCHR:
		e.Type, e.Major, e.Minor = image.CharDevice, s.rdevMajor, s.rdevMinor
	case unix.S_IFBLK:
		e.Type, e.Major, e.Minor = image.BlockDevice, s.rdevMajor, s.rdevMinor
	case unix.S_IFIFO:
		e.Type = image.FIFO
	}
	return e
}

const (
	statxMask  = unix.STATX_BASIC_STATS | unix.STATX_MNT_ID
	statxFlags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT
)

// device is where stamps are taken: the device and mount of the master's root.
type device struct {
	major, minor uint32
	mount        uint64 // 0: the kernel does not tell
}

// stamp turns x into a stamp.
func (d *device) stamp(x *unix.Statx_t) stamp {
	s := stamp{
		ino: x.Ino, size: x.Size, mode: uint32(x.Mode), uid: x.Uid, gid: x.Gid, nlink: x.Nlink,
		ctimeSec: x.Ctime.Sec, ctimeNsec: x.Ctime.Nsec, mtimeSec: x.Mtime.Sec, mtimeNsec: x.Mtime.Nsec,
	}
	if k := s.kind(); k == unix.S_IFCHR || k == unix.S_IFBLK {
		s.rdevMajor, s.rdevMinor = x.Rdev_major, x.Rdev_minor
	}
	if x.Dev_major != d.major || x.Dev_minor != d.minor {
		s.devMajor, s.devMinor = x.Dev_major, x.Dev_minor
	}
	if s.isDir() {
		s.size, s.nlink = 0, 0 // the file system's own business
	}
	if d.foreign(x) {
		s.flags = flagMount
	}
	return s
}

// foreign reports whether x belongs to another mount. A subvolume of btrfs has another device but belongs to its mount.
func (d *device) foreign(x *unix.Statx_t) bool {
	if d.mount != 0 && x.Mask&unix.STATX_MNT_ID != 0 {
		return x.Mnt_id != d.mount
	}
	return x.Dev_major != d.major || x.Dev_minor != d.minor
}

// statx stats the name, which ends in NUL, in dir. It makes no copy of the name, of which a walk has a hundred thousand.
func statx(dir int, name *byte, flags int, x *unix.Statx_t) error {
	for {
		_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(name)), uintptr(flags),
			statxMask, uintptr(unsafe.Pointer(x)), 0)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		}
		return errno
	}
}

func statxName(dir int, name string, x *unix.Statx_t) error {
	p, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	return statx(dir, p, statxFlags, x)
}

func statxFD(fd int, x *unix.Statx_t) error {
	var empty byte
	return statx(fd, &empty, unix.AT_EMPTY_PATH, x)
}

// dirent is one name of a getdents buffer, in place.
type dirent struct {
	ino  uint64
	kind byte // DT_…, DT_UNKNOWN when the file system does not tell
	name []byte
	cstr *byte // name, ending in NUL
}

// nextDirent takes the first entry off buf (linux_dirent64: ino 8, off 8, reclen 2, type 1, name).
func nextDirent(buf []byte) (e dirent, rest []byte, err error) {
	const head = 19
	if len(buf) < head+1 {
		return e, nil, errors.New("read directory: short record")
	}
	n := int(binary.NativeEndian.Uint16(buf[16:]))
	if n <= head || n > len(buf) {
		return e, nil, errors.New("read directory: bad record")
	}
	name := buf[head:n]
	for i, c := range name {
		if c == 0 {
			return dirent{binary.NativeEndian.Uint64(buf), buf[18], name[:i], &name[0]}, buf[n:], nil
		}
	}
	return e, nil, errors.New("read directory: name without an end")
}

// openAt opens without following a symlink, without waiting for a FIFO's other end, and without touching the access time if it may.
func openAt(dir int, name string, flags int) (int, error) {
	flags |= unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY
	noatime := unix.O_NOATIME
	for {
		fd, err := unix.Openat(dir, name, flags|noatime, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EPERM) && noatime != 0: // not ours
			noatime = 0
		default:
			return fd, err
		}
	}
}

// isGone reports errors that mean that a name is not what it was when it was listed.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)
}
