package watch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// finder finds where things are that the kernel names by handles.
type finder struct {
	dir   string
	skip  func(dir string) bool
	dirs  map[handle]place    // found before; forgotten when a directory is moved
	files map[handle]struct{} // with one name, which does not matter

	fd   int // of dir, while events are dealt with; -1 otherwise: an open directory cannot be unmounted
	root string
}

// place is where a directory is.
type place struct {
	path  string // from the master's root
	where where
}

type where uint8

const (
	inside  where = iota
	skipped       // inside, but nobody wants to know
	outside
	gone
)

// maxKnown bounds what a finder remembers.
const maxKnown = 1 << 16

func newFinder(dir string, skip func(string) bool) *finder {
	return &finder{dir: dir, skip: skip, dirs: map[handle]place{}, files: map[handle]struct{}{}, fd: -1}
}

// begin makes the finder ready; end lets go of the directory again.
func (f *finder) begin() error {
	fd, err := unix.Open(f.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", f.dir, err)
	}
	if f.root, err = pathOf(fd); err != nil {
		unix.Close(fd)
		return err
	}
	f.fd = fd
	return nil
}

func (f *finder) end() {
	unix.Close(f.fd)
	f.fd = -1
}

func pathOf(fd int) (string, error) { return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)) }

// find finds a directory. A path that was found may be another a moment later: that is what the events of moved directories are for.
func (f *finder) find(h handle) (place, error) {
	if p, ok := f.dirs[h]; ok {
		return p, nil
	}
	p, err := f.ask(h)
	if err != nil || p.where == gone {
		return p, err
	}
	if len(f.dirs) >= maxKnown {
		clear(f.dirs)
	}
	f.dirs[h] = p
	return p, nil
}

func (f *finder) ask(h handle) (place, error) {
	fd, err := f.open(h)
	if fd < 0 || err != nil {
		return place{where: gone}, err // the directory it was in had an event, too
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return place{}, err
	}
	if st.Nlink == 0 {
		return place{where: gone}, nil
	}
	path, err := pathOf(fd)
	if err != nil {
		return place{}, err
	}
	rel, ok := below(f.root, path)
	switch {
	case !ok:
		return place{where: outside}, nil
	case rel != "" && f.skip(rel):
		return place{rel, skipped}, nil
	}
	return place{rel, inside}, nil
}

// open opens what has the handle; -1 is for what is gone.
func (f *finder) open(h handle) (int, error) {
	fd, err := unix.OpenByHandleAt(f.fd, h.file(), unix.O_PATH|unix.O_CLOEXEC)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.ESTALE), errors.Is(err, unix.ENOENT):
		return -1, nil
	case errors.Is(err, unix.ENOMEM): // ext4 says so when another file with its inode number is just being made (fs/ext4/inode.c, iget_locked)
		return -1, nil
	}
	return -1, err
}

// below returns path as seen from root, both absolute.
func below(root, path string) (rel string, ok bool) {
	if path == root {
		return "", true
	}
	return strings.CutPrefix(path, strings.TrimSuffix(root, "/")+"/")
}

// inode returns the inode number of a file whose place is not known; 0 when it is gone, or when its only name does not matter.
func (f *finder) inode(e *event) (uint64, error) {
	if _, known := f.files[e.file]; known && e.dir != "" {
		return 0, nil
	}
	fd, err := f.open(e.file)
	if fd < 0 || err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Nlink == 0 {
		return 0, err
	}
	if e.dir == "" { // its number of names changed, or it was opened by a handle
		delete(f.files, e.file)
		return st.Ino, nil
	}
	if st.Nlink > 1 {
		return st.Ino, nil
	}
	if len(f.files) >= maxKnown {
		clear(f.files)
	}
	f.files[e.file] = struct{}{}
	return 0, nil
}

// sort adds what e tells to p.
func (f *finder) sort(e *event, p *pending) error {
	if e.is(unix.FAN_Q_OVERFLOW) {
		return errOverflow
	}
	moved := e.is(unix.FAN_ONDIR) && e.is(unix.FAN_MOVED_FROM|unix.FAN_MOVED_TO)
	if moved {
		clear(f.dirs)
	}
	at := place{where: outside}
	var err error
	if e.dir != "" {
		if at, err = f.find(e.dir); err != nil {
			return err
		}
	}
	switch at.where {
	case outside, skipped:
		if up := parent(at.path); at.where == skipped && e.self() && (up == "" || !f.skip(up)) {
			p.add(Changes{Dirs: []string{up}})
		}
		if e.file == "" {
			return nil
		}
		ino, err := f.inode(e)
		if ino != 0 {
			p.add(Changes{Inodes: []uint64{ino}})
		}
		return err
	case inside:
		c := Changes{Dirs: []string{at.path}}
		if moved && e.is(unix.FAN_MOVED_TO) {
			c.Trees = []string{strings.TrimPrefix(at.path+"/"+e.name, "/")}
		}
		p.add(c)
		p.write(e)
	}
	return nil
}

func parent(path string) string { return strings.TrimPrefix(filepath.Dir("/"+path), "/") }

// errOverflow tells that events were lost.
var errOverflow = errors.New("the kernel's queue of events was full")
