package backup

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/layer"
	"dim/internal/sysfile"
)

// dirSink writes entries below an open directory. It creates names, and never replaces or follows one.
type dirSink struct {
	root  layer.Dir
	strip string // is left out at the front of paths
	links bool   // a file that a former backup has becomes another name of it

	dirs   []*entry // get their attributes at the end
	parent string   // path of the open directory
	open   int      // -1: none
}

func newDirSink(root layer.Dir) *dirSink { return &dirSink{root: root, open: -1} }

// at returns the open directory that a path is in, and its last name.
func (s *dirSink) at(path string) (dir int, name string, err error) {
	path = strings.TrimPrefix(path, s.strip)
	parent, name := ".", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		parent, name = path[:i], path[i+1:]
	}
	if s.open >= 0 && s.parent == parent {
		return s.open, name, nil
	}
	fd, err := s.root.OpenDir(parent)
	if err != nil {
		return -1, "", err
	}
	s.close()
	s.open, s.parent = fd, parent
	return fd, name, nil
}

func (s *dirSink) close() {
	if s.open >= 0 {
		unix.Close(s.open)
		s.open = -1
	}
}

func (s *dirSink) add(e *entry, c content) (written uint64, err error) {
	if e.path+"/" == s.strip {
		return 0, nil // the destination itself
	}
	if e.hardLink != "" {
		return 0, s.hardLink(e)
	}
	dir, name, err := s.at(e.path)
	if err != nil {
		return 0, err
	}
	switch e.kind {
	case dirKind:
		s.dirs = append(s.dirs, e)
		return 0, unix.Mkdirat(dir, name, 0o700)
	case fileKind:
		linked, err := s.linkStored(e, c)
		if linked || err != nil {
			return 0, err
		}
		if written, err = s.file(e, c, dir, name); err != nil {
			return written, errors.Join(err, unix.Unlinkat(dir, name, 0))
		}
	case symlinkKind:
		err = unix.Symlinkat(e.target, dir, name)
	default:
		err = unix.Mknodat(dir, name, e.typeBits()|0o600, int(unix.Mkdev(e.major, e.minor)))
	}
	if err != nil {
		return 0, err
	}
	return written, e.setAttributes(dir, name)
}

func (e *entry) typeBits() uint32 {
	switch e.kind {
	case charKind:
		return unix.S_IFCHR
	case blockKind:
		return unix.S_IFBLK
	case fifoKind:
		return unix.S_IFIFO
	}
	return unix.S_IFSOCK
}

func (s *dirSink) hardLink(e *entry) error {
	from, old, err := s.at(e.hardLink)
	if err != nil {
		return err
	}
	if from, err = unix.FcntlInt(uintptr(from), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return err
	}
	defer unix.Close(from)
	dir, name, err := s.at(e.path)
	if err != nil {
		return err
	}
	return unix.Linkat(from, old, dir, name, 0)
}

// linkStored gives a file of a former backup another name.
func (s *dirSink) linkStored(e *entry, c content) (bool, error) {
	old, ok := c.(*storedContent)
	if !ok || !s.links || old.copyOnly {
		return false, nil
	}
	dir, name, err := s.at(e.path)
	if err != nil {
		return false, err
	}
	err = old.link(dir, name)
	if err == nil {
		e.digest = old.digest
		return true, nil
	}
	if slices.Contains([]error{unix.EMLINK, unix.EXDEV, unix.EPERM, unix.ENOENT}, err) {
		return false, nil
	}
	return false, err
}

// file makes a file. Where the content has no data it has holes.
func (s *dirSink) file(e *entry, c content, dir int, name string) (written uint64, err error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(dir, name, flags, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() {
		if cerr := unix.Close(fd); err == nil {
			err = cerr
		}
	}()
	h := newHasher(e.size)
	if err = unix.Ftruncate(fd, int64(e.size)); err != nil {
		return 0, err
	}
	err = c.each(func(b []byte, off uint64) error {
		written += uint64(len(b))
		if err := h.write(b, off); err != nil {
			return err
		}
		return sysfile.WriteAt(fd, b, int64(off))
	})
	if err == nil {
		e.digest = h.sum()
	}
	return written, err
}

// setAttributes gives what was made the attributes of e, in an order in which no step undoes another.
func (e *entry) setAttributes(dir int, name string) error {
	if err := unix.Fchownat(dir, name, int(e.uid), int(e.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	path := sysfile.ProcPath(dir, name)
	if e.kind != symlinkKind {
		if err := unix.Fchmodat(dir, name, e.mode, 0); err != nil {
			return err
		}
	}
	for _, x := range e.xattrs {
		err := unix.Lsetxattr(path, x.Name, x.Value, 0)
		if x.Name == "security.selinux" && (err == unix.EOPNOTSUPP || err == unix.EPERM) {
			continue // this machine has other labels
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", x.Name, err)
		}
	}
	at := unix.Timespec{Sec: e.mtime.Sec, Nsec: int64(e.mtime.Nsec)}
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}

// finish gives the directories their attributes, the last one first, and brings everything to disk.
func (s *dirSink) finish() error {
	for _, e := range slices.Backward(s.dirs) {
		dir, name, err := s.at(e.path)
		if err == nil {
			err = e.setAttributes(dir, name)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", e.path, err)
		}
	}
	s.close()
	return sysfile.Retry(func() error { return unix.Syncfs(int(s.root)) })
}
