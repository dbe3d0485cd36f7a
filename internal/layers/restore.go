package layers

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/fileid"
	"dim/internal/layer"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// RestoreOptions select set-aside entries that are to come back.
type RestoreOptions struct {
	Path string // they are at or below it
	From string // their stamp, or how it begins; "": of each path the latest
	To   string // a directory of the replica to put them in; "": where they were
	Dry  bool   // only tell what would be done
}

// Restored is a set-aside entry that came back.
type Restored struct {
	Saved     layer.SetAside
	Path      string // where it stands now
	Displaced bool   // what the layer had there was set aside in its turn
}

// ErrNotSaved tells that nothing with that path and stamp is set aside.
var ErrNotSaved = errors.New("nothing of it is set aside")

// Restore moves set-aside entries back into the layer, as if the node had written them itself. What the layer
// has there now is set aside. The handles of what comes back go on working. It returns ErrNotSaved if nothing
// was selected.
func (l Layer) Restore(o RestoreOptions) ([]Restored, error) {
	e, err := l.r.Edit("restore")
	if err != nil {
		return nil, err
	}
	r := restore{Layer: l, e: e}
	plan, err := r.plan(&o)
	if err != nil || o.Dry {
		return plan, e.Cancel(err)
	}
	for i := range plan {
		if err = r.entry(&plan[i]); err != nil {
			err = fmt.Errorf("restore /%s: %w", plan[i].Saved.Path, err)
			plan = plan[:i]
			break
		}
	}
	return plan, e.End(err)
}

// restore is one call of Restore.
type restore struct {
	Layer
	e *replica.Edit
}

const bothAt = "restore /%s: it and /%s would both be /%s: restore them one by one, to two directories"

// plan selects what is to come back, and finds what is in the way of it.
func (r *restore) plan(o *RestoreOptions) ([]Restored, error) {
	path, err := cleanPath(o.Path)
	if err != nil {
		return nil, err
	}
	dir, err := cleanPath(o.To)
	if err != nil {
		return nil, err
	}
	saved, err := r.saved()
	if err != nil {
		return nil, err
	}
	var plan []Restored
	from := make(map[string]string) // which goes to a path, with To
	for _, s := range chosen(saved, path, o.From) {
		to := s.Path
		if o.To != "" {
			if s.Kind != layer.AsideEntry {
				continue // it is about the directory where it was
			}
			to = image.JoinPath(dir, baseName(s.Path))
			if other, twice := from[to]; twice {
				return nil, fmt.Errorf(bothAt, s.Path, other, to)
			}
			from[to] = s.Path
		}
		displaced, err := r.check(&s, to)
		if err != nil {
			return nil, fmt.Errorf("restore /%s: %w", s.Path, err)
		}
		plan = append(plan, Restored{Saved: s, Path: to, Displaced: displaced})
	}
	if len(plan) == 0 {
		return nil, fmt.Errorf("restore /%s: %w", path, ErrNotSaved)
	}
	return plan, nil
}

// chosen returns what is saved at or below path under the stamp, the latest of each path. It leaves out what
// comes back with a directory.
func chosen(saved []layer.SetAside, path, stamp string) []layer.SetAside {
	var list []layer.SetAside
	seen := make(map[string]bool)
	for _, s := range saved { // the latest first
		if under(s.Path, path) && strings.HasPrefix(s.ID(), stamp) && !seen[s.Path] {
			seen[s.Path] = true
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b layer.SetAside) int { return image.ComparePaths(a.Path, b.Path) })
	whole := ""
	return slices.DeleteFunc(list, func(s layer.SetAside) bool {
		if whole != "" && s.Path != whole && under(s.Path, whole) {
			return true
		}
		if s.Kind == layer.AsideEntry || s.Kind == layer.AsideRemoval {
			whole = s.Path
		}
		return false
	})
}

// check decides whether s can come back at path, and whether the layer has something there.
func (r *restore) check(s *layer.SetAside, path string) (displaced bool, err error) {
	if r.e.Shared(path) {
		return false, fmt.Errorf("/%s is shared: it is the master's", path)
	}
	switch s.Kind {
	case layer.AsideOpaque, layer.AsideAttributes:
		if kind, _ := r.e.Kind(path); kind != vfs.Directory {
			return false, fmt.Errorf("/%s is no directory now", path)
		}
		return false, nil
	}
	if len(path) > layer.PathMax {
		return false, vfs.ENAMETOOLONG
	}
	for up := parentPath(path); up != ""; up = parentPath(up) {
		if kind, ok := r.e.Kind(up); ok {
			if kind != vfs.Directory {
				return false, fmt.Errorf("/%s is no directory now", up)
			}
			break
		}
	}
	have, ok := r.e.At(path)
	return ok && (have.Kind() != 0 || have.Whiteout()), nil
}

func (r *restore) entry(b *Restored) error {
	if err := r.r.Fault("in restore"); err != nil {
		return err
	}
	switch b.Saved.Kind {
	case layer.AsideOpaque:
		return r.opaque(&b.Saved)
	case layer.AsideAttributes:
		return r.attributes(&b.Saved)
	}
	have, release, err := r.e.Prepare(b.Path)
	if err != nil {
		return err
	}
	defer release()
	from, err := r.e.OpenSaved(&b.Saved)
	if err != nil {
		return err
	}
	name := baseName(b.Saved.Path)
	switch {
	case b.Saved.Kind == layer.AsideRemoval && !have.Covers():
		if have.Kind() != 0 {
			if err := r.e.SetAside(have); err != nil {
				return err
			}
		}
		err = unix.Unlinkat(from, name, 0) // there is nothing for it to hide
	case b.Saved.Type == vfs.Directory:
		if b.Path != b.Saved.Path {
			err = dropPathIDs(from, name)
		}
		if err == nil {
			err = r.fitDirectory(have, from, name)
		}
		if err == nil {
			b.Displaced, err = r.e.Put(from, name, have)
		}
	default:
		b.Displaced, err = r.e.Put(from, name, have)
	}
	if err == nil {
		r.pruneSaved(b.Saved.Stamp, b.Saved.Path)
	}
	return err
}

// dropPathIDs removes the ids of a directory, and of those in it, that follow from their paths. At another path
// they get new ones, for the version may have directories at the old paths.
func dropPathIDs(dir int, name string) error {
	fd, err := layer.Dir(dir).Enter(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	at := layer.At(fd, ".")
	if id, _, ok, err := at.ID(make([]byte, 64)); err == nil && ok && id&fileid.InLayer == 0 {
		if err := at.DropID(); err != nil {
			return err
		}
	}
	names, err := layer.Dir(fd).Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, n, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if vfs.TypeOf(st.Mode) == vfs.Directory {
			if err := dropPathIDs(fd, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// fitDirectory prepares the saved directory name for the layer. If it merged with the version's directory of
// its path, and there is one, it merges again. Every other directory hides what the version has there.
func (r *restore) fitDirectory(have replica.LayerEntry, from int, name string) error {
	fd, err := layer.Dir(from).Enter(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	at, path := layer.At(fd, "."), have.Path()
	id, _, ok, err := at.ID(make([]byte, 64))
	merges := have.VersionKind() == vfs.Directory && err == nil && ok && id == fileid.OfDir(path) && !at.Opaque()
	if !merges && have.Covers() {
		if err := at.SetOpaque(); err != nil {
			return err
		}
	}
	return r.fitWhiteouts(fd, path, merges)
}

// fitWhiteouts removes whiteouts in an open directory and below that would hide nothing of the version:
// overlayfs would list their names. path is where the directory is to be, merges whether it merges with the
// version's.
func (r *restore) fitWhiteouts(fd int, path string, merges bool) error {
	names, err := layer.Dir(fd).Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		at := image.JoinPath(path, name)
		var below vfs.Attr
		hides := merges && r.e.VersionEntry(at, &below)
		switch {
		case layer.IsWhiteout(&st) && !hides:
			err = layer.Dir(fd).KeepTimes(func() error { return unix.Unlinkat(fd, name, 0) })
		case vfs.TypeOf(st.Mode) == vfs.Directory:
			err = r.fitBelow(fd, name, at, hides && below.Type == vfs.Directory)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *restore) fitBelow(dir int, name, path string, merges bool) error {
	fd, err := layer.Dir(dir).Enter(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return r.fitWhiteouts(fd, path, merges && !layer.At(fd, ".").Opaque())
}

// opaque makes a directory hide the version's again.
func (r *restore) opaque(s *layer.SetAside) error {
	if err := r.e.SetOpaque(s.Path); err != nil {
		return err
	}
	return r.dropMark(s)
}

// attributes gives a directory the owner and mode that the node had given it. What it has now is set aside.
func (r *restore) attributes(s *layer.SetAside) error {
	var st unix.Stat_t
	if err := r.root.Stat(r.home.Saved(s.ID(), s.Path), &st); err != nil {
		return err
	}
	if err := r.e.SetAttrs(s.Path, layer.AttrsOf(&st)); err != nil {
		return err
	}
	return r.dropMark(s)
}

// dropMark removes the mark of a directory in the saved area, that it was opaque or has other attributes, after
// it was restored or forgotten. It returns unix.ENODATA if the mark is gone.
func (l Layer) dropMark(s *layer.SetAside) error {
	fd, err := l.root.OpenDir(l.home.Saved(s.ID(), s.Path))
	if err != nil {
		return err
	}
	switch at := layer.At(fd, "."); {
	case s.Kind == layer.AsideOpaque && at.Opaque():
		err = at.DropOpaque()
	case s.Kind == layer.AsideAttributes && at.HasSavedMark():
		err = at.DropSavedMark()
	default:
		err = unix.ENODATA
	}
	unix.Close(fd)
	l.pruneSaved(s.Stamp, image.JoinPath(s.Path, "x"))
	return err
}

// pruneSaved removes the directories above path in the saved area of a stamp that are empty and have no marks.
func (l Layer) pruneSaved(stamp time.Time, path string) {
	for dir := path; dir != ""; {
		dir = parentPath(dir)
		full := l.home.Saved(layer.StampName(stamp), dir)
		fd, err := l.root.OpenDir(full)
		if err != nil {
			return
		}
		at := layer.At(fd, ".")
		needed := at.HasSavedMark() || at.Opaque()
		unix.Close(fd)
		if needed || l.root.Remove(full) != nil {
			return
		}
	}
}
