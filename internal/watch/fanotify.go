package watch

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// UnsupportedError tells why the kernel does not tell what changes in a file system.
type UnsupportedError struct {
	Why   string
	Cause error
}

// Error implements error.
func (e *UnsupportedError) Error() string { return fmt.Sprintf("%s (%v)", e.Why, e.Cause) }

// Unwrap returns what the kernel said.
func (e *UnsupportedError) Unwrap() error { return e.Cause }

// eventMask is what changes a capture. Reads are not in it.
const eventMask = unix.FAN_CREATE | unix.FAN_DELETE | unix.FAN_MOVED_FROM | unix.FAN_MOVED_TO | unix.FAN_MODIFY |
	unix.FAN_CLOSE_WRITE | unix.FAN_ATTRIB | unix.FAN_ONDIR

// kernel is a queue of the events of one file system.
type kernel struct {
	f    *os.File
	fd   int
	root rootID
	buf  []byte
}

// rootID tells whether a directory is still the one it was.
type rootID struct {
	dev, ino uint64
	mount    uint64 // 0: the kernel does not tell
}

// openKernel asks for the events of dir's file system, of which flags say how long the queue may become. That it cannot be had is an *UnsupportedError.
func openKernel(dir string, flags uint) (*kernel, error) {
	root, err := identify(dir)
	if err != nil {
		return nil, err
	}
	fd, err := unix.FanotifyInit(flags|unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_REPORT_DFID_NAME|unix.FAN_REPORT_FID, unix.O_RDONLY)
	if err != nil {
		return nil, unsupported(err)
	}
	err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, eventMask, unix.AT_FDCWD, dir)
	if err == nil {
		err = tryHandle(dir)
	}
	if err != nil {
		unix.Close(fd)
		return nil, unsupported(err)
	}
	return &kernel{f: os.NewFile(uintptr(fd), "fanotify"), fd: fd, root: root, buf: make([]byte, 256<<10)}, nil
}

// Check reports whether what changes in dir would be told by the kernel; an *UnsupportedError says why not.
func Check(dir string) error {
	k, err := openKernel(dir, unix.FAN_UNLIMITED_QUEUE)
	if err == nil {
		k.close()
	}
	return err
}

func identify(dir string) (rootID, error) {
	var x unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &x); err != nil {
		return rootID{}, fmt.Errorf("stat %s: %w", dir, err)
	}
	id := rootID{dev: unix.Mkdev(x.Dev_major, x.Dev_minor), ino: x.Ino}
	if x.Mask&unix.STATX_MNT_ID != 0 {
		id.mount = x.Mnt_id
	}
	return id, nil
}

// tryHandle makes sure that what events name can be found.
func tryHandle(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	again, err := unix.OpenByHandleAt(fd, h, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(again)
}

func unsupported(err error) error {
	why := "the file system's events cannot be had"
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		why = "the kernel has no fanotify with file handles (Linux 5.9, CONFIG_FANOTIFY)"
	case errors.Is(err, unix.EPERM):
		why = "not allowed: it takes CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH"
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ESTALE):
		why = "the file system has no lasting file handles, as overlayfs and some others"
	case errors.Is(err, unix.EXDEV):
		why = "it is a subvolume of btrfs: events are told of whole file systems only"
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENOSPC):
		why = "too many are followed already: /proc/sys/fs/fanotify has the limits"
	}
	return &UnsupportedError{why, err}
}

func (k *kernel) close() { k.f.Close() }

// read returns the events that are queued, all that fit; it waits for the first until the deadline. No events and no error mean that none came.
func (k *kernel) read(deadline time.Time) ([]byte, error) {
	if err := k.f.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	n, err := k.f.Read(k.buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return k.buf[:max(n, 0)], err
}

// follows reports whether events of dir still come: it may have been replaced by another, or its file system unmounted, of which the kernel says nothing.
func (k *kernel) follows(dir string) bool {
	root, err := identify(dir)
	if err != nil || root != k.root {
		return false
	}
	f, err := os.Open(fmt.Sprintf("/proc/self/fdinfo/%d", k.fd))
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "fanotify sdev:") {
			return true
		}
	}
	return false
}
