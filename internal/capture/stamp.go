package capture

import (
	"encoding/binary"
	"errors"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/sysfile"
)

// stamp has the attributes of an entry that show a change. On a correct file system the ctime would be enough; the rest
// costs nothing. Stamps are compared with ==.
type stamp struct {
	ino, size            uint64
	ctimeSec, mtimeSec   int64
	ctimeNsec, mtimeNsec uint32
	mode                 uint32 // with the type
	uid, gid, nlink      uint32
	rdevMajor, rdevMinor uint32
	devMajor, devMinor   uint32 // zero: the device of the root of the master, whose numbers may change
	flags                uint32
}

const (
	// flagOmitted marks a directory that is captured without its content, and a file that is a mount point.
	flagOmitted = 1 << iota
	// flagMount marks an entry of another mount.
	flagMount
)

func (s *stamp) kind() uint32 { return s.mode & unix.S_IFMT }

func (s *stamp) isDir() bool { return s.kind() == unix.S_IFDIR }

// before reports whether the last change of the entry was before t.
func (s *stamp) before(t time.Time) bool {
	return s.ctimeSec < t.Unix() || s.ctimeSec == t.Unix() && int64(s.ctimeNsec) < int64(t.Nanosecond())
}

// omit clears the attributes that change with content that is not captured.
func (s *stamp) omit(flags uint32) {
	*s = stamp{mode: s.mode, uid: s.uid, gid: s.gid, rdevMajor: s.rdevMajor, rdevMinor: s.rdevMinor, flags: flags}
}

// entry returns an entry with the attributes of the stamp.
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

// device identifies the device and the mount of the root of the master.
type device struct {
	major, minor uint32
	mount        uint64 // 0: the kernel does not report it
	btrfs        bool
}

// stamp returns the stamp of x.
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
		s.size, s.nlink = 0, 0 // they depend on the file system
	}
	if d.otherMount(x) || d.btrfs && s.isDir() && s.ino == emptySubvolume {
		s.flags = flagMount
	}
	return s
}

// otherMount reports whether x belongs to another mount. A subvolume of btrfs has another device but belongs to the
// same mount.
func (d *device) otherMount(x *unix.Statx_t) bool {
	if d.mount != 0 && x.Mask&unix.STATX_MNT_ID != 0 {
		return x.Mnt_id != d.mount
	}
	return x.Dev_major != d.major || x.Dev_minor != d.minor
}

// emptySubvolume is the inode number of the empty directory that a snapshot of btrfs has in the place of a subvolume.
// Its times are those of the moment. (linux/btrfs_tree.h, BTRFS_EMPTY_SUBVOL_DIR_OBJECTID)
const emptySubvolume = 2

// emptySubvolumeKind is what is left out at such a directory.
const emptySubvolumeKind = "a btrfs subvolume"

// statx calls statx(2) for a name in dir. The name ends with a NUL; it is not copied, because a walk has a hundred
// thousand names.
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

// dirent is one record in a buffer of getdents.
type dirent struct {
	ino  uint64
	kind byte // DT_…; DT_UNKNOWN if the file system does not report it
	name []byte
	cstr *byte // name with a final NUL
}

// nextDirent parses the first record of buf (linux_dirent64: ino 8, off 8, reclen 2, type 1, name) and returns the
// rest.
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

// openAt opens name in dir. It does not follow a symlink, does not wait for the other end of a FIFO, and does not
// change the access time if the kernel allows that.
func openAt(dir int, name string, flags int) (fd int, err error) {
	flags |= unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY
	open := func(flags int) error {
		return sysfile.Retry(func() error {
			fd, err = unix.Openat(dir, name, flags, 0)
			return err
		})
	}
	if open(flags|unix.O_NOATIME) == unix.EPERM { // the file belongs to another user
		_ = open(flags)
	}
	return fd, err
}

// isGone reports whether err means that a name does not exist any more, or is another file than when it was listed.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ENOTDIR) ||
		errors.Is(err, unix.ELOOP)
}
