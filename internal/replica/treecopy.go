package replica

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/vfs"
)

// treeCopy copies a tree in a layer's form, from one directory of a set to an empty one. Content is shared with the original where the
// disk can (FICLONE), else copied, holes as holes. A hard link to the original would not do: a layer's files are written to in place.
//
// It has two directories open at a time, however deep the tree is.
type treeCopy struct {
	set      *Set
	from, to string // paths from the set's directory; to is made and empty, or "" when nothing is to be made
	most     uint64 // bytes that may be copied where they cannot be shared; 0: no bound

	choose func(e *treeEntry) (choice, error) // nil: everything is copied as it is

	files  uint64 // entries in the copy but its top, of all types
	bytes  uint64 // room that its files take, each hard-linked one once
	copied uint64 // of these, what could not be shared; when nothing is made, what would have to be copied if the disk cannot share

	links map[inode]string // where a file with several names was put first
}

// treeEntry is one entry of the tree that is copied.
type treeEntry struct {
	path string // from the top, without a leading slash; "" is the top
	dir  int    // the open directory that it is in
	name string
	st   unix.Stat_t
}

// choice is what becomes of an entry.
type choice struct {
	leave bool                             // it is not copied, nor what is in it
	link  func(dir int, name string) error // makes a hard link of a file that is just so; nil: there is none
	dress func(at string) error            // changes the copy, named as procPath does
	empty bool                             // a directory: not wanted when nothing is in it
}

// errTooLarge tells that more would have to be copied than may be.
var errTooLarge = errors.New("the disk cannot share blocks between files, and it holds more than may be copied")

// run copies the tree.
func (c *treeCopy) run() error {
	c.links = make(map[inode]string)
	top := treeEntry{name: "."}
	fd, err := c.set.openBeneath(c.from, openDir)
	if err != nil {
		return err
	}
	top.dir = fd
	if err = unix.Fstat(fd, &top.st); err != nil {
		unix.Close(fd)
		return err
	}
	how, err := c.chosen(&top)
	unix.Close(fd)
	if err != nil {
		return err
	}
	return c.dir("", how)
}

func (c *treeCopy) chosen(e *treeEntry) (choice, error) {
	if c.choose == nil {
		return choice{}, nil
	}
	return c.choose(e)
}

// subdir is a directory whose copy was made and is empty yet.
type subdir struct {
	path string
	how  choice
}

// dir copies what is in the directory of a path, then its attributes: made before, they would rub off on what is made in it. Those in it
// follow when it is closed.
func (c *treeCopy) dir(path string, how choice) error {
	below, err := c.level(path, how)
	if err != nil {
		return err
	}
	for _, d := range below {
		if err := c.dir(d.path, d.how); err != nil {
			return err
		}
		if d.how.empty && c.to != "" {
			if err := c.set.rmdirQuietly(c.to + "/" + d.path); err != nil && err != unix.ENOTEMPTY {
				return err
			}
		}
	}
	return nil
}

func (c *treeCopy) level(path string, how choice) (below []subdir, err error) {
	from, err := c.set.openBeneath(strings.TrimSuffix(c.from+"/"+path, "/"), openDir)
	if err != nil {
		return nil, err
	}
	defer unix.Close(from)
	to := -1
	if c.to != "" {
		if to, err = c.set.openBeneath(strings.TrimSuffix(c.to+"/"+path, "/"), openDir); err != nil {
			return nil, err
		}
		defer unix.Close(to)
	}
	names, err := listDir(from)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		e := treeEntry{path: image.JoinPath(path, name), dir: from, name: name}
		k, entered, err := c.entry(&e, to)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.path, err)
		}
		if entered {
			below = append(below, subdir{e.path, k})
		}
	}
	if to < 0 {
		return below, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return nil, err
	}
	return below, c.dress(&treeEntry{dir: from, name: ".", st: st}, to, ".", how)
}

// entry copies e into the open directory to, without what is in it if it is a directory.
func (c *treeCopy) entry(e *treeEntry, to int) (how choice, enter bool, err error) {
	if err := c.set.crash("in tree copy"); err != nil {
		return how, false, err
	}
	if err := unix.Fstatat(e.dir, e.name, &e.st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return how, false, err
	}
	if how, err = c.chosen(e); err != nil || how.leave {
		return how, false, err
	}
	c.files++
	enter = vfs.TypeOf(e.st.Mode) == vfs.Directory
	switch {
	case to < 0:
		c.weigh(e, how)
		return how, enter, nil
	case enter:
		return how, true, unix.Mkdirat(to, e.name, 0o700)
	}
	ino, several := inode{e.st.Dev, e.st.Ino}, e.st.Nlink > 1
	if first, ok := c.links[ino]; ok && several {
		return how, false, c.linkFirst(first, to, e.name)
	}
	if several {
		c.links[ino] = e.path
	}
	c.bytes += uint64(occupied(&e.st))
	if how.link != nil {
		err := how.link(to, e.name)
		if err != unix.EMLINK && err != unix.EXDEV && err != unix.EPERM {
			return how, false, err
		}
	}
	if err := c.make(e, to); err != nil {
		return how, false, err
	}
	return how, false, c.dress(e, to, e.name, how)
}

// weigh counts what e takes to copy.
func (c *treeCopy) weigh(e *treeEntry, how choice) {
	ino := inode{e.st.Dev, e.st.Ino}
	if _, known := c.links[ino]; known || how.link != nil || vfs.TypeOf(e.st.Mode) != vfs.Regular {
		return
	}
	if e.st.Nlink > 1 {
		c.links[ino] = e.path
	}
	c.copied += uint64(occupied(&e.st))
}

// linkFirst gives the copy of an entry that has several names another one.
func (c *treeCopy) linkFirst(first string, to int, name string) error {
	dir, err := c.set.openBeneath(strings.TrimSuffix(c.to+"/"+parentPath(first), "/"), openDir)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Linkat(dir, baseName(first), to, name, 0)
}

func baseName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// make makes an entry that is no directory, with its content.
func (c *treeCopy) make(e *treeEntry, to int) error {
	switch kind := vfs.TypeOf(e.st.Mode); kind {
	case vfs.Regular:
		return c.file(e, to)
	case vfs.Symlink:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(e.dir, e.name, buf)
		if err != nil {
			return err
		}
		return unix.Symlinkat(string(buf[:n]), to, e.name)
	default:
		return unix.Mknodat(to, e.name, kind.Bits()|0o600, int(e.st.Rdev))
	}
}

func (c *treeCopy) file(e *treeEntry, to int) error {
	const flags = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOATIME | unix.O_CLOEXEC
	in, err := unix.Openat(e.dir, e.name, unix.O_RDONLY|flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(in)
	out, err := unix.Openat(to, e.name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|flags, 0o600)
	if err != nil {
		return err
	}
	err = c.content(in, out, &e.st)
	if e := unix.Close(out); err == nil {
		err = e
	}
	return err
}

func (c *treeCopy) content(in, out int, st *unix.Stat_t) error {
	if st.Size == 0 {
		return nil
	}
	err := unix.IoctlFileClone(out, in)
	if !slices.Contains([]error{unix.EOPNOTSUPP, unix.ENOTTY, unix.EXDEV, unix.EINVAL, unix.ENOSYS}, err) {
		return err
	}
	c.copied += uint64(occupied(st))
	if c.most > 0 && c.copied > c.most {
		return errTooLarge
	}
	if err := copyData(in, out, st.Size); err != nil {
		return err
	}
	return unix.Ftruncate(out, st.Size)
}

// copyData copies what is no hole of the first size bytes.
func copyData(in, out int, size int64) error {
	for at := int64(0); at < size; {
		data, err := unix.Seek(in, at, unix.SEEK_DATA)
		if err == unix.ENXIO {
			return nil // a hole to the end
		}
		end := size
		if err == nil {
			if end, err = unix.Seek(in, data, unix.SEEK_HOLE); err != nil {
				end = size
			}
		} else {
			data = at
		}
		if end = min(end, size); data >= end {
			return nil
		}
		if err := copyRange(out, in, uint64(data), uint64(end)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// dress gives the copy name in the open directory to what e has besides content, in the order of mold.dress. The time of what changes last is
// set last.
func (c *treeCopy) dress(e *treeEntry, to int, name string, how choice) error {
	if err := unix.Fchownat(to, name, int(e.st.Uid), int(e.st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if vfs.TypeOf(e.st.Mode) != vfs.Symlink {
		if err := unix.Fchmodat(to, name, e.st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	if !isWhiteout(&e.st) {
		at := procPath(to, name)
		if err := copyXattrs(procPath(e.dir, e.name), at); err != nil {
			return err
		}
		if how.dress != nil {
			if err := how.dress(at); err != nil {
				return err
			}
		}
	}
	return unix.UtimesNanoAt(to, name, []unix.Timespec{e.st.Atim, e.st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// copyXattrs copies the extended attributes that say something of the entry itself.
func copyXattrs(from, to string) error {
	names, err := listXattrs(from)
	if err != nil {
		return err
	}
	for _, name := range names {
		if isNote(name) {
			continue
		}
		value, err := xattrValue(from, name)
		if err == nil {
			err = unix.Lsetxattr(to, name, value, 0)
		}
		if err != nil && err != unix.ENODATA {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// isNote reports whether an extended attribute tells of a copy in the saved area, or of a snapshot, rather than of the entry itself.
func isNote(name string) bool {
	switch name {
	case xattrWhy, xattrSaved, xattrOver, xattrWeight, xattrOf:
		return true
	}
	return false
}

// listXattrs returns the names of the extended attributes of what path names, sorted; none where the file system has none.
func listXattrs(path string) ([]string, error) {
	buf := make([]byte, 1024)
	for {
		n, err := unix.Llistxattr(path, buf)
		if err == unix.ERANGE {
			buf = make([]byte, 64<<10)
			continue
		}
		if err == unix.EOPNOTSUPP || err == nil && n == 0 {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
		slices.Sort(names)
		return names, nil
	}
}

func xattrValue(path, name string) ([]byte, error) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Lgetxattr(path, name, buf)
		if err == unix.ERANGE && len(buf) < 64<<10 {
			buf = make([]byte, 64<<10)
			continue
		}
		if err != nil {
			return nil, err
		}
		return buf[:n], nil
	}
}

// sameXattrs reports whether two entries have the same extended attributes, but for those that tell which object each is, and notes.
func sameXattrs(a, b string) (bool, error) {
	var all [2][]string
	for i, path := range []string{a, b} {
		names, err := listXattrs(path)
		if err != nil {
			return false, err
		}
		all[i] = slices.DeleteFunc(names, func(n string) bool {
			return isNote(n) || n == xattrID || n == xattrVerifier || n == xattrGroup
		})
	}
	if !slices.Equal(all[0], all[1]) {
		return false, nil
	}
	for _, name := range all[0] {
		va, err := xattrValue(a, name)
		if err != nil {
			return false, err
		}
		vb, err := xattrValue(b, name)
		if err != nil || !bytes.Equal(va, vb) {
			return false, err
		}
	}
	return true, nil
}

// rmdirQuietly removes an empty directory without changing the times of the one that it is in.
func (s *Set) rmdirQuietly(path string) error {
	up, err := s.openBeneath(parentPath(path), openDir)
	if err != nil {
		return err
	}
	defer unix.Close(up)
	return keepTimes(up, func() error { return unix.Unlinkat(up, baseName(path), unix.AT_REMOVEDIR) })
}
