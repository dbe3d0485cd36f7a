package replica

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/vfs"
)

// swapMark begins the name in saved/ of a layer that is being built, and of the one whose place it has taken until that is sifted. They are told
// apart by trusted.dim.why, which only a layer that was in use gets.
const swapMark = "#swap-"

func stampOf(at int64) string { return stampName(time.Unix(0, at)) }

// swapDirs swaps two directories, in one step where the file system can. Where it cannot, a crash may come between the two steps: then
// all that the layer had is in the saved area.
func swapDirs(area int, built string, dir int, upper, stamp string) error {
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

// endSwaps completes what a crash has left of a Rewind: a layer whose place was taken is sifted, one that was being built is removed.
func (r *Replica) endSwaps() error {
	area, err := r.set.openBeneath(r.dir+"/saved", openDir)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(area)
	names, err := listDir(area)
	if err != nil {
		return err
	}
	for _, name := range names {
		stamp, is := strings.CutPrefix(name, swapMark)
		if !is {
			continue
		}
		if hasXattr(area, name, xattrWhy) {
			err = r.endSwap(area, stamp)
		} else {
			err = removeAll(area, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// endSwap makes the layer whose place was taken a part of the saved area: what has gone to the new layer is taken off it.
func (r *Replica) endSwap(area int, stamp string) error {
	s := sifter{r: r, old: r.dir + "/saved/" + swapMark + stamp}
	left, err := s.dir("", true)
	if err != nil {
		return err
	}
	if !left {
		err = unix.Unlinkat(area, swapMark+stamp, unix.AT_REMOVEDIR)
	} else {
		err = unix.Renameat(area, swapMark+stamp, area, stamp)
	}
	return errors.Join(err, r.set.settle(area))
}

// sifter takes off an older layer what is in the present one too. It may be broken off anywhere and begun again.
type sifter struct {
	r   *Replica
	old string // from the set's directory
}

// dir treats the directory of a path, and reports whether anything is left of it. there says whether the present layer has a directory at
// the path.
func (s *sifter) dir(path string, there bool) (left bool, err error) {
	if err := s.r.set.crash("in sift"); err != nil {
		return true, err
	}
	old, err := s.r.set.openBeneath(strings.TrimSuffix(s.old+"/"+path, "/"), openDir)
	if err != nil {
		return true, err
	}
	now := -1
	if there {
		if now, err = s.r.set.openBeneath(strings.TrimSuffix(s.r.dir+"/upper/"+path, "/"), openDir); err != nil {
			unix.Close(old)
			return true, err
		}
	}
	below, left, err := s.entries(path, old, now)
	if err == nil {
		var speaks bool
		speaks, err = s.loosen(path, old, now)
		left = left || speaks
	}
	unix.Close(old)
	if now >= 0 {
		unix.Close(now)
	}
	for _, d := range below {
		if err != nil {
			return true, err
		}
		var some bool
		if some, err = s.dir(d.path, d.there); err == nil && !some {
			err = s.r.set.rmdir(s.old + "/" + d.path)
		}
		left = left || some
	}
	return left, err
}

type sifted struct {
	path  string
	there bool
}

// entries unlinks the files that the present layer has too, and returns the directories to treat.
func (s *sifter) entries(path string, old, now int) (below []sifted, left bool, err error) {
	names, err := listDir(old)
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
			if there || s.merged(at, old, name) {
				below = append(below, sifted{at, there})
				continue
			}
			left = true
		case there && (was.Ino == is.Ino && was.Dev == is.Dev || isWhiteout(&was) && isWhiteout(&is)):
			if err := unix.Unlinkat(old, name, 0); err != nil {
				return nil, true, err
			}
		default:
			left = true
		}
	}
	return below, left, nil
}

// merged reports whether a directory of the older layer was there for what is in it alone.
func (s *sifter) merged(path string, dir int, name string) bool {
	v, err := getXattr(dir, name, xattrID, make([]byte, 64))
	id, _, ok := parseIDValue(v)
	return (err != nil || ok && id == image.DirID(path)) && !hasXattr(dir, name, xattrOpaque)
}

// loosen makes a directory one that is in the saved area for what is in it, and perhaps for what the node had made of it: other attributes than
// it has now, or that it hid the version's.
func (s *sifter) loosen(path string, old, now int) (speaks bool, err error) {
	at := procPath(old, ".")
	if err := unix.Lremovexattr(at, xattrID); err != nil && err != unix.ENODATA {
		return true, err
	}
	if now >= 0 && hasXattr(now, ".", xattrOpaque) {
		if err := unix.Lremovexattr(at, xattrOpaque); err != nil && err != unix.ENODATA {
			return true, err
		}
	}
	mine, err := attrsAt(old)
	if err != nil {
		return true, err
	}
	theirs := s.r.lowAttrs(&place{low: s.r.lowAt(path)})
	if now >= 0 {
		is, err := attrsAt(now)
		if err != nil {
			return true, err
		}
		theirs = &is
	}
	if theirs != nil && mine != *theirs {
		return true, unix.Lsetxattr(at, xattrSaved, []byte(AsideAttributes), 0)
	}
	return hasXattr(old, ".", xattrOpaque), nil
}

func attrsAt(dir int) (dirAttrs, error) {
	var st unix.Stat_t
	err := unix.Fstat(dir, &st)
	return dirAttrs{st.Mode & 0o7777, st.Uid, st.Gid}, err
}

// sameContent compares two regular files by their bytes, and symbolic links by where they lead. Everything else has no content.
func sameContent(dirA int, a string, dirB int, b string) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dirA, a, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, err
	}
	switch vfs.TypeOf(st.Mode) {
	case vfs.Symlink:
		ta, err := os.Readlink(procPath(dirA, a))
		if err != nil {
			return false, err
		}
		tb, err := os.Readlink(procPath(dirB, b))
		return ta == tb, err
	case vfs.Regular:
		return sameBytes(dirA, a, dirB, b)
	}
	return true, nil
}

func sameBytes(dirA int, a string, dirB int, b string) (bool, error) {
	var files [2]*os.File
	for i, dir := range []int{dirA, dirB} {
		name := []string{a, b}[i]
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOATIME|unix.O_CLOEXEC, 0)
		if err != nil {
			return false, err
		}
		files[i] = os.NewFile(uintptr(fd), name)
		defer files[i].Close()
	}
	bufs := [2][]byte{make([]byte, 64<<10), make([]byte, 64<<10)}
	for {
		n, errA := io.ReadFull(files[0], bufs[0])
		m, errB := io.ReadFull(files[1], bufs[1])
		if !bytes.Equal(bufs[0][:n], bufs[1][:m]) {
			return false, nil
		}
		for _, err := range []error{errA, errB} {
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				return true, nil
			}
			if err != nil {
				return false, err
			}
		}
	}
}
