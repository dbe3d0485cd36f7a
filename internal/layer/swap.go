package layer

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/vfs"
)

// swapMark begins the names in the saved area of a layer that is being built, and of one that was replaced and
// is not deduped yet. Only the latter, which was in use, has trusted.dim.why.
const swapMark = "#swap-"

// Swap replaces a layer by one that was built beside it. A crash leaves the one or the other.
type Swap struct {
	Root Dir
	Home Home

	VersionDir func(path string) (Attrs, bool)       // attributes of the version's directory at a path of the layer
	Sync       func(dir int) error                   // makes the names in an open directory durable
	Fault      func(point string) error              // see replica.Options
	MakePath   func(path string) (fd int, err error) // makes a directory, relative to Root
}

// Begin makes the directory in which the new layer is to be built, and returns its path from the root. stamp is
// the time of the swap.
func (s *Swap) Begin(stamp string) (path string, err error) {
	path = s.Home.Saved(swapMark + stamp)
	fd, err := s.MakePath(path)
	if err == nil {
		unix.Close(fd)
	}
	return path, err
}

// Abandon removes what was built.
func (s *Swap) Abandon(stamp string) error {
	area, err := s.Root.OpenDir(s.Home.Saved())
	if err != nil || s.Fault("in abandon") != nil {
		return nil // the next start does
	}
	defer unix.Close(area)
	return Dir(area).RemoveAll(swapMark + stamp)
}

// Do replaces the present layer by the one that was built. What the new one does not have is moved to the saved
// area, with why as the reason.
func (s *Swap) Do(stamp, why string) error {
	dir, err := s.MakePath(string(s.Home))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	area, err := s.MakePath(s.Home.Saved())
	if err != nil {
		return err
	}
	defer unix.Close(area)
	if err := s.Fault("before swap"); err != nil {
		return err
	}
	if there, err := s.Root.Exists(s.Home.Upper("")); err != nil {
		return err
	} else if !there {
		return s.put(area, dir, stamp)
	}
	if err := At(dir, upper).SetWhy(why); err != nil {
		return err
	}
	if err := exchange(area, swapMark+stamp, dir, stamp); err != nil {
		return err
	}
	if err := errors.Join(s.Sync(area), s.Sync(dir)); err != nil {
		return err
	}
	if err := s.Fault("after swap"); err != nil {
		return err
	}
	return s.finish(area, stamp)
}

// put is Do for a node that has no layer.
func (s *Swap) put(area, dir int, stamp string) error {
	fd, err := s.MakePath(s.Home.Work())
	if err != nil {
		return err
	}
	unix.Close(fd)
	if err := Dir(area).RenameNew(swapMark+stamp, Dir(dir), upper); err != nil {
		return err
	}
	return errors.Join(s.Sync(area), s.Sync(dir))
}

// exchange swaps the layer that was built and the present one, in one step if the file system can. If it
// cannot, a crash may come between the steps: then all that the layer had is in the saved area.
func exchange(area int, built string, dir int, stamp string) error {
	err := unix.Renameat2(area, built, dir, upper, unix.RENAME_EXCHANGE)
	if err != unix.EINVAL {
		return err
	}
	old := built + "~"
	if err := unix.Renameat(dir, upper, area, stamp); err != nil {
		return err
	}
	if err := unix.Renameat(area, built, dir, upper); err != nil {
		return err
	}
	if err := unix.Renameat(area, stamp, area, old); err != nil {
		return err
	}
	return unix.Renameat(area, old, area, built)
}

// Recover completes a swap that a crash has interrupted: a layer that was replaced is deduped, one that was
// being built is removed.
func (s *Swap) Recover() error {
	area, err := s.Root.OpenDir(s.Home.Saved())
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(area)
	names, err := Dir(area).Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		stamp, is := strings.CutPrefix(name, swapMark)
		if !is {
			continue
		}
		if At(area, name).has(xattrWhy) {
			err = s.finish(area, stamp)
		} else {
			err = Dir(area).RemoveAll(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// finish makes the layer that was replaced a part of the saved area, without what the new layer has too.
func (s *Swap) finish(area int, stamp string) error {
	d := dedupe{Swap: s, old: s.Home.Saved(swapMark + stamp)}
	left, err := d.dir("", true)
	if err != nil {
		return err
	}
	if !left {
		err = unix.Unlinkat(area, swapMark+stamp, unix.AT_REMOVEDIR)
	} else {
		err = unix.Renameat(area, swapMark+stamp, area, stamp)
	}
	return errors.Join(err, s.Sync(area))
}

// dedupe removes from a layer that was replaced what the present one has too. It may be interrupted anywhere
// and done again.
type dedupe struct {
	*Swap
	old string // relative to the root
}

// dir treats the directory path, and reports whether anything is left of it. there tells whether the present
// layer has a directory at the path.
func (d *dedupe) dir(path string, there bool) (left bool, err error) {
	if err := d.Fault("in dedupe"); err != nil {
		return true, err
	}
	old, err := d.Root.OpenDir(strings.TrimSuffix(d.old+"/"+path, "/"))
	if err != nil {
		return true, err
	}
	now := -1
	if there {
		if now, err = d.Root.OpenDir(d.Home.Upper(path)); err != nil {
			unix.Close(old)
			return true, err
		}
	}
	below, left, err := d.entries(path, old, now)
	if err == nil {
		var marked bool
		marked, err = d.mark(path, old, now)
		left = left || marked
	}
	unix.Close(old)
	if now >= 0 {
		unix.Close(now)
	}
	for _, b := range below {
		if err != nil {
			return true, err
		}
		var some bool
		if some, err = d.dir(b.path, b.there); err == nil && !some {
			err = d.Root.Remove(d.old + "/" + b.path)
		}
		left = left || some
	}
	return left, err
}

type dedupeDir struct {
	path  string
	there bool // the present layer has a directory at the path
}

// entries unlinks the files that the present layer has too, and returns the directories to treat.
func (d *dedupe) entries(path string, old, now int) (below []dedupeDir, left bool, err error) {
	names, err := Dir(old).Names()
	if err != nil {
		return nil, true, err
	}
	for _, name := range names {
		var was, is unix.Stat_t
		if err := unix.Fstatat(old, name, &was, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return nil, true, err
		}
		there := now >= 0 && unix.Fstatat(now, name, &is, unix.AT_SYMLINK_NOFOLLOW) == nil
		at := image.JoinPath(path, name)
		switch {
		case vfs.TypeOf(was.Mode) == vfs.Directory:
			there = there && vfs.TypeOf(is.Mode) == vfs.Directory
			if there || At(old, name).Merged(at) {
				below = append(below, dedupeDir{at, there})
				continue
			}
			left = true
		case there && (was.Ino == is.Ino && was.Dev == is.Dev || IsWhiteout(&was) && IsWhiteout(&is)):
			if err := unix.Unlinkat(old, name, 0); err != nil {
				return nil, true, err
			}
		default:
			left = true
		}
	}
	return below, left, nil
}

// mark prepares a directory for the saved area. It is there for what is in it. It may also stand for what the
// node had changed of it: other attributes than it has now, or that it hid the version's. mark reports whether
// it does.
func (d *dedupe) mark(path string, old, now int) (marked bool, err error) {
	at := At(old, ".")
	if err := at.DropID(); err != nil {
		return true, err
	}
	if now >= 0 && At(now, ".").Opaque() {
		if err := at.DropOpaque(); err != nil {
			return true, err
		}
	}
	had, err := attrsAt(old)
	if err != nil {
		return true, err
	}
	has, ok := d.VersionDir(path)
	if now >= 0 {
		if has, err = attrsAt(now); err != nil {
			return true, err
		}
		ok = true
	}
	if ok && had != has {
		return true, at.SetAttributes()
	}
	return at.Opaque(), nil
}

func attrsAt(dir int) (Attrs, error) {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return Attrs{}, fmt.Errorf("read attributes: %w", err)
	}
	return AttrsOf(&st), nil
}
