package vfs

import "syscall"

// Errno is an error of a file operation, from the closed list below. The numbers are those of Linux.
type Errno syscall.Errno

// The errors an FS may return.
const (
	EPERM        = Errno(syscall.EPERM)
	ENOENT       = Errno(syscall.ENOENT)
	EIO          = Errno(syscall.EIO)
	EAGAIN       = Errno(syscall.EAGAIN)
	EACCES       = Errno(syscall.EACCES)
	EBUSY        = Errno(syscall.EBUSY)
	EEXIST       = Errno(syscall.EEXIST)
	EXDEV        = Errno(syscall.EXDEV)
	ENOTDIR      = Errno(syscall.ENOTDIR)
	EISDIR       = Errno(syscall.EISDIR)
	EINVAL       = Errno(syscall.EINVAL)
	EFBIG        = Errno(syscall.EFBIG)
	ENOSPC       = Errno(syscall.ENOSPC)
	EROFS        = Errno(syscall.EROFS)
	EMLINK       = Errno(syscall.EMLINK)
	ENAMETOOLONG = Errno(syscall.ENAMETOOLONG)
	ENOTEMPTY    = Errno(syscall.ENOTEMPTY)
	EDQUOT       = Errno(syscall.EDQUOT)
	ESTALE       = Errno(syscall.ESTALE)
	EBADHANDLE   = Errno(syscall.EBADF) // bytes that never were a handle of this FS
	EOPNOTSUPP   = Errno(syscall.EOPNOTSUPP)
	ENODATA      = Errno(syscall.ENODATA)
	ELATER       = Errno(syscall.ETIMEDOUT) // what is asked for is on its way; the same call succeeds later
)

// Error returns the C library's text for e.
func (e Errno) Error() string { return syscall.Errno(e).Error() }

// ErrnoOf maps an error to the closed list. It returns the first Errno or syscall.Errno of the list that err is or
// wraps, EIO if there is none, and nil for nil.
func ErrnoOf(err error) error {
	switch e := err.(type) {
	case nil:
		return nil
	case Errno:
		return e
	case syscall.Errno:
		return closed(e)
	case interface{ Unwrap() error }:
		return ErrnoOf(e.Unwrap())
	}
	return EIO
}

func closed(e syscall.Errno) error {
	switch Errno(e) {
	case EPERM, ENOENT, EACCES, EBUSY, EEXIST, EXDEV, ENOTDIR, EISDIR, EINVAL, EFBIG, ENOSPC, EROFS, EMLINK,
		ENAMETOOLONG, ENOTEMPTY, EDQUOT, ESTALE, EOPNOTSUPP, ENODATA:
		return Errno(e)
	}
	return EIO
}
