package replica

import (
	"golang.org/x/sys/unix"
)

// Usage is what a layer takes on its disk.
type Usage struct {
	Files uint64 // names of all types, whiteouts included
	Bytes uint64 // in blocks; each hard-linked file once
}

// Usage walks over the layer on the disk. It locks nothing: what changes meanwhile may or may not be counted.
func (r *Replica) Usage() (Usage, error) {
	var u Usage
	if r.dir == "" {
		return u, nil
	}
	fd, err := r.set.openBeneath(r.dir+"/upper", openDir)
	if err == unix.ENOENT {
		return u, nil
	}
	if err != nil {
		return u, r.edge(err)
	}
	return u, r.edge(u.add(fd, make(map[inode]bool)))
}

// add counts what is in the open directory fd, and closes it.
func (u *Usage) add(fd int, linked map[inode]bool) error {
	defer unix.Close(fd)
	names, err := listDir(fd)
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
		ino := inode{st.Dev, st.Ino}
		if !linked[ino] {
			u.Bytes += uint64(st.Blocks) * 512
		}
		if !dir && st.Nlink > 1 {
			linked[ino] = true
		}
		if !dir {
			continue
		}
		sub, err := unix.Openat(fd, name, openDir|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
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
