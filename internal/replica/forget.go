package replica

import (
	"errors"
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

// Forget removes what was set aside, and returns what that was. Who has it open loses it.
func (r *Replica) Forget(q Oblivion) ([]SetAside, error) {
	path, err := cleanPath(q.Path)
	if err != nil {
		return nil, err
	}
	if r.dir == "" {
		return nil, errNoLayer
	}
	if err := r.lock(); err != nil {
		return nil, err
	}
	defer r.mu.Unlock()
	saved, err := r.saved()
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
	for i := range list {
		if e := r.forgetOne(&list[i]); e != nil {
			err = e
			break
		}
	}
	r.forgetLayer()
	return list, err
}

// forgetOne removes one entry of the saved area.
func (r *Replica) forgetOne(s *SetAside) error {
	a := asider{op: op{r: r}}
	defer a.release()
	switch s.Kind {
	case AsideOpaque:
		return a.spent(s, xattrOpaque)
	case AsideAttributes:
		return a.spent(s, xattrSaved)
	}
	dir, err := a.savedParent(s)
	if err != nil {
		return err
	}
	name := s.Path[strings.LastIndexByte(s.Path, '/')+1:]
	if _, err := r.bury(dir, name); err != nil {
		return err
	}
	r.pruneSaved(s.Stamp, s.Path)
	return nil
}

// bury removes name, with all that is in it, from an open directory of the saved area. A file by whose id the version's own goes by
// another one stays, without content: else that id would be taken back from a node that has the file open. Where it has a further name, in the
// layer or set aside, that keeps the id, and the content.
func (r *Replica) bury(dir int, name string) (kept bool, err error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	if typeOf(st.Mode) == vfs.Directory {
		return r.buryDir(dir, name)
	}
	v, err := getXattr(dir, name, xattrID, make([]byte, 64))
	id, _, ok := parseIDValue(v)
	if err != nil || !ok || st.Nlink > 1 || !r.past.aliased(id) {
		return false, unix.Unlinkat(dir, name, 0)
	}
	if err := unix.Lsetxattr(procPath(dir, name), xattrSaved, []byte("forgotten"), 0); err != nil {
		return true, err
	}
	if typeOf(st.Mode) != vfs.Regular {
		return true, nil
	}
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return true, err
	}
	return true, unix.Close(fd)
}

func (r *Replica) buryDir(dir int, name string) (kept bool, err error) {
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
		k, err := r.bury(fd, n)
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
	return false, unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
}

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
		errs = append(errs, err)
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
	if err := r.lock(); err != nil {
		return 0, err
	}
	defer r.mu.Unlock()
	defer r.forgetLayer()
	dir, err := r.set.openBeneath(r.dir+"/saved", openDir)
	if err != nil {
		return 0, err
	}
	defer unix.Close(dir)
	for _, at := range stamps {
		if !at.Before(before) {
			continue
		}
		if _, err := r.bury(dir, stampName(at)); err != nil {
			return 0, err
		}
	}
	if len(list) > 0 {
		r.set.log.Info("set-aside copies removed after their time", "replica", r.dir, "entries", len(list))
	}
	return len(list), nil
}
