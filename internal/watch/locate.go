package watch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// locator finds the paths of handles.
type locator struct {
	dir   string
	skip  func(dir string) bool
	dirs  map[handle]location // cache; cleared when a directory is moved
	files map[handle]struct{} // files with one name, outside or skipped

	fd   int // of dir, between begin and end; otherwise -1, because an open directory cannot be unmounted
	root string
}

// location is the path of a directory and its relation to the watched one.
type location struct {
	path     string // from the watched directory
	relation relation
}

type relation uint8

const (
	inside  relation = iota
	skipped          // inside, but Options.Skip excludes it
	outside
	gone
)

// maxKnown bounds the caches of a locator.
const maxKnown = 1 << 16

func newLocator(dir string, skip func(string) bool) *locator {
	return &locator{dir: dir, skip: skip, dirs: map[handle]location{}, files: map[handle]struct{}{}, fd: -1}
}

// begin opens the directory for the calls that follow. End closes it.
func (f *locator) begin() error {
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

func (f *locator) end() {
	unix.Close(f.fd)
	f.fd = -1
}

func pathOf(fd int) (string, error) { return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)) }

// locate returns the location of a directory. The path may be outdated a moment later; then there are events of the
// directory that was moved.
func (f *locator) locate(h handle) (location, error) {
	if p, ok := f.dirs[h]; ok {
		return p, nil
	}
	p, err := f.resolve(h)
	if err != nil || p.relation == gone {
		return p, err
	}
	if len(f.dirs) >= maxKnown {
		clear(f.dirs)
	}
	f.dirs[h] = p
	return p, nil
}

func (f *locator) resolve(h handle) (location, error) {
	fd, err := f.open(h)
	if fd < 0 || err != nil {
		return location{relation: gone}, err // there was an event of its parent, too
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return location{}, err
	}
	if st.Nlink == 0 {
		return location{relation: gone}, nil
	}
	path, err := pathOf(fd)
	tooLong := errors.Is(err, unix.ENAMETOOLONG)
	if tooLong {
		path, err = shortAncestor(fd)
	}
	if err != nil {
		return location{}, err
	}
	rel, ok := below(f.root, path)
	switch {
	case !ok:
		return location{relation: outside}, nil
	case rel != "" && f.skip(rel):
		return location{rel, skipped}, nil
	case tooLong:
		return location{}, fmt.Errorf("locate a directory below %s: %w", path, unix.ENAMETOOLONG)
	}
	return location{rel, inside}, nil
}

// maxClimb bounds the number of parents that shortAncestor tries.
const maxClimb = 1 << 16

// shortAncestor returns the path of the nearest ancestor of a directory whose own path is too long. The kernel reports
// no path longer than a page, ENAMETOOLONG (fs/d_path.c), but directories may be nested deeper than that. They are
// usually outside: the events are those of a whole file system.
func shortAncestor(fd int) (string, error) {
	child := -1
	defer func() { closeOpen(child) }()
	for range maxClimb {
		up, err := unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", fmt.Errorf("open a parent directory: %w", err)
		}
		closeOpen(child)
		child, fd = up, up
		if path, err := pathOf(fd); !errors.Is(err, unix.ENAMETOOLONG) {
			return path, err
		}
	}
	return "", unix.ENAMETOOLONG
}

func closeOpen(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}

// open opens a handle. It returns -1 if the entry does not exist any more.
func (f *locator) open(h handle) (int, error) {
	fd, err := unix.OpenByHandleAt(f.fd, h.file(), unix.O_PATH|unix.O_CLOEXEC)
	switch {
	case err == nil:
		return fd, nil
	case errors.Is(err, unix.ESTALE), errors.Is(err, unix.ENOENT):
		return -1, nil
	case errors.Is(err, unix.ENOMEM):
		// ext4 returns it while another file with its inode number is being created (fs/ext4/inode.c, iget_locked).
		return -1, nil
	}
	return -1, err
}

// below returns path relative to root, both absolute.
func below(root, path string) (rel string, ok bool) {
	if path == root {
		return "", true
	}
	return strings.CutPrefix(path, strings.TrimSuffix(root, "/")+"/")
}

// inode returns the inode number of a file that may have a name inside. It returns 0 if the file does not exist any
// more, or if its only name is outside or skipped.
func (f *locator) inode(e *event) (uint64, error) {
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
	if e.dir == "" { // its number of names has changed, or it was opened by a handle
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

// record adds the changes of e to p.
func (f *locator) record(e *event, p *pending) error {
	if e.is(unix.FAN_Q_OVERFLOW) {
		return errOverflow
	}
	moved := e.is(unix.FAN_ONDIR) && e.is(unix.FAN_MOVED_FROM|unix.FAN_MOVED_TO)
	if moved {
		clear(f.dirs)
	}
	at := location{relation: outside}
	var err error
	if e.dir != "" {
		if at, err = f.locate(e.dir); err != nil {
			return err
		}
	}
	switch at.relation {
	case outside, skipped:
		if up := parent(at.path); at.relation == skipped && e.self() && (up == "" || !f.skip(up)) {
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

// errOverflow is returned if events were lost.
var errOverflow = errors.New("the event queue of the kernel was full")
