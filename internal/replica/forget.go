package replica

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/vfs"
)

// Oblivion says what is to be removed from the saved area for good.
type Oblivion struct {
	Path   string    // what is at or below it
	From   string    // of the stamps that begin so
	Before time.Time // of stamps earlier than this; zero: of any
	Dry    bool      // only tell what would go
}

// Forget removes what was set aside, and returns what that was. Who has it open loses it. The replica is locked while it is moved out of the
// way, not while it is removed, which of a large tree takes long.
func (r *Replica) Forget(q Oblivion) ([]SetAside, error) {
	path, err := cleanPath(q.Path)
	if err != nil {
		return nil, err
	}
	if r.dir == "" {
		return nil, errNoLayer
	}
	saved, err := r.Saved()
	if err != nil {
		return nil, err
	}
	var list []SetAside
	for _, s := range saved {
		if under(s.Path, path) && strings.HasPrefix(s.ID(), q.From) && (q.Before.IsZero() || s.Stamp.Before(q.Before)) {
			list = append(list, s)
		}
	}
	if q.Dry || len(list) == 0 {
		return list, nil
	}
	list, err = r.forgetAll(list)
	return list, errors.Join(err, r.sweepBuried())
}

// forgetAll takes the entries in list that are still there off the saved area, and returns them.
func (r *Replica) forgetAll(list []SetAside) (gone []SetAside, err error) {
	b, err := r.burial()
	if err != nil {
		return nil, err
	}
	defer b.end()
	for i := range list {
		err := b.forget(&list[i])
		if err == unix.ENOENT || err == unix.ENODATA {
			continue // it was restored, or forgotten, meanwhile
		}
		if err != nil {
			return gone, err
		}
		gone = append(gone, list[i])
	}
	return gone, nil
}

// burial moves what is to be forgotten out of the way. The replica is locked.
//
// A file by whose id the version's own goes by another one stays, without content: else that id would be taken back from a node that has the
// file open. Where it has a further name, in the layer or set aside, that keeps the id, and the content.
type burial struct {
	a     asider
	area  int             // the open directory saved/
	stays map[string]bool // paths, from the replica's directory, of files that may stay, and of the directories above them
	whole bool            // no such file has further names: directories without one go as they are
	moved bool
}

// buriedMark begins the name in saved/ of what is out of the way.
const buriedMark = "#gone-"

func (r *Replica) burial() (*burial, error) {
	if err := r.lock(); err != nil {
		return nil, err
	}
	area, err := r.set.openBeneath(r.dir+"/saved", openDir)
	if err != nil {
		r.mu.Unlock()
		return nil, err
	}
	b := &burial{a: asider{op: op{r: r}}, area: area, stays: make(map[string]bool), whole: true}
	for id, o := range r.past.aside {
		if !r.past.aliased(id) {
			continue
		}
		var st unix.Stat_t
		if err := r.set.stat(r.dir+"/"+o.aside, &st); err != nil || st.Nlink > 1 {
			b.whole = false
		}
		for path := o.aside; path != "" && !b.stays[path]; path = parentPath(path) {
			b.stays[path] = true
		}
	}
	return b, nil
}

// end unlocks the replica, whose saved area is read anew by the next call when it has changed.
func (b *burial) end() {
	r := b.a.r
	if b.moved {
		r.forgetLayer()
	}
	unix.Close(b.area)
	b.a.release()
	r.mu.Unlock()
}

// forget moves one entry of the saved area out of the way.
func (b *burial) forget(s *SetAside) error {
	r := b.a.r
	if err := r.set.crash("in forget"); err != nil {
		return err
	}
	switch s.Kind {
	case AsideOpaque:
		b.moved = true
		return b.a.spent(s, xattrOpaque)
	case AsideAttributes:
		b.moved = true
		return b.a.spent(s, xattrSaved)
	}
	dir, err := b.a.savedParent(s)
	if err != nil {
		return err
	}
	name := s.Path[strings.LastIndexByte(s.Path, '/')+1:]
	if _, err := b.bury(dir, name, "saved/"+s.ID()+"/"+s.Path); err != nil {
		return err
	}
	r.pruneSaved(s.Stamp, s.Path)
	return nil
}

// bury moves name, with all that is in it, from an open directory of the saved area out of the way. path is where that is, from the replica's
// directory.
func (b *burial) bury(dir int, name, path string) (kept bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	isDir := vfs.TypeOf(st.Mode) == vfs.Directory
	switch {
	case b.whole && !b.stays[path]:
		return false, b.away(dir, name)
	case isDir:
		return b.buryDir(dir, name, path)
	}
	v, err := getXattr(dir, name, xattrID, make([]byte, 64))
	id, _, ok := parseIDValue(v)
	if err != nil || !ok || !b.a.r.past.aliased(id) {
		return false, b.away(dir, name)
	}
	b.moved = true
	if st.Nlink > 1 {
		return false, unix.Unlinkat(dir, name, 0) // out of the way it would still be a name
	}
	if hasXattr(dir, name, xattrSaved) {
		return true, nil
	}
	if err := unix.Lsetxattr(procPath(dir, name), xattrSaved, []byte("forgotten"), 0); err != nil {
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

// away moves name out of the way, to be removed by sweepBuried.
func (b *burial) away(dir int, name string) error {
	b.moved = true
	return unix.Renameat(dir, name, b.area, fmt.Sprintf("%s%016x", buriedMark, uint64(newID())))
}

func (b *burial) buryDir(dir int, name, path string) (kept bool, err error) {
	fd, err := unix.Openat(dir, name, openDir|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	names, err := listDir(fd)
	if err != nil {
		return false, err
	}
	for _, n := range names {
		k, err := b.bury(fd, n, path+"/"+n)
		if err != nil {
			return kept, err
		}
		kept = kept || k
	}
	if kept {
		err := unix.Lremovexattr(procPath(dir, name), xattrID) // there for what is in it, from now on
		if err == unix.ENODATA {
			err = nil
		}
		return true, err
	}
	b.moved = true
	return false, unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

// sweepBuried removes what is out of the way, by this process or one that a crash has ended. It needs no lock of r.
func (r *Replica) sweepBuried() error { return r.sweepArea("saved", buriedMark) }

// aliased reports whether the version's entry of this id goes by another one.
func (p *past) aliased(id image.ID) bool {
	_, ok := p.aliases[id]
	return ok && id&image.Born == 0
}

// Expire removes what was set aside longer ago than each replica's rule says, and snapshots. It returns how many entries of the saved area went.
func (s *Set) Expire() (gone int, err error) {
	s.mu.RLock()
	var all []*Replica
	for _, r := range s.replicas {
		if r.dir != "" {
			all = append(all, r)
		}
	}
	s.mu.RUnlock()
	var errs []error
	for _, r := range all {
		n, err := r.expire(s.now())
		gone += n
		errs = append(errs, err, r.sweepBuried())
	}
	return gone, errors.Join(append(errs, s.expireSnapshots(all))...)
}

func (r *Replica) expire(now time.Time) (int, error) {
	r.mu.RLock()
	before := now.Add(-r.rules.savedFor())
	r.mu.RUnlock()
	stamps, err := r.stamps("saved")
	if err != nil || len(stamps) == 0 || !stamps[len(stamps)-1].Before(before) {
		return 0, err
	}
	list, err := r.Forget(Oblivion{Before: before, Dry: true})
	if err != nil {
		return 0, err
	}
	if err := r.buryStamps(stamps, before); err != nil {
		return 0, err
	}
	if len(list) > 0 {
		r.set.log.Info("set-aside copies removed after their time", "replica", r.dir, "entries", len(list))
	}
	return len(list), nil
}

// buryStamps moves all that was set aside at a stamp before a time out of the way.
func (r *Replica) buryStamps(stamps []time.Time, before time.Time) error {
	b, err := r.burial()
	if err != nil {
		return err
	}
	defer b.end()
	for _, at := range stamps {
		if !at.Before(before) {
			continue
		}
		if err := r.set.crash("in expire"); err != nil {
			return err
		}
		if _, err := b.bury(b.area, stampName(at), "saved/"+stampName(at)); err != nil && err != unix.ENOENT {
			return err
		}
	}
	return nil
}
