package layer

import (
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/vfs"
)

// Origin identifies one state of a file of a layer: its inode number and ctime, as trusted.dim.of has them. Every
// change of the file changes its ctime. ok is false if that was so recent that another change might get the same one.
func (e *CopyEntry) Origin(now time.Time) (o [16]byte, ok bool) {
	copy(o[:], origin(&e.Stat))
	return o, e.Stat.Ctim.Nano() < now.Add(-time.Second).UnixNano() // more than the step of any kernel's clock
}

// FillPool copies files of the layer to the directory Pool, which exists, while the layer is in use. Run takes from it
// what has not changed since. Entries that vanish meanwhile are left out, and so are files that change. FillPool
// returns the bytes of the files that changed too recently to be recognized.
func (c *Copy) FillPool() (recent uint64, err error) {
	pool, err := c.Root.OpenDir(c.Pool)
	if err != nil {
		return 0, err
	}
	defer unix.Close(pool)
	c.recent = 0
	err = c.fill(pool, "")
	return c.recent, err
}

func (c *Copy) fill(pool int, path string) error {
	from, err := c.Root.OpenDir(strings.TrimSuffix(c.From+"/"+path, "/"))
	if err != nil {
		return vanished(err)
	}
	below, err := c.fillLevel(pool, from, path)
	unix.Close(from)
	for _, sub := range below {
		if err == nil {
			err = c.fill(pool, sub)
		}
	}
	return err
}

// fillLevel copies the files of an open directory, and returns the directories in it.
func (c *Copy) fillLevel(pool, from int, path string) (below []string, err error) {
	names, err := Dir(from).Names()
	if err != nil {
		return nil, vanished(err)
	}
	for _, name := range names {
		e := CopyEntry{Entry: At(from, name), At: image.JoinPath(path, name)}
		if err := unix.Fstatat(from, name, &e.Stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			if vanished(err) == nil {
				continue
			}
			return nil, err
		}
		how, err := c.chosen(&e)
		if err != nil {
			return nil, err
		}
		switch kind := vfs.TypeOf(e.Stat.Mode); {
		case how.Leave || how.Hollow:
		case kind == vfs.Directory:
			below = append(below, e.At)
		case kind == vfs.Regular:
			err = vanished(c.fillFile(pool, &e, how))
		}
		if err != nil {
			return nil, err
		}
	}
	return below, nil
}

// vanished returns nil for the errors that a name causes which is removed or replaced meanwhile.
func vanished(err error) error {
	if slices.Contains([]error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.ESTALE}, err) {
		return nil
	}
	return err
}

// fillFile copies a file, unless the pool has it.
func (c *Copy) fillFile(pool int, e *CopyEntry, how Choice) error {
	origin, ok := e.Origin(time.Now())
	name, now := hex.EncodeToString(origin[:]), *e
	if !ok {
		c.recent += uint64(Occupied(&e.Stat))
	}
	if !ok || unix.Fstatat(pool, name, &now.Stat, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return nil
	}
	const unfinished = "unfinished"
	err := c.file(e, At(pool, unfinished), how)
	if err == nil {
		err = c.setAttributes(e, pool, unfinished, how)
	}
	if err == nil {
		err = unix.Fstatat(e.FD, e.Name, &now.Stat, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		if is, _ := now.Origin(time.Now()); is == origin {
			return unix.Renameat(pool, unfinished, pool, name)
		}
	}
	_ = unix.Unlinkat(pool, unfinished, 0)
	return err
}

// linkPooled links a file that the pool has.
func (c *Copy) linkPooled(e *CopyEntry, to int) (bool, error) {
	if c.Pool == "" || vfs.TypeOf(e.Stat.Mode) != vfs.Regular {
		return false, nil
	}
	pool, err := c.Root.OpenDir(c.Pool)
	if err != nil {
		return false, err
	}
	defer unix.Close(pool)
	origin, _ := e.Origin(time.Now())
	err = unix.Linkat(pool, hex.EncodeToString(origin[:]), to, e.Name, 0)
	if slices.Contains([]error{unix.ENOENT, unix.EMLINK, unix.EXDEV, unix.EPERM}, err) {
		return false, nil
	}
	return err == nil, err
}
