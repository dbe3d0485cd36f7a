package vfs

import "syscall"

// TypeOf returns the type of an object whose st_mode is mode (inode(7)), or Regular if the type is unknown.
func TypeOf(mode uint32) Type {
	switch mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		return Directory
	case syscall.S_IFBLK:
		return BlockDevice
	case syscall.S_IFCHR:
		return CharDevice
	case syscall.S_IFLNK:
		return Symlink
	case syscall.S_IFSOCK:
		return Socket
	case syscall.S_IFIFO:
		return FIFO
	}
	return Regular
}

// Bits returns the type bits of st_mode for t (inode(7)).
func (t Type) Bits() uint32 {
	switch t {
	case Directory:
		return syscall.S_IFDIR
	case BlockDevice:
		return syscall.S_IFBLK
	case CharDevice:
		return syscall.S_IFCHR
	case Symlink:
		return syscall.S_IFLNK
	case Socket:
		return syscall.S_IFSOCK
	case FIFO:
		return syscall.S_IFIFO
	}
	return syscall.S_IFREG
}
