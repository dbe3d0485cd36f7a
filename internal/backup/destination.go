package backup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/durable"
	"dim/internal/layer"
	"dim/internal/sysfile"
)

// destination is a new backup in a directory.
type destination struct {
	dir, name string
	lock      *os.File
	root      layer.Dir // of the new backup
	file      *os.File
	manifest  *bufio.Writer
}

// newDestination makes the directory of a new backup, under a name that says that it is incomplete. What an earlier
// backup left that did not end is removed.
func newDestination(dir string) (d *destination, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	d = &destination{dir: dir, root: -1, name: layer.StampName(time.Now())}
	if d.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	if err = d.open(); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, errors.New("another backup to it is being made")
	}
	return f, nil
}

func (d *destination) open() error {
	names, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	for _, e := range names {
		if strings.HasPrefix(e.Name(), incomplete) {
			if err := removeTree(d.dir, e.Name()); err != nil {
				return err
			}
		}
	}
	path := d.path()
	if err := os.Mkdir(path, 0o700); err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	d.root = layer.Dir(fd)
	if err := d.checkFileSystem(); err != nil {
		return err
	}
	d.file, err = os.OpenFile(filepath.Join(path, manifestName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	d.manifest = bufio.NewWriterSize(d.file, 1<<20)
	return err
}

func (d *destination) path() string { return filepath.Join(d.dir, incomplete+d.name) }

const archiveInstead = "write a stream to a file on it instead: dim backup - > FILE"

// checkFileSystem refuses a file system that cannot have what layers have, before anything is copied.
func (d *destination) checkFileSystem() error {
	const probe = "probe"
	if err := unix.Mknodat(int(d.root), probe, unix.S_IFCHR|0o600, 0); err != nil {
		return fmt.Errorf("it cannot have devices: %w; %s", err, archiveInstead)
	}
	err := unix.Lsetxattr(sysfile.ProcPath(int(d.root), probe), "trusted.dim.id", []byte("12345678"), 0)
	if err != nil {
		err = fmt.Errorf("it cannot have trusted extended attributes: %w; %s", err, archiveInstead)
	}
	return errors.Join(err, unix.Unlinkat(int(d.root), probe, 0))
}

// commit gives the backup its name. Everything but the manifest and the description is on disk.
func (d *destination) commit(info *Info) (path string, err error) {
	b, err := info.encode()
	if err != nil {
		return "", err
	}
	for _, step := range []func() error{
		d.manifest.Flush, d.file.Sync,
		func() error { return durable.WriteFile(filepath.Join(d.path(), infoName), b, 0o600) },
		func() error { return os.Rename(d.path(), filepath.Join(d.dir, d.name)) },
		func() error { return durable.SyncDir(d.dir) },
	} {
		if err := step(); err != nil {
			return "", err
		}
	}
	return filepath.Join(d.dir, d.name), nil
}

// discard removes what was written of a backup that failed.
func (d *destination) discard() error { return removeTree(d.dir, incomplete+d.name) }

func (d *destination) close() {
	if d.file != nil {
		d.file.Close()
	}
	if d.root >= 0 {
		unix.Close(int(d.root))
	}
	_ = sysfile.Unlock(d.lock)
}

// removeTree removes name, and all that is in it, from a directory.
func removeTree(dir, name string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return layer.Dir(fd).RemoveAll(name)
}
