// Package sysfile has what system calls on file descriptors need in several packages: complete writes, calls repeated
// after a signal, the end of locks, paths for calls that take no descriptor, and the kernel's counters of a socket.
//
// It must not know what the files are for.
package sysfile

import (
	"errors"
	"io"
	"os"
	"strconv"
	"syscall"
)

// Retry calls call again as long as it returns EINTR.
func Retry(call func() error) error {
	for {
		if err := call(); err != syscall.EINTR {
			return err
		}
	}
}

// Write writes all of p at the position of fd. The error is a syscall.Errno or io.ErrShortWrite.
func Write(fd int, p []byte) error {
	return writeAll(p, func(p []byte) (int, error) { return syscall.Write(fd, p) })
}

// WriteAt writes all of p at off bytes from the start of fd. The error is a syscall.Errno or io.ErrShortWrite.
func WriteAt(fd int, p []byte, off int64) error {
	return writeAll(p, func(p []byte) (int, error) {
		n, err := syscall.Pwrite(fd, p, off)
		off += int64(max(n, 0))
		return n, err
	})
}

func writeAll(p []byte, write func([]byte) (int, error)) error {
	for len(p) > 0 {
		n, err := write(p)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return err
		case n == 0:
			return io.ErrShortWrite
		}
		p = p[n:]
	}
	return nil
}

// ProcPath returns a path for an entry of an open directory, for system calls that take paths only. The kernel resolves
// it by the descriptor, so no component of it can be replaced by a symbolic link. The entry itself is followed if it is
// one.
func ProcPath(dir int, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name
}

// Unlock releases the flock(2) lock of f and closes f. To close f alone is not enough: a child that another goroutine
// has just forked shares the lock until it calls exec.
func Unlock(f *os.File) error {
	return errors.Join(Retry(func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_UN) }), f.Close())
}
