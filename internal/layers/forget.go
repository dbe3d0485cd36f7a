package layers

import (
	"errors"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/layer"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// ForgetOptions select what is to be removed from the saved area.
type ForgetOptions struct {
	Path   string    // what is at or below it
	From   string    // of the stamps that begin so
	Before time.Time // of stamps earlier than this; zero: of any
	Dry    bool      // only tell what would go
}

var errNoLayer = errors.New("a version has no layer")

// Forget removes what was set aside, and returns it. Processes that have it open lose it. The replica is locked
// while the entries are renamed, not while they are removed, which takes long for a large tree.
func (l Layer) Forget(o ForgetOptions) ([]layer.SetAside, error) {
	path, err := cleanPath(o.Path)
	if err != nil {
		return nil, err
	}
	if l.none() {
		return nil, errNoLayer
	}
	saved, err := l.Saved()
	if err != nil {
		return nil, err
	}
	var list []layer.SetAside
	for _, s := range saved {
		if under(s.Path, path) && strings.HasPrefix(s.ID(), o.From) && (o.Before.IsZero() || s.Stamp.Before(o.Before)) {
			list = append(list, s)
		}
	}
	if o.Dry || len(list) == 0 {
		return list, nil
	}
	list, err = l.forgetAll(list)
	return list, errors.Join(err, l.r.Sweep())
}

// forgetAll removes the entries in list that still exist, and returns them.
func (l Layer) forgetAll(list []layer.SetAside) (gone []layer.SetAside, err error) {
	f, err := l.forget()
	if err != nil {
		return nil, err
	}
	for i := range list {
		err := f.entry(&list[i])
		if err == unix.ENOENT || err == unix.ENODATA {
			continue // it was restored, or forgotten, meanwhile
		}
		if err != nil {
			return gone, f.end(err)
		}
		gone = append(gone, list[i])
	}
	return gone, f.end(nil)
}

// forget is one call of Forget. It renames what is to be removed; Sweep removes it later. The replica is
// locked.
//
// A file stays, without content, if the version's entry with its id goes by another id because of it: else that
// id would be taken back from a node that has the version's file open. If the file has another name, in the
// layer or set aside, that one keeps the id and the content.
type forget struct {
	Layer
	e     *replica.Edit
	stays map[string]bool // paths of files that may stay, and of the directories above, from the replica's directory
	whole bool            // no such file has further names: directories without one are renamed as a whole
	moved bool
}

func (l Layer) forget() (*forget, error) {
	e, err := l.r.Edit("")
	if err != nil {
		return nil, err
	}
	f := &forget{Layer: l, e: e, stays: make(map[string]bool), whole: true}
	for _, path := range e.AliasedPaths() {
		var st unix.Stat_t
		if err := l.root.Stat(l.home.Join(path), &st); err != nil || st.Nlink > 1 {
			f.whole = false
		}
		for ; path != "" && !f.stays[path]; path = parentPath(path) {
			f.stays[path] = true
		}
	}
	return f, nil
}

// end unlocks the replica and returns err. If anything has changed the next call reads the saved area again.
func (f *forget) end(err error) error {
	if f.moved {
		f.e.Reread()
	}
	return f.e.Cancel(err)
}

// entry removes one entry of the saved area.
func (f *forget) entry(s *layer.SetAside) error {
	if err := f.r.Fault("in forget"); err != nil {
		return err
	}
	if s.Kind == layer.AsideOpaque || s.Kind == layer.AsideAttributes {
		f.moved = true
		return f.dropMark(s)
	}
	dir, err := f.e.OpenSaved(s)
	if err != nil {
		return err
	}
	if _, err := f.remove(dir, baseName(s.Path), layer.Home("").Saved(s.ID(), s.Path)); err != nil {
		return err
	}
	f.pruneSaved(s.Stamp, s.Path)
	return nil
}

// remove removes name, with all that is in it, from an open directory of the saved area. path is its path from
// the replica's directory. kept tells whether anything stays.
func (f *forget) remove(dir int, name, path string) (kept bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	switch {
	case f.whole && !f.stays[path]:
		return false, f.discard(dir, name)
	case vfs.TypeOf(st.Mode) == vfs.Directory:
		return f.removeDir(dir, name, path)
	}
	at := layer.At(dir, name)
	id, _, ok, err := at.ID(make([]byte, 64))
	if err != nil || !ok || !f.e.Aliased(id) {
		return false, f.discard(dir, name)
	}
	f.moved = true
	if st.Nlink > 1 {
		return false, unix.Unlinkat(dir, name, 0) // if it were renamed it would still be a name
	}
	if at.HasSavedMark() {
		return true, nil
	}
	if err := at.SetForgotten(); err != nil {
		return true, err
	}
	if vfs.TypeOf(st.Mode) != vfs.Regular {
		return true, nil
	}
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return true, err
	}
	return true, unix.Close(fd)
}

func (f *forget) discard(dir int, name string) error {
	f.moved = true
	return f.e.Discard(dir, name)
}

func (f *forget) removeDir(dir int, name, path string) (kept bool, err error) {
	fd, err := layer.Dir(dir).Enter(name)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	names, err := layer.Dir(fd).Names()
	if err != nil {
		return false, err
	}
	for _, n := range names {
		k, err := f.remove(fd, n, path+"/"+n)
		if err != nil {
			return kept, err
		}
		kept = kept || k
	}
	if kept {
		return true, layer.At(dir, name).DropID() // from now on it is there for what is in it
	}
	f.moved = true
	return false, unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}
