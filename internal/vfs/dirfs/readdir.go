package dirfs

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/vfs"
)

// entry is one name of a listing.
type entry struct {
	name     string
	id       uint64
	position uint64 // in the listing: a listing starts after the position that is its cookie
	cookie   uint64
}

// Cookies of "." and "..". Those of other names are larger; see order.
const (
	cookieDot = 1 + iota
	cookieDotDot
	cookieNames
)

// ReadDir reads the whole directory on every call, and lists it in the order of cookies.
func (f *FS) ReadDir(
	c *vfs.Cred, dir vfs.Handle, cookie uint64, plus vfs.Plus, yield func(*vfs.DirEntry) bool,
) (bool, error) {
	d, list, err := f.list(c, dir)
	if err != nil {
		return false, err
	}
	defer d.close()
	first, _ := slices.BinarySearchFunc(list, cookie, func(e entry, after uint64) int {
		if e.position <= after {
			return -1
		}
		return 1
	})
	for _, e := range list[first:] {
		de := vfs.DirEntry{Name: e.name, ID: e.id, Cookie: e.cookie}
		if plus == vfs.WithAttr && !f.fill(d, &de) {
			continue
		}
		if !yield(&de) {
			return false, nil
		}
	}
	return true, nil
}

// fill looks the entry up. It returns false if the name was removed since the list was read.
func (f *FS) fill(d *object, de *vfs.DirEntry) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	o, err := f.child(d, de.Name)
	if err != nil {
		return false
	}
	defer o.close()
	if de.Handle, err = f.handleOf(o.fd); err != nil {
		return false
	}
	de.Attr, de.ID = o.attr, o.attr.ID
	return true
}

func (f *FS) list(c *vfs.Cred, dir vfs.Handle) (*object, []entry, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	d, err := f.openDir(dir)
	if err != nil {
		return nil, nil, err
	}
	if !c.Permits(&d.attr, vfs.MayRead) {
		d.close()
		return nil, nil, vfs.EACCES
	}
	list, err := f.readAll(d)
	if err != nil {
		d.close()
		return nil, nil, vfs.ErrnoOf(err)
	}
	return d, list, nil
}

func (f *FS) readAll(d *object) ([]entry, error) {
	fd, err := unix.Openat(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var list []entry
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Getdents(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		list = parseDirents(list, buf[:n])
	}
	up, err := f.parent(d)
	if err != nil {
		return nil, err
	}
	up.close()
	head := []entry{{".", d.attr.ID, cookieDot, cookieDot}, {"..", up.attr.ID, cookieDotDot, cookieDotDot}}
	return append(head, order(list, f.hash)...), nil
}

// parseDirents appends the records of struct linux_dirent64 without "." and "..".
func parseDirents(list []entry, b []byte) []entry {
	const nameAt = 19
	for len(b) > nameAt {
		reclen := int(binary.NativeEndian.Uint16(b[16:]))
		name := string(b[nameAt:reclen])
		if i := strings.IndexByte(name, 0); i >= 0 {
			name = name[:i]
		}
		if !isDot(name) {
			list = append(list, entry{name: name, id: binary.NativeEndian.Uint64(b)})
		}
		b = b[reclen:]
	}
	return list
}

// order sets the position and the cookie of each name, and sorts by position. The position is 2*hash+1, so it
// depends on the name only. The cookie is the position. If names collide, all but the last of them (by name) get
// the even number before it as the cookie: a listing that is resumed between them repeats them from the first one,
// and omits none.
func order(list []entry, hash func(string) uint64) []entry {
	for i := range list {
		list[i].position = max(hash(list[i].name)&(1<<62-1), cookieNames)<<1 | 1
		list[i].cookie = list[i].position
	}
	slices.SortFunc(list, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.position, b.position), strings.Compare(a.name, b.name))
	})
	for i := range len(list) - 1 {
		if list[i].position == list[i+1].position {
			list[i].cookie--
		}
	}
	return list
}
