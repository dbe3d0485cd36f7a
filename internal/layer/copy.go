package layer

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/sysfile"
	"dim/internal/vfs"
)

// Copy copies a layer to an empty directory. Content is shared with the original where the disk can (FICLONE), else
// copied, holes as holes. A hard link to the original would not do: a layer's files are written to in place.
//
// It has two directories open at a time, however deep the tree is.
type Copy struct {
	Root     Dir
	From, To string                             // relative to Root; To exists and is empty; "": nothing is made
	Limit    uint64                             // bytes that may be copied where they cannot be shared; 0: no bound
	Choose   func(e *CopyEntry) (Choice, error) // nil: everything is copied as it is
	Fault    func(point string) error           // see replica.Options
	Notes    bool                               // what describes entries of the saved area is copied too
	Pool     string                             // a directory that FillPool has filled; "": there is none

	Files  uint64 // entries in the copy but its top, of all types
	Bytes  uint64 // blocks of its files, each hard-linked one once
	Copied uint64 // of these, what could not be shared; if nothing is made, what the disk would copy if it cannot share

	recent uint64           // see FillPool
	links  map[Inode]string // the first path of the copy of each file with several names
}

// CopyEntry is one entry of the layer that is copied.
type CopyEntry struct {
	Entry
	At   string // its path from the top, without a leading slash; "" is the top
	Stat unix.Stat_t
}

// Choice is what becomes of an entry.
type Choice struct {
	Leave   bool                             // it is not copied, nor what is in it
	Link    func(dir int, name string) error // makes a hard link of a file with the same content; nil: there is none
	Adapt   func(e Entry) error              // changes the copy; nil: nothing is to be changed
	NoEmpty bool                             // a directory: it is not wanted if nothing is in it
	Hollow  bool                             // a regular file: the copy has its size, and is one hole
}

// errTooLarge tells that more would have to be copied than may be.
var errTooLarge = errors.New("the disk cannot share blocks between files, and it holds more than may be copied")

// Run copies the layer.
func (c *Copy) Run() error {
	c.links = make(map[Inode]string)
	top := CopyEntry{Entry: Entry{Name: "."}}
	fd, err := c.Root.OpenDir(c.From)
	if err != nil {
		return err
	}
	top.FD = fd
	if err = unix.Fstat(fd, &top.Stat); err != nil {
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

func (c *Copy) chosen(e *CopyEntry) (Choice, error) {
	if c.Choose == nil {
		return Choice{}, nil
	}
	return c.Choose(e)
}

// subdir is a directory whose copy was made and is empty yet.
type subdir struct {
	path string
	how  Choice
}

// dir copies the entries of the directory path, then its attributes: copying entries would change them again.
// The directories in it are copied after it is closed.
func (c *Copy) dir(path string, how Choice) error {
	below, err := c.level(path, how)
	if err != nil {
		return err
	}
	for _, d := range below {
		if err := c.dir(d.path, d.how); err != nil {
			return err
		}
		if d.how.NoEmpty && c.To != "" {
			if err := c.Root.removeKeepingTimes(c.To + "/" + d.path); err != nil && err != unix.ENOTEMPTY {
				return err
			}
		}
	}
	return nil
}

func (c *Copy) level(path string, how Choice) (below []subdir, err error) {
	from, err := c.Root.OpenDir(strings.TrimSuffix(c.From+"/"+path, "/"))
	if err != nil {
		return nil, err
	}
	defer unix.Close(from)
	to := -1
	if c.To != "" {
		if to, err = c.Root.OpenDir(strings.TrimSuffix(c.To+"/"+path, "/")); err != nil {
			return nil, err
		}
		defer unix.Close(to)
	}
	names, err := Dir(from).Names()
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		e := CopyEntry{Entry: At(from, name), At: image.JoinPath(path, name)}
		k, entered, err := c.entry(&e, to)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.At, err)
		}
		if entered {
			below = append(below, subdir{e.At, k})
		}
	}
	if to < 0 {
		return below, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return nil, err
	}
	return below, c.setAttributes(&CopyEntry{Entry: At(from, "."), Stat: st}, to, ".", how)
}

// entry copies e into the open directory to, without what is in it if it is a directory.
func (c *Copy) entry(e *CopyEntry, to int) (how Choice, enter bool, err error) {
	if err := c.Fault("in tree copy"); err != nil {
		return how, false, err
	}
	if err := unix.Fstatat(e.FD, e.Name, &e.Stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return how, false, err
	}
	if how, err = c.chosen(e); err != nil || how.Leave {
		return how, false, err
	}
	c.Files++
	enter = vfs.TypeOf(e.Stat.Mode) == vfs.Directory
	switch {
	case to < 0:
		c.count(e, how)
		return how, enter, nil
	case enter:
		return how, true, unix.Mkdirat(to, e.Name, 0o700)
	}
	ino, several := Inode{e.Stat.Dev, e.Stat.Ino}, e.Stat.Nlink > 1
	if first, ok := c.links[ino]; ok && several {
		return how, false, c.linkFirst(first, to, e.Name)
	}
	if several {
		c.links[ino] = e.At
	}
	c.Bytes += uint64(Occupied(&e.Stat))
	if how.Link != nil {
		err := how.Link(to, e.Name)
		if err != unix.EMLINK && err != unix.EXDEV && err != unix.EPERM {
			return how, false, err
		}
	}
	if linked, err := c.linkPooled(e, to); linked || err != nil {
		return how, false, err
	}
	if err := c.make(e, At(to, e.Name), how); err != nil {
		return how, false, err
	}
	return how, false, c.setAttributes(e, to, e.Name, how)
}

// count counts the bytes that e takes to copy.
func (c *Copy) count(e *CopyEntry, how Choice) {
	ino := Inode{e.Stat.Dev, e.Stat.Ino}
	if _, known := c.links[ino]; known || how.Link != nil || vfs.TypeOf(e.Stat.Mode) != vfs.Regular {
		return
	}
	if e.Stat.Nlink > 1 {
		c.links[ino] = e.At
	}
	c.Copied += uint64(Occupied(&e.Stat))
}

// linkFirst gives the copy of an entry that has several names another one.
func (c *Copy) linkFirst(first string, to int, name string) error {
	dir, err := c.Root.OpenDir(strings.TrimSuffix(c.To+"/"+parentPath(first), "/"))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Linkat(dir, baseName(first), to, name, 0)
}

// make makes an entry that is no directory, with its content.
func (c *Copy) make(e *CopyEntry, to Entry, how Choice) error {
	switch kind := vfs.TypeOf(e.Stat.Mode); kind {
	case vfs.Regular:
		return c.file(e, to, how)
	case vfs.Symlink:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(e.FD, e.Name, buf)
		if err != nil {
			return err
		}
		return unix.Symlinkat(string(buf[:n]), to.FD, to.Name)
	default:
		return unix.Mknodat(to.FD, to.Name, kind.Bits()|0o600, int(e.Stat.Rdev))
	}
}

func (c *Copy) file(e *CopyEntry, to Entry, how Choice) error {
	const flags = unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOATIME | unix.O_CLOEXEC
	in, err := unix.Openat(e.FD, e.Name, unix.O_RDONLY|flags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(in)
	out, err := unix.Openat(to.FD, to.Name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|flags, 0o600)
	if err != nil {
		return err
	}
	if how.Hollow {
		err = unix.Ftruncate(out, e.Stat.Size)
	} else {
		err = c.content(in, out, &e.Stat)
	}
	if e := unix.Close(out); err == nil {
		err = e
	}
	return err
}

func (c *Copy) content(in, out int, st *unix.Stat_t) error {
	if st.Size == 0 {
		return nil
	}
	err := unix.IoctlFileClone(out, in)
	if !slices.Contains([]error{unix.EOPNOTSUPP, unix.ENOTTY, unix.EXDEV, unix.EINVAL, unix.ENOSYS}, err) {
		return err
	}
	c.Copied += uint64(Occupied(st))
	if c.Limit > 0 && c.Copied > c.Limit {
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
		if err := CopyRange(out, in, uint64(data), uint64(end)); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// setAttributes gives the copy name, in the open directory to, the attributes of e, in an order in which no
// step undoes another. The times are set last.
func (c *Copy) setAttributes(e *CopyEntry, to int, name string, how Choice) error {
	if err := unix.Fchownat(to, name, int(e.Stat.Uid), int(e.Stat.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if vfs.TypeOf(e.Stat.Mode) != vfs.Symlink {
		if err := unix.Fchmodat(to, name, e.Stat.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	if !IsWhiteout(&e.Stat) {
		at, without := At(to, name), isNote
		if c.Notes {
			without = func(name string) bool { return name == xattrOrigin }
		}
		if err := e.copyXattrs(at, without); err != nil {
			return err
		}
		if how.Adapt != nil {
			if err := how.Adapt(at); err != nil {
				return err
			}
		}
	}
	return unix.UtimesNanoAt(to, name, []unix.Timespec{e.Stat.Atim, e.Stat.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// CopyRange copies the bytes between the offsets at and end from one file to another, to the same offsets. Blocks are
// shared where the file system does that by itself.
func CopyRange(to, from int, at, end uint64) error {
	var buf []byte
	for at < end {
		in, out := int64(at), int64(at)
		n, err := 0, unix.ENOSYS
		if buf == nil {
			n, err = result(unix.CopyFileRange(from, &in, to, &out, int(min(end-at, 1<<30)), 0))
		}
		if err == unix.EXDEV || err == unix.EINVAL || err == unix.ENOSYS || err == unix.EOPNOTSUPP {
			if buf == nil {
				buf = make([]byte, 256<<10)
			}
			n, err = copyBytes(to, from, buf[:min(uint64(len(buf)), end-at)], int64(at))
		}
		if err != 0 {
			if err == unix.EINTR {
				continue
			}
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		at += uint64(n)
	}
	return nil
}

func copyBytes(to, from int, buf []byte, at int64) (int, unix.Errno) {
	n, err := unix.Pread(from, buf, at)
	if err == nil && n > 0 {
		err = sysfile.WriteAt(to, buf[:n], at)
	}
	return result(n, err)
}

func result(n int, err error) (int, unix.Errno) {
	var e unix.Errno
	if err != nil && !errors.As(err, &e) {
		e = unix.EIO
	}
	return n, e
}
