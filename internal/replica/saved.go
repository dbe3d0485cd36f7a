package replica

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/vfs"
)

// savedDir is where what was set aside at a time stands, from the replica's directory.
func savedDir(at int64) string { return "saved/" + stampName(time.Unix(0, at)) }

func stampName(at time.Time) string { return at.UTC().Format(stampFormat) }

// ID is the stamp as people and directories have it.
func (a *SetAside) ID() string { return stampName(a.Stamp) }

// Saved lists what was set aside, the latest first. What comes or goes meanwhile may be listed or not: the node's calls do not wait for it.
func (r *Replica) Saved() ([]SetAside, error) {
	if err := r.rlock(); err != nil { // what a crash has left is completed by now
		return nil, err
	}
	r.mu.RUnlock()
	return r.saved()
}

// saved is Saved, with r locked or not.
func (r *Replica) saved() ([]SetAside, error) {
	stamps, err := r.stamps("saved")
	if err != nil {
		return nil, err
	}
	var list []SetAside
	for _, at := range stamps {
		fd, err := r.set.openBeneath(r.dir+"/saved/"+stampName(at), openDir)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return nil, err
		}
		is := SetAside{Node: r.node, Image: r.image, Stamp: at, Why: whyOf(fd)}
		if hasXattr(fd, ".", xattrSaved) {
			root := is
			root.Kind, root.Type = AsideAttributes, vfs.Directory
			list = append(list, root)
		}
		err = r.listSaved(fd, "", is, &list)
		unix.Close(fd)
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// stamps lists the directories of area that are named by stamps, the latest first.
func (r *Replica) stamps(area string) ([]time.Time, error) {
	fd, err := r.set.openBeneath(r.dir+"/"+area, openDir)
	if err == unix.ENOENT {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	names, err := listDir(fd)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	slices.Reverse(names)
	var list []time.Time
	for _, name := range names {
		if at, err := time.Parse(stampFormat, name); err == nil {
			list = append(list, at)
		}
	}
	return list, nil
}

func whyOf(dir int) string {
	why, err := getXattr(dir, ".", xattrWhy, make([]byte, 1024))
	if err != nil {
		return ""
	}
	return string(why)
}

// listSaved lists the entries of one directory of the saved area. Directories that are there only for what is in them
// have none of the extended attributes.
func (r *Replica) listSaved(fd int, dir string, is SetAside, list *[]SetAside) error {
	names, err := listDir(fd)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == unix.ENOENT {
			continue
		} else if err != nil {
			return err
		}
		e := is
		e.Path, e.Kind, e.Type = image.JoinPath(dir, name), AsideEntry, vfs.TypeOf(st.Mode)
		if e.Type != vfs.Directory {
			if hasXattr(fd, name, xattrSaved) {
				continue // forgotten
			}
			if isWhiteout(&st) {
				e.Kind, e.Type = AsideRemoval, 0
			}
			if e.Type == vfs.Regular {
				e.Size = uint64(st.Size)
			}
			*list = append(*list, e)
			continue
		}
		if err := r.listSavedDir(fd, name, e, list); err != nil {
			return err
		}
	}
	return nil
}

// listSavedDir lists the directory e, name in the open directory fd: as one entry when it is the node's, else what is in it.
func (r *Replica) listSavedDir(fd int, name string, e SetAside, list *[]SetAside) error {
	sub, err := unix.Openat(fd, name, openDir|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(sub)
	switch {
	case hasXattr(fd, name, xattrID):
		if err := weighSaved(sub, &e); err != nil {
			return err
		}
		*list = append(*list, e)
		return nil
	case hasXattr(fd, name, xattrOpaque):
		e.Kind = AsideOpaque
		*list = append(*list, e)
	case hasXattr(fd, name, xattrSaved):
		e.Kind = AsideAttributes
		*list = append(*list, e)
	}
	e.Kind, e.Type = "", 0
	return r.listSaved(sub, e.Path, e, list)
}

// weighSaved adds what is in an open directory to e.
func weighSaved(fd int, e *SetAside) error {
	names, err := listDir(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == unix.ENOENT {
			continue
		} else if err != nil {
			return err
		}
		e.Entries++
		switch vfs.TypeOf(st.Mode) {
		case vfs.Regular:
			e.Size += uint64(st.Size)
		case vfs.Directory:
			sub, err := unix.Openat(fd, name, openDir|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err == unix.ENOENT {
				continue
			}
			if err != nil {
				return err
			}
			err = weighSaved(sub, e)
			unix.Close(sub)
			if err != nil {
				return err
			}
		}
	}
	return nil
}
