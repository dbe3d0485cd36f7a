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

// unsupportedError says why the kernel cannot report the changes in a file system.
type unsupportedError struct {
	reason string
	cause  error
}

// Error implements error.
func (e *unsupportedError) Error() string { return fmt.Sprintf("%s (%v)", e.reason, e.cause) }

// Unwrap returns the error of the kernel.
func (e *unsupportedError) Unwrap() error { return e.cause }

// eventMask has the events that may change a capture. Reads are not among them.
const eventMask = unix.FAN_CREATE | unix.FAN_DELETE | unix.FAN_MOVED_FROM | unix.FAN_MOVED_TO | unix.FAN_MODIFY |
	unix.FAN_CLOSE_WRITE | unix.FAN_ATTRIB | unix.FAN_ONDIR

// eventQueue is the kernel's queue of the events of one file system.
type eventQueue struct {
	f    *os.File
	fd   int
	root rootID
	buf  []byte
}

// rootID identifies a directory.
type rootID struct {
	dev, ino uint64
	mount    uint64 // 0: the kernel does not report it
}

// openEvents opens the event queue of the file system of dir. Flags are further flags of fanotify_init. If the kernel
// cannot report events, the error is an *unsupportedError.
func openEvents(dir string, flags uint) (*eventQueue, error) {
	root, err := identify(dir)
	if err != nil {
		return nil, err
	}
	flags |= unix.FAN_CLASS_NOTIF | unix.FAN_CLOEXEC | unix.FAN_NONBLOCK |
		unix.FAN_REPORT_DFID_NAME | unix.FAN_REPORT_FID
	fd, err := unix.FanotifyInit(flags, unix.O_RDONLY)
	if err != nil {
		return nil, unsupported(err)
	}
	err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, eventMask, unix.AT_FDCWD, dir)
	if err == nil {
		err = checkHandles(dir)
	}
	if err != nil {
		unix.Close(fd)
		return nil, unsupported(err)
	}
	return &eventQueue{f: os.NewFile(uintptr(fd), "fanotify"), fd: fd, root: root, buf: make([]byte, 256<<10)}, nil
}

// Check returns nil if the kernel can report the changes in dir, and otherwise an error that says why not.
func Check(dir string) error {
	k, err := openEvents(dir, unix.FAN_UNLIMITED_QUEUE)
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

// checkHandles checks that handles of events can be opened.
func checkHandles(dir string) error {
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
	reason := "the kernel does not report the events of the file system"
	switch {
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL):
		reason = "the kernel has no fanotify with file handles (Linux 5.9, CONFIG_FANOTIFY)"
	case errors.Is(err, unix.EPERM):
		reason = "not allowed: CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH are needed"
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ESTALE):
		reason = "the file system has no persistent file handles (overlayfs and some others have none)"
	case errors.Is(err, unix.EXDEV):
		reason = "it is a subvolume of btrfs: the kernel reports events of whole file systems only"
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENOSPC):
		reason = "too many file systems are watched already: the limits are in /proc/sys/fs/fanotify"
	}
	return &unsupportedError{reason, err}
}

func (k *eventQueue) close() { k.f.Close() }

// read returns the queued events that fit into the buffer. It waits for the first one until the deadline. If none has
// come, it returns no events and no error.
func (k *eventQueue) read(deadline time.Time) ([]byte, error) {
	if err := k.f.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	n, err := k.f.Read(k.buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	return k.buf[:max(n, 0)], err
}

// watches reports whether the queue has the events of dir. If dir is replaced, or its file system is unmounted, there
// is no event.
func (k *eventQueue) watches(dir string) bool {
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
