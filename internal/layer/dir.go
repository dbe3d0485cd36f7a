package layer

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/sysfile"
)

// Dir is an open directory. Paths are relative to it.
type Dir int

const openDir = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOATIME

// Open opens path with flags of open(2). A path that is too long for the kernel is opened in parts.
func (d Dir) Open(path string, flags int) (fd int, err error) {
	dir := int(d)
	for len(path) >= unix.PathMax {
		at := max(strings.LastIndexByte(path[:unix.PathMax-1], '/'), 0) // "" is ENOENT
		next, err := openBelow(dir, path[:at], unix.O_PATH|unix.O_DIRECTORY)
		if dir != int(d) {
			unix.Close(dir)
		}
		if err != nil {
			return -1, err
		}
		dir, path = next, path[at+1:]
	}
	fd, err = openBelow(dir, path, flags)
	if dir != int(d) {
		unix.Close(dir)
	}
	return fd, err
}

func openBelow(dir int, path string, flags int) (int, error) {
	how := unix.OpenHow{
		Flags:   uint64(flags) | unix.O_CLOEXEC | unix.O_NOFOLLOW,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(dir, path, &how)
		if err == nil || err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
	}
}

// OpenDir opens the directory path.
func (d Dir) OpenDir(path string) (fd int, err error) { return d.Open(path, openDir) }

// Enter opens the directory name in d.
func (d Dir) Enter(name string) (fd int, err error) {
	return unix.Openat(int(d), name, openDir|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// Exists reports whether path names something.
func (d Dir) Exists(path string) (bool, error) {
	fd, err := d.Open(path, unix.O_PATH)
	if err == unix.ENOENT {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, unix.Close(fd)
}

// Stat is lstat(2) of path.
func (d Dir) Stat(path string, st *unix.Stat_t) error {
	fd, err := d.Open(path, unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fstat(fd, st)
}

// Names returns the names in d, in no order.
func (d Dir) Names() ([]string, error) {
	own, err := unix.Openat(int(d), ".", openDir|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(own), "directory")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err == io.EOF {
		err = nil
	}
	return names, err
}

// List returns the names in the directory path, sorted.
func (d Dir) List(path string) ([]string, error) {
	fd, err := d.OpenDir(path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	names, err := Dir(fd).Names()
	slices.Sort(names)
	return names, err
}

// Stamps returns the times that name entries of the directory path, the latest first. A directory that does not exist
// has none.
func (d Dir) Stamps(path string) ([]time.Time, error) {
	names, err := d.List(path)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	slices.Reverse(names)
	var list []time.Time
	for _, name := range names {
		if at, err := ParseStamp(name); err == nil {
			list = append(list, at)
		}
	}
	return list, nil
}

const stampFormat = "20060102T150405.000000000Z" // names below saved/ and snapshots/

// StampName returns the name that a directory of the saved area, or a snapshot, has for a time.
func StampName(at time.Time) string { return at.UTC().Format(stampFormat) }

// ParseStamp is the inverse of StampName.
func ParseStamp(name string) (time.Time, error) { return time.Parse(stampFormat, name) }

// MakePath makes the directory path, with those above it, and returns it open. sync is called for each open directory
// that gets a new one.
func (d Dir) MakePath(path string, sync func(dir int) error) (fd int, err error) {
	if fd, err = unix.FcntlInt(uintptr(d), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return -1, err
	}
	for part := range strings.SplitSeq(path, "/") {
		err := unix.Mkdirat(fd, part, 0o700)
		if err == nil {
			err = sync(fd)
		}
		next := -1
		if err == nil || err == unix.EEXIST {
			next, err = Dir(fd).Enter(part)
		}
		unix.Close(fd)
		if err != nil {
			return -1, fmt.Errorf("make %s: %w", path, err)
		}
		fd = next
	}
	return fd, nil
}

// Remove removes the empty directory path.
func (d Dir) Remove(path string) error {
	up, err := d.OpenDir(parentPath(path))
	if err != nil {
		return err
	}
	defer unix.Close(up)
	return unix.Unlinkat(up, baseName(path), unix.AT_REMOVEDIR)
}

// removeKeepingTimes removes the empty directory path, and keeps the times of the directory that it is in.
func (d Dir) removeKeepingTimes(path string) error {
	up, err := d.OpenDir(parentPath(path))
	if err != nil {
		return err
	}
	defer unix.Close(up)
	return Dir(up).KeepTimes(func() error { return unix.Unlinkat(up, baseName(path), unix.AT_REMOVEDIR) })
}

// RemoveAll removes name, and all that is in it, from d. It is no error if there is no such name.
func (d Dir) RemoveAll(name string) error {
	err := unix.Unlinkat(int(d), name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM {
		return err
	}
	fd, err := d.Enter(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	names, err := Dir(fd).Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := Dir(fd).RemoveAll(n); err != nil {
			return err
		}
	}
	return unix.Unlinkat(int(d), name, unix.AT_REMOVEDIR)
}

// KeepTimes runs do, then sets the times of d to what they were before.
func (d Dir) KeepTimes(do func() error) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(d), &st); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return unix.UtimesNanoAt(int(d), ".", []unix.Timespec{st.Atim, st.Mtim}, 0)
}

// RenameNew renames from to a name in the directory to that does not exist.
func (d Dir) RenameNew(from string, to Dir, name string) error {
	err := unix.Renameat2(int(d), from, int(to), name, unix.RENAME_NOREPLACE)
	if err == unix.EINVAL { // a file system without the flag
		err = unix.Renameat(int(d), from, int(to), name)
	}
	return err
}

// Exchange swaps the entry from of d with the entry name of the directory to. On a file system that cannot swap, the
// name in to is missing for a moment.
func (d Dir) Exchange(from string, to Dir, name string) error {
	err := unix.Renameat2(int(d), from, int(to), name, unix.RENAME_EXCHANGE)
	if err != unix.EINVAL {
		return err
	}
	aside := from + "~"
	if err := unix.Renameat(int(to), name, int(d), aside); err != nil {
		return err
	}
	if err := unix.Renameat(int(d), from, int(to), name); err != nil {
		return err
	}
	return unix.Renameat(int(d), aside, int(d), from)
}

// Fsync is fsync(2), repeated after a signal.
func (d Dir) Fsync() error { return sysfile.Retry(func() error { return unix.Fsync(int(d)) }) }

func parentPath(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

func baseName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }
