package vfs

import "golang.org/x/sys/unix"

// TypeOf tells the type of an object whose st_mode is mode (inode(7)). What is none of the known types is taken for a regular file.
func TypeOf(mode uint32) Type {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return Directory
	case unix.S_IFBLK:
		return BlockDevice
	case unix.S_IFCHR:
		return CharDevice
	case unix.S_IFLNK:
		return Symlink
	case unix.S_IFSOCK:
		return Socket
	case unix.S_IFIFO:
		return FIFO
	}
	return Regular
}

// Bits returns the type bits of st_mode for t (inode(7)).
func (t Type) Bits() uint32 {
	switch t {
	case Directory:
		return unix.S_IFDIR
	case BlockDevice:
		return unix.S_IFBLK
	case CharDevice:
		return unix.S_IFCHR
	case Symlink:
		return unix.S_IFLNK
	case Socket:
		return unix.S_IFSOCK
	case FIFO:
		return unix.S_IFIFO
	}
	return unix.S_IFREG
}
