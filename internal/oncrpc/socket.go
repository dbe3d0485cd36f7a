//go:build !race

package oncrpc

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The sockets never block. These calls therefore leave out what Go does around a system call that might block: to tell
// the scheduler, and to wake the thread that watches for long calls. That is a tenth of the CPU time of a small call.

// readNow reads the bytes that have arrived.
func readNow(fd uintptr, p []byte) (int, error) {
	n, _, e := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// writeNow writes as much of p as the socket takes, and returns how much that was. more says that further bytes follow.
// Errors are not reported: the next write returns them.
func writeNow(fd uintptr, p []byte, more bool) int {
	data := uintptr(unsafe.Pointer(unsafe.SliceData(p)))
	n, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, fd, data, uintptr(len(p)), sendFlags(more), 0, 0)
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
