package replica

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// errNoLayer refuses changes of a version served read-only.
var errNoLayer = errors.New("a version has no layer")

// mend begins a change of r's layer that an administrator asked for: r is locked, and what has to make room goes to the saved area, with
// the given reason. It needs a finish.
func (r *Replica) mend(why string) (*asider, error) {
	if r.dir == "" {
		return nil, errNoLayer
	}
	o, err := r.begin()
	if err != nil {
		return nil, err
	}
	r.snaps.unchanged() // finish tells
	at := r.set.journal.stamp(r.set.now())
	return &asider{op: *o, at: at, dir: savedDir(at), why: why}, nil
}

// finish ends a mend. The layer is read anew by the next call.
func (a *asider) finish(err error) error {
	a.r.snaps.changed()
	a.r.forgetLayer()
	a.r.renewed = a.at
	a.others = true // attributes and whiteouts were changed too, and are noted nowhere
	if e := a.end(nil); err == nil {
		err = e
	}
	return err
}

// forgetLayer makes the next call read the layer of r, which is locked, from the disk: it was changed behind the places.
func (r *Replica) forgetLayer() {
	for _, all := range []map[image.ID]*object{r.objects, r.past.aside} {
		for _, o := range all {
			o.dead = true
			r.drop(o)
		}
	}
	r.elder = r.objects
	r.scanned, r.ready = false, false
}

// spotAt finds what shows at path.
func (r *Replica) spotAt(path string) (s spot, ok bool) {
	s, ok = r.root.spot()
	if path == "" {
		return s, ok
	}
	for name := range strings.SplitSeq(path, "/") {
		if !ok || r.kind(s) != vfs.Directory {
			return spot{}, false
		}
		s, ok = r.child(s, name)
	}
	return s, ok
}

// cleanPath returns path as places have it: without a leading slash. It refuses what is no path in a tree.
func cleanPath(path string) (string, error) {
	path = strings.Trim(path, "/")
	if path == "" {
		return "", nil
	}
	for name := range strings.SplitSeq(path, "/") {
		if checkName(name) != nil || isDot(name) {
			return "", fmt.Errorf("%q is no path from the root of a node", path)
		}
	}
	if len(path) > pathMax {
		return "", vfs.ENAMETOOLONG
	}
	return path, nil
}

func under(path, dir string) bool {
	return dir == "" || path == dir || strings.HasPrefix(path, dir) && path[len(dir)] == '/'
}

// makeParents returns the place of the directory that path stands in, making those that are missing.
func (a *asider) makeParents(path string) (*place, error) {
	d, _ := a.r.root.spot()
	p := a.r.place(d)
	dir := parentPath(path)
	if dir == "" {
		return p, a.raise(p)
	}
	for name := range strings.SplitSeq(dir, "/") {
		next, ok := a.r.child(d, name)
		if ok && a.r.kind(next) != vfs.Directory {
			return nil, fmt.Errorf("/%s is no directory", image.JoinPath(p.path(), name))
		}
		if ok {
			p, d = a.r.place(next), next
			continue
		}
		fd, err := a.op.dir(p)
		if err != nil {
			return nil, err
		}
		k := a.r.need(p, name, lower.Hash(name))
		m := &mold{kind: vfs.Directory, mode: 0o755, id: newID(), opaque: k.covers()}
		if _, err := a.makeAt(k, fd, m); err != nil {
			a.r.prune(k)
			return nil, err
		}
		p = k
		d, _ = k.spot()
	}
	return p, a.raise(p)
}

// swapIn moves name from the open directory from, which is in the saved area, to the place p, and what the layer has there to the saved
// area, in one step where the file system can.
func (a *asider) swapIn(p *place, from int, name string) (displaced bool, err error) {
	dir, err := a.op.dir(p.up)
	if err != nil {
		return false, err
	}
	if p.obj == nil && !p.white {
		return false, renameNew(from, name, dir, p.name)
	}
	kind := AsideEntry
	if p.white {
		kind = AsideRemoval
	}
	err = unix.Renameat2(from, name, dir, p.name, unix.RENAME_EXCHANGE)
	if err == unix.EINVAL { // a file system that cannot swap
		if err := a.move(p, kind); err != nil {
			return false, err
		}
		return true, renameNew(from, name, dir, p.name)
	}
	if err != nil {
		return false, err
	}
	path := p.path()
	to, err := a.saved(parentPath(path))
	if err != nil {
		return true, err
	}
	if err := unix.Renameat(from, name, to, p.name); err != nil {
		return true, fmt.Errorf("set aside %s: %w", path, err)
	}
	a.note(path, kind)
	a.r.moved(p, a.dir)
	return true, nil
}

// savedParent opens the directory of the saved area that s stands in, to be synced.
func (a *asider) savedParent(s *SetAside) (int, error) {
	dir := "saved/" + s.ID()
	if up := parentPath(s.Path); up != "" {
		dir += "/" + up
	}
	f, err := a.r.set.files.Get(a.r.asideKey(dir), func() (int, error) { return a.r.set.openBeneath(a.r.dir+"/"+dir, openDir) })
	if err != nil {
		return -1, err
	}
	a.sync(f)
	return f.FD, nil
}

// pruneSaved removes the directories above path in the saved area of a stamp that nothing is in any more, and that say nothing by
// themselves.
func (r *Replica) pruneSaved(at time.Time, path string) {
	for dir := path; dir != ""; {
		dir = parentPath(dir)
		full := r.dir + "/saved/" + stampName(at)
		if dir != "" {
			full += "/" + dir
		}
		fd, err := r.set.openBeneath(full, openDir)
		if err != nil {
			return
		}
		speaks := hasXattr(fd, ".", xattrSaved) || hasXattr(fd, ".", xattrOpaque)
		unix.Close(fd)
		if speaks || r.set.rmdir(full) != nil {
			return
		}
	}
}

// rmdir removes an empty directory, by its path from the set's.
func (s *Set) rmdir(path string) error {
	up, err := s.openBeneath(parentPath(path), openDir)
	if err != nil {
		return err
	}
	defer unix.Close(up)
	return unix.Unlinkat(up, path[len(parentPath(path))+1:], unix.AT_REMOVEDIR)
}
