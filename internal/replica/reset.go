package replica

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// Reset sets aside what the layer has at and below the paths, or when none are given the whole layer, so that the version and the node
// files show again. What it returns is listed by Saved from then on; a dry run only tells it.
//
// The whole layer goes in one step. A node that runs meanwhile keeps the files that it has open.
func (r *Replica) Reset(paths []string, dry bool) ([]SetAside, error) {
	clean := make([]string, len(paths))
	for i, p := range paths {
		var err error
		if clean[i], err = cleanPath(p); err != nil {
			return nil, err
		}
	}
	if len(clean) == 0 || slices.Contains(clean, "") {
		return r.resetAll(dry)
	}
	a, err := r.mend("reset")
	if err != nil {
		return nil, err
	}
	if a.dry = dry; !dry {
		a.keepFirst()
	}
	for _, path := range clean {
		if p := r.placeAt(path); p != nil && err == nil {
			if err = a.reset(p); err != nil {
				err = fmt.Errorf("reset /%s: %w", path, err)
			}
		}
	}
	if dry {
		return a.list, a.giveUp(err)
	}
	return a.list, a.finish(err)
}

// reset sets aside what the layer has at p and below. Directories that merge stay, with the version's owner and mode.
func (a *asider) reset(p *place) error {
	switch {
	case p.white:
		return a.take(p, AsideRemoval)
	case p.obj != nil && !(p.obj.kind == vfs.Directory && p.merges() && (p.up == nil || p.low != lower.None && a.r.view.index.IsDir(p.low))):
		return a.take(p, AsideEntry)
	}
	if p.obj != nil {
		if err := a.resetAttributes(p); err != nil {
			return err
		}
	}
	for _, k := range slices.Clone(p.kids) {
		if err := a.reset(k); err != nil {
			return err
		}
	}
	return nil
}

// take moves p to the saved area, or in a dry run notes that it would.
func (a *asider) take(p *place, kind AsideKind) error {
	if a.dry {
		a.note(p.path(), kind)
		return nil
	}
	return a.move(p, kind)
}

func (a *asider) resetAttributes(p *place) error {
	theirs := a.r.lowAttrs(p)
	var st unix.Stat_t
	if err := a.r.stat(p.obj, &st); err != nil || theirs == nil {
		return err
	}
	if (dirAttrs{st.Mode & 0o7777, st.Uid, st.Gid}) == *theirs {
		return nil
	}
	if a.dry {
		a.note(p.path(), AsideAttributes)
		return nil
	}
	if err := a.keepAttributes(p, &st); err != nil {
		return err
	}
	fd, err := a.op.dir(p)
	if err != nil {
		return err
	}
	if err := unix.Fchown(fd, int(theirs.uid), int(theirs.gid)); err != nil {
		return err
	}
	return unix.Fchmod(fd, theirs.mode)
}

// resetAll sets the whole layer aside.
func (r *Replica) resetAll(dry bool) ([]SetAside, error) {
	a, err := r.mend("reset")
	if err != nil {
		return nil, err
	}
	a.dry = true // for the list
	if err := a.reset(r.root); err != nil || dry || len(a.list) == 0 {
		return a.list, a.giveUp(err)
	}
	a.keepFirst()
	return a.list, a.finish(a.dropLayer())
}

// dropLayer moves the layer to the saved area, by one rename.
// Everything that the replica shows gets a new ctime first: what shows afterwards may be older than what a client has seen.
func (a *asider) dropLayer() error {
	r := a.r
	if err := r.set.crash("before reset"); err != nil {
		return err
	}
	if err := r.renew(a.at); err != nil {
		return err
	}
	dir, err := r.set.makePath(r.dir)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	area, err := r.set.makePath(r.dir + "/saved")
	if err != nil {
		return err
	}
	defer unix.Close(area)
	if r.root.obj != nil {
		if err := a.loosen(r.root); err != nil {
			return err
		}
		f, err := r.layerDir(r.root)
		if err != nil {
			return err
		}
		if err := unix.Lsetxattr(procPath(f.FD, "."), xattrWhy, []byte(a.why), 0); err != nil {
			f.Release()
			return err
		}
		a.sync(f)
	}
	if err := r.set.crash("in reset"); err != nil {
		return err
	}
	if err := unix.Renameat(dir, "upper", area, stampName(time.Unix(0, a.at))); err != nil {
		return fmt.Errorf("set the layer aside: %w", err)
	}
	return errors.Join(r.set.settle(area), r.set.settle(dir))
}

// settle syncs an open directory, when replies promise that.
func (s *Set) settle(dir int) error {
	if s.least == Relaxed {
		return nil
	}
	return fsync(dir)
}

// loosen makes the directories at and below p that merge with the version's ready for the saved area, where a directory with an id is
// an entry as a whole: they are there for what is in them, and perhaps for the attributes that the node has given them.
func (a *asider) loosen(p *place) error {
	if p.obj == nil || p.obj.kind != vfs.Directory || p.obj.opaque || p.obj.id != image.DirID(p.path()) && p.up != nil {
		return nil
	}
	f, err := a.r.layerDir(p)
	if err != nil {
		return err
	}
	defer f.Release()
	at := procPath(f.FD, ".")
	if err := unix.Lremovexattr(at, xattrID); err != nil && err != unix.ENODATA {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.FD, &st); err != nil {
		return err
	}
	if theirs := a.r.lowAttrs(p); theirs != nil && (dirAttrs{st.Mode & 0o7777, st.Uid, st.Gid}) != *theirs {
		if err := unix.Lsetxattr(at, xattrSaved, []byte(AsideAttributes), 0); err != nil {
			return err
		}
	}
	for _, k := range p.kids {
		if err := a.loosen(k); err != nil {
			return err
		}
	}
	return nil
}

// renew gives everything of r, which is locked, that is not in the layer a ctime of at least at, for good.
func (r *Replica) renew(at int64) error {
	if err := r.set.journal.renew(r.dir, at, r.set.now().Add(-r.set.retain.Age).UnixNano(), r.set.retain.Switches); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	r.past.made = max(r.past.made, at)
	return nil
}
