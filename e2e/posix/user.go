package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// become sets the ids of this thread to those of u. The functions of package unix would change all threads.
func (u user) become() error {
	var groups unsafe.Pointer
	if len(u.groups) > 0 {
		groups = unsafe.Pointer(&u.groups[0])
	}
	for _, c := range [][4]uintptr{
		{unix.SYS_SETGROUPS, uintptr(len(u.groups)), uintptr(groups), 0},
		{unix.SYS_SETRESGID, uintptr(u.gid), uintptr(u.gid), uintptr(u.gid)},
		{unix.SYS_SETRESUID, uintptr(u.uid), uintptr(u.uid), uintptr(u.uid)},
	} {
		if _, _, e := unix.RawSyscall(c[0], c[1], c[2], c[3]); e != 0 {
			return e
		}
	}
	return nil
}
