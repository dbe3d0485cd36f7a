package layer

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/recordmerge"
	"dim/internal/vfs"
)

// SetAside is an entry of a node's own that was moved to the saved area. What stands below Kind is known of those that
// were read from there.
type SetAside struct {
	Node  string
	Image string
	Path  string
	Stamp time.Time
	Kind  AsideKind

	Why     string   // "switch compute@1 compute@2", "reset", "restore"; "" if it is not known
	Type    vfs.Type // of an entry
	Size    uint64   // bytes of content, of a directory with all that is in it
	Entries int      // of a directory: how many are in it

	// Merged tells that the records of the file were merged with the master's: nothing is lost but what Conflicts
	// name. Without Merged, Conflicts are the reason why a file with a merge rule was not merged. That is known only of
	// what a switch reports.
	Merged    bool
	Conflicts []recordmerge.Conflict
}

// ID returns the stamp as people and directories have it.
func (a *SetAside) ID() string { return StampName(a.Stamp) }

// What returns in a word what was set aside: the kind, or "merged".
func (a *SetAside) What() string {
	if a.Merged {
		return "merged"
	}
	return string(a.Kind)
}

// AsideKind tells what was set aside.
type AsideKind string

// An entry; the removal of an entry; that a directory hid the version's; a directory's attributes.
const (
	AsideEntry      AsideKind = "entry"
	AsideRemoval    AsideKind = "removal"
	AsideOpaque     AsideKind = "opaque"
	AsideAttributes AsideKind = "attributes"
)

// ReadSaved lists what was set aside in a replica at a time or later, the latest first, without Node and Image.
func (d Dir) ReadSaved(h Home, since time.Time) ([]SetAside, error) {
	stamps, err := d.Stamps(h.Saved())
	if err != nil {
		return nil, err
	}
	s := savedList{}
	for _, at := range stamps {
		if at.Before(since) {
			break
		}
		if err := s.stamp(d, h, at); err != nil {
			return nil, err
		}
	}
	return s.list, nil
}

// savedList collects the entries of the saved area.
type savedList struct {
	common SetAside // what those of one stamp have in common
	list   []SetAside
}

func (s *savedList) stamp(root Dir, h Home, at time.Time) error {
	fd, err := root.OpenDir(h.Saved(StampName(at)))
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	top := At(fd, ".")
	s.common = SetAside{Stamp: at, Why: top.why()}
	if top.HasSavedMark() {
		attrs := s.common
		attrs.Kind, attrs.Type = AsideAttributes, vfs.Directory
		s.list = append(s.list, attrs)
	}
	return s.dir(fd, "")
}

// dir lists the entries of the open directory fd. Directories that are there only for what is in them have none of the
// marks.
func (s *savedList) dir(fd int, path string) error {
	names, err := Dir(fd).Names()
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
		e := s.common
		e.Path, e.Kind, e.Type = image.JoinPath(path, name), AsideEntry, vfs.TypeOf(st.Mode)
		if e.Type != vfs.Directory {
			if At(fd, name).HasSavedMark() {
				continue // forgotten
			}
			if IsWhiteout(&st) {
				e.Kind, e.Type = AsideRemoval, 0
			}
			if e.Type == vfs.Regular {
				e.Size = uint64(st.Size)
			}
			e.Conflicts, e.Merged = At(fd, name).conflicts()
			s.list = append(s.list, e)
			continue
		}
		if err := s.subdir(fd, name, e); err != nil {
			return err
		}
	}
	return nil
}

// subdir lists the directory e, name in the open directory fd: as one entry if it is the node's, else what is in it.
func (s *savedList) subdir(fd int, name string, e SetAside) error {
	sub, err := Dir(fd).Enter(name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(sub)
	at := At(fd, name)
	_, _, _, none := at.ID(make([]byte, 64))
	switch {
	case none == nil:
		if err := addContents(sub, &e); err != nil {
			return err
		}
		s.list = append(s.list, e)
		return nil
	case at.Opaque():
		e.Kind = AsideOpaque
		s.list = append(s.list, e)
	case at.HasSavedMark():
		e.Kind = AsideAttributes
		s.list = append(s.list, e)
	}
	return s.dir(sub, e.Path)
}

// addContents counts what is in an open directory in e.
func addContents(fd int, e *SetAside) error {
	names, err := Dir(fd).Names()
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
			sub, err := Dir(fd).Enter(name)
			if err == unix.ENOENT {
				continue
			}
			if err != nil {
				return err
			}
			err = addContents(sub, e)
			unix.Close(sub)
			if err != nil {
				return err
			}
		}
	}
	return nil
}
