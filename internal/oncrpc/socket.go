//go:build !race

package oncrpc

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The sockets never block, so these calls leave out what Go does around a system call that might: announcing
// it to the scheduler, and waking the thread that watches for those that take long. That is a tenth of
// the CPU time of a small call.

// readNow reads what is there.
func readNow(fd uintptr, p []byte) (int, error) {
	n, _, e := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// writeNow writes what fits, of something of which more follows or not, and returns how much that was; errors are left for the next write to find.
func writeNow(fd uintptr, p []byte, more bool) int {
	n, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), sendFlags(more), 0, 0)
	if e != 0 {
		return 0
	}
	return int(n)
}

func sendFlags(more bool) uintptr {
	if more {
		return syscall.MSG_NOSIGNAL | unix.MSG_MORE
	}
	return syscall.MSG_NOSIGNAL
}
