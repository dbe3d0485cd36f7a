package replica

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// Restoration says which set-aside entries are to come back.
type Restoration struct {
	Path string // they are at or below it
	From string // their stamp, or how it begins; "": of each path the latest
	To   string // a directory of the replica to put them in; "": where they were
	Dry  bool   // only tell what would be done
}

// Restored is a set-aside entry that came back.
type Restored struct {
	Saved     SetAside
	Path      string // where it stands now
	Displaced bool   // what the layer had there was set aside in its turn
}

// Restore moves set-aside entries back into the layer. For a node that runs it is as if it had written them itself; what the layer has
// there now is set aside. The handles of what comes back go on working.
func (r *Replica) Restore(q Restoration) ([]Restored, error) {
	a, err := r.mend("restore")
	if err != nil {
		return nil, err
	}
	plan, err := a.planRestore(&q)
	if err != nil || q.Dry {
		return plan, a.giveUp(err)
	}
	for i := range plan {
		if err = a.restore(&plan[i]); err != nil {
			err = fmt.Errorf("restore /%s: %w", plan[i].Saved.Path, err)
			plan = plan[:i]
			break
		}
	}
	return plan, a.finish(err)
}

// giveUp ends a mend that has changed nothing.
func (a *asider) giveUp(err error) error {
	a.r.mu.Unlock()
	a.release()
	return err
}

// planRestore chooses what is to come back, and finds what is in the way of it.
func (a *asider) planRestore(q *Restoration) ([]Restored, error) {
	path, err := cleanPath(q.Path)
	if err != nil {
		return nil, err
	}
	saved, err := a.r.saved()
	if err != nil {
		return nil, err
	}
	var plan []Restored
	from := make(map[string]string) // which goes to a path, with To
	for _, s := range chosen(saved, path, q.From) {
		to := s.Path
		if q.To != "" {
			if s.Kind != AsideEntry {
				continue // it says something about where it was
			}
			dir, err := cleanPath(q.To)
			if err != nil {
				return nil, err
			}
			to = image.JoinPath(dir, baseName(s.Path))
			if other, twice := from[to]; twice {
				return nil, fmt.Errorf("restore /%s: it and /%s would both be /%s: restore them one by one, to two directories", s.Path, other, to)
			}
			from[to] = s.Path
		}
		displaced, err := a.mayRestore(&s, to)
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

// ErrNotSaved tells that nothing of that path and stamp is set aside.
var ErrNotSaved = errors.New("nothing of it is set aside")

// chosen returns what is saved at or below path under the stamp, of each path the latest, and nothing that comes back with a directory.
func chosen(saved []SetAside, path, stamp string) []SetAside {
	var list []SetAside
	seen := make(map[string]bool)
	for _, s := range saved { // the latest first
		if under(s.Path, path) && strings.HasPrefix(s.ID(), stamp) && !seen[s.Path] {
			seen[s.Path] = true
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b SetAside) int { return image.ComparePaths(a.Path, b.Path) })
	whole := ""
	return slices.DeleteFunc(list, func(s SetAside) bool {
		if whole != "" && s.Path != whole && under(s.Path, whole) {
			return true
		}
		if s.Kind == AsideEntry || s.Kind == AsideRemoval {
			whole = s.Path
		}
		return false
	})
}

// mayRestore decides whether s can come back at path, and whether the layer has something there.
func (a *asider) mayRestore(s *SetAside, path string) (displaced bool, err error) {
	r := a.r
	if len(r.shared) > 0 && r.shared.Cover(path) {
		return false, fmt.Errorf("/%s is shared: it is the master's", path)
	}
	switch s.Kind {
	case AsideOpaque, AsideAttributes:
		at, ok := r.spotAt(path)
		if !ok || r.kind(at) != vfs.Directory {
			return false, fmt.Errorf("/%s is no directory now", path)
		}
		return false, nil
	}
	if len(path) > pathMax {
		return false, vfs.ENAMETOOLONG
	}
	for up := parentPath(path); up != ""; up = parentPath(up) {
		if at, ok := r.spotAt(up); ok {
			if r.kind(at) != vfs.Directory {
				return false, fmt.Errorf("/%s is no directory now", up)
			}
			break
		}
	}
	p := r.root
	for name := range strings.SplitSeq(path, "/") {
		if p = p.kid(name, lower.Hash(name)); p == nil {
			return false, nil
		}
	}
	return p.obj != nil || p.white, nil
}

func (a *asider) restore(b *Restored) error {
	if err := a.r.set.crash("in restore"); err != nil {
		return err
	}
	switch b.Saved.Kind {
	case AsideOpaque:
		return a.restoreOpaque(&b.Saved)
	case AsideAttributes:
		return a.restoreAttributes(&b.Saved)
	}
	up, err := a.makeParents(b.Path)
	if err != nil {
		return err
	}
	from, err := a.savedParent(&b.Saved)
	if err != nil {
		return err
	}
	name := b.Saved.Path[strings.LastIndexByte(b.Saved.Path, '/')+1:]
	base := b.Path[strings.LastIndexByte(b.Path, '/')+1:]
	p := a.r.need(up, base, lower.Hash(base))
	defer a.r.prune(p)
	switch {
	case b.Saved.Kind == AsideRemoval && !p.covers():
		if p.obj != nil {
			if err := a.move(p, AsideEntry); err != nil {
				return err
			}
		}
		err = unix.Unlinkat(from, name, 0) // there is nothing for it to hide
	case b.Saved.Type == vfs.Directory:
		if b.Path != b.Saved.Path {
			err = dropPathIDs(from, name)
		}
		if err == nil {
			err = a.fitDirectory(p, from, name)
		}
		if err == nil {
			b.Displaced, err = a.swapIn(p, from, name)
		}
	default:
		b.Displaced, err = a.swapIn(p, from, name)
	}
	if err == nil {
		a.r.pruneSaved(b.Saved.Stamp, b.Saved.Path)
	}
	return err
}

// dropPathIDs takes the ids off a directory, and those in it, that are the ids of their paths: at another path they get new ones, for the
// version may have directories at those.
func dropPathIDs(dir int, name string) error {
	fd, err := unix.Openat(dir, name, openDir|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	v, err := getXattr(fd, ".", xattrID, make([]byte, 64))
	if id, _, ok := parseIDValue(v); err == nil && ok && id&image.Born == 0 {
		if err := unix.Lremovexattr(procPath(fd, "."), xattrID); err != nil {
			return err
		}
	}
	names, err := listDir(fd)
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

// fitDirectory makes the saved directory name ready to stand at p. One that merged with the version's directory of its path does so again when
// there is one; every other hides what the version has there.
func (a *asider) fitDirectory(p *place, from int, name string) error {
	fd, err := unix.Openat(from, name, openDir|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	v, err := getXattr(fd, ".", xattrID, make([]byte, 64))
	id, _, ok := parseIDValue(v)
	low := p.low
	if err != nil || !ok || id != image.DirID(p.path()) || hasXattr(fd, ".", xattrOpaque) || low != lower.None && !a.r.view.index.IsDir(low) {
		low = lower.None
	}
	if low == lower.None && p.covers() {
		if err := unix.Lsetxattr(procPath(fd, "."), xattrOpaque, []byte("y"), 0); err != nil {
			return err
		}
	}
	return a.r.fitWhiteouts(fd, low)
}

// fitWhiteouts removes the whiteouts in and below an open directory that would hide nothing of the version's directory low: overlayfs would list
// their names where nothing merges.
func (r *Replica) fitWhiteouts(fd int, low lower.Ref) error {
	names, err := listDir(fd)
	if err != nil {
		return err
	}
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		below := lower.None
		if low != lower.None {
			below, _ = r.lowChild(low, name)
		}
		switch {
		case isWhiteout(&st) && below == lower.None:
			err = keepTimes(fd, func() error { return unix.Unlinkat(fd, name, 0) })
		case vfs.TypeOf(st.Mode) == vfs.Directory:
			err = r.fitBelow(fd, name, below)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Replica) fitBelow(dir int, name string, low lower.Ref) error {
	fd, err := unix.Openat(dir, name, openDir|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if low != lower.None && (!r.view.index.IsDir(low) || hasXattr(fd, ".", xattrOpaque)) {
		low = lower.None
	}
	return r.fitWhiteouts(fd, low)
}

// lowChild finds the version's entry name in its directory low.
func (r *Replica) lowChild(low lower.Ref, name string) (lower.Ref, bool) {
	ref, ok := r.view.index.Child(low, name, lower.Hash(name))
	if !ok {
		return lower.None, false
	}
	return ref, true
}

// restoreOpaque makes a directory hide the version's again.
func (a *asider) restoreOpaque(s *SetAside) error {
	at, _ := a.r.spotAt(s.Path)
	p := a.r.place(at)
	dir, err := a.op.dir(p)
	if err != nil {
		return err
	}
	m := renaming{op: &a.op}
	if err := m.nameBelow(p); err != nil {
		return err
	}
	if !p.obj.opaque {
		if err := unix.Lsetxattr(procPath(dir, "."), xattrOpaque, []byte("y"), 0); err != nil {
			return err
		}
		p.obj.opaque = true
		a.r.hide(p)
		if err := m.sweep(p); err != nil {
			return err
		}
	}
	return a.spent(s, xattrOpaque)
}

// restoreAttributes gives a directory the owner and mode that the node had given it. What it has now is set aside.
func (a *asider) restoreAttributes(s *SetAside) error {
	full := a.r.dir + "/saved/" + s.ID()
	if s.Path != "" {
		full += "/" + s.Path
	}
	was, err := a.r.set.openBeneath(full, openDir)
	if err != nil {
		return err
	}
	defer unix.Close(was)
	var old, now unix.Stat_t
	if err := unix.Fstat(was, &old); err != nil {
		return err
	}
	at, _ := a.r.spotAt(s.Path)
	p := a.r.place(at)
	dir, err := a.op.dir(p)
	if err != nil {
		return err
	}
	if err := unix.Fstat(dir, &now); err != nil {
		return err
	}
	mine := dirAttrs{now.Mode & 0o7777, now.Uid, now.Gid}
	if theirs := a.r.lowAttrs(p); theirs != nil && mine != *theirs {
		if err := a.keepAttributes(p, &now); err != nil {
			return err
		}
	}
	if err := unix.Fchown(dir, int(old.Uid), int(old.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(dir, old.Mode&0o7777); err != nil {
		return err
	}
	return a.spent(s, xattrSaved)
}

// lowAttrs returns the attributes of the version's directory at p, nil when there is none.
func (r *Replica) lowAttrs(p *place) *dirAttrs {
	if p.low == lower.None || !r.view.index.IsDir(p.low) {
		return nil
	}
	var a vfs.Attr
	r.view.index.Attr(p.low, &a)
	return &dirAttrs{a.Mode, a.UID, a.GID}
}

// spent takes what was restored of a directory off the saved area.
func (a *asider) spent(s *SetAside, attr string) error {
	full := a.r.dir + "/saved/" + s.ID()
	if s.Path != "" {
		full += "/" + s.Path
	}
	fd, err := a.r.set.openBeneath(full, openDir)
	if err != nil {
		return err
	}
	err = unix.Lremovexattr(procPath(fd, "."), attr)
	unix.Close(fd)
	a.r.pruneSaved(s.Stamp, image.JoinPath(s.Path, "x"))
	return err
}
