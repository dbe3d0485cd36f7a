package layers

import (
	"golang.org/x/sys/unix"

	"dim/internal/layer"
)

// Usage is what a layer takes on its disk.
type Usage struct {
	Files uint64 // names of all types, whiteouts included
	Bytes uint64 // in blocks; each hard-linked file once
}

// Usage walks over the layer on the disk. It locks nothing: what changes meanwhile may or may not be counted.
func (l Layer) Usage() (Usage, error) {
	var u Usage
	if l.none() {
		return u, nil
	}
	fd, err := l.root.OpenDir(l.home.Upper(""))
	if err == unix.ENOENT {
		return u, nil
	}
	if err != nil {
		return u, err
	}
	err = u.add(fd, make(map[layer.Inode]bool))
	return u, err
}

// add counts what is in the open directory fd, and closes it.
func (u *Usage) add(fd int, linked map[layer.Inode]bool) error {
	defer unix.Close(fd)
	names, err := layer.Dir(fd).Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			if err == unix.ENOENT {
				continue // removed meanwhile
			}
			return err
		}
		u.Files++
		dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		ino := layer.Inode{Dev: st.Dev, Ino: st.Ino}
		if !linked[ino] {
			u.Bytes += uint64(st.Blocks) * 512
		}
		if !dir && st.Nlink > 1 {
			linked[ino] = true
		}
		if !dir {
			continue
		}
		sub, err := layer.Dir(fd).Enter(name)
		if err == unix.ENOENT {
			continue
		}
		if err == nil {
			err = u.add(sub, linked)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
