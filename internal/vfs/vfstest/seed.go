package vfstest

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/vfs"
)

// aDay is the modification time of entries of a seed.
var aDay = vfs.Time{Sec: 1_100_000_000, Nsec: 123_456_789}

// owner is the user and the group of an entry.
type owner struct{ uid, gid uint32 }

func dir(path string, mode uint32, o owner) Entry {
	return Entry{Path: path, Type: vfs.Directory, Mode: mode, UID: o.uid, GID: o.gid, Mtime: aDay}
}

func file(path string, mode uint32, o owner, content string) Entry {
	return Entry{Path: path, Type: vfs.Regular, Mode: mode, UID: o.uid, GID: o.gid, Content: content, Mtime: aDay}
}

func symlink(path, target string) Entry {
	return Entry{Path: path, Type: vfs.Symlink, Target: target, Mtime: aDay}
}

func hardLink(path, to string) Entry { return Entry{Path: path, LinkTo: to} }

// Split splits a seed for trees that have two parts, such as a version and a layer. The first part has all
// directories and every other one of the remaining entries, the second part the rest. All names of a file are in
// the same part. Populate can add the second part to a tree that was made from the first one.
func Split(seed []Entry) (first, second []Entry) {
	inSecond := make(map[string]bool)
	n := 0
	for _, e := range seed {
		switch {
		case e.LinkTo != "":
			inSecond[e.Path] = inSecond[e.LinkTo]
		case e.Type != vfs.Directory:
			n++
			inSecond[e.Path] = n%2 == 0
		}
		if inSecond[e.Path] {
			second = append(second, e)
			continue
		}
		first = append(first, e)
	}
	return first, second
}

// WriteDir makes the seed below dir with plain system calls, as root. It sets the mode of dir to 0755.
func WriteDir(t testing.TB, dir string, seed []Entry) {
	t.Helper()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, e := range seed {
		if err := writeEntry(dir, e); err != nil {
			t.Fatalf("seed %q: %v", e.Path, err)
		}
	}
	for i := len(seed) - 1; i >= 0; i-- { // directories last, because new entries change their times
		e := seed[i]
		if e.LinkTo != "" {
			continue
		}
		ts := []unix.Timespec{
			{Sec: e.Mtime.Sec, Nsec: int64(e.Mtime.Nsec)}, {Sec: e.Mtime.Sec, Nsec: int64(e.Mtime.Nsec)},
		}
		p := filepath.Join(dir, e.Path)
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			t.Fatalf("seed %q: set times: %v", e.Path, err)
		}
	}
}

func writeEntry(dir string, e Entry) error {
	p := filepath.Join(dir, e.Path)
	if e.LinkTo != "" {
		return unix.Linkat(unix.AT_FDCWD, filepath.Join(dir, e.LinkTo), unix.AT_FDCWD, p, 0)
	}
	var err error
	switch e.Type {
	case vfs.Regular:
		if err = os.WriteFile(p, []byte(e.Content), 0o600); err == nil && e.Size > 0 {
			err = os.Truncate(p, int64(e.Size))
		}
	case vfs.Directory:
		err = os.Mkdir(p, 0o700)
	case vfs.Symlink:
		err = os.Symlink(e.Target, p)
	case vfs.CharDevice:
		err = unix.Mknod(p, unix.S_IFCHR|0o600, int(unix.Mkdev(e.Major, e.Minor)))
	case vfs.BlockDevice:
		err = unix.Mknod(p, unix.S_IFBLK|0o600, int(unix.Mkdev(e.Major, e.Minor)))
	case vfs.FIFO:
		err = unix.Mknod(p, unix.S_IFIFO|0o600, 0)
	case vfs.Socket:
		err = unix.Mknod(p, unix.S_IFSOCK|0o600, 0)
	default:
		err = fmt.Errorf("type %d", e.Type)
	}
	if err != nil {
		return err
	}
	for k, v := range e.Xattrs {
		if err := unix.Lsetxattr(p, k, []byte(v), 0); err != nil {
			return fmt.Errorf("set %s: %w", k, err)
		}
	}
	if err := os.Lchown(p, int(e.UID), int(e.GID)); err != nil || e.Type == vfs.Symlink {
		return err
	}
	return unix.Chmod(p, e.Mode)
}

// Populate makes the seed in fs with the operations of fs, as root. Directories of the seed that exist are kept. It
// skips the test if the seed has extended attributes, which the contract cannot set.
func Populate(t *testing.T, fs vfs.FS, seed []Entry) {
	t.Helper()
	tr := &tree{T: t, FS: fs}
	filled := make(map[string]vfs.Handle) // directories whose times the new entries change
	for _, e := range seed {
		if len(e.Xattrs) > 0 {
			t.Skip("the seed has extended attributes, which vfs.FS cannot set")
		}
		up := path.Dir(e.Path)
		h, ok := filled[up]
		if !ok {
			h = tr.h(up)
			filled[up] = h
		}
		tr.populate(h, e)
	}
	for _, e := range seed {
		if _, ok := filled[e.Path]; ok {
			tr.setTimes(e)
		}
	}
}

func (t *tree) setTimes(e Entry) {
	t.Helper()
	t.set(root(), e.Path, vfs.SetAttr{Valid: vfs.SetMtime | vfs.SetAtime, Mtime: e.Mtime, Atime: e.Mtime})
}

func (t *tree) populate(up vfs.Handle, e Entry) {
	t.Helper()
	name := path.Base(e.Path)
	s := vfs.SetAttr{
		Valid: vfs.SetMode | vfs.SetUID | vfs.SetGID | vfs.SetMtime | vfs.SetAtime,
		Mode:  e.Mode, UID: e.UID, GID: e.GID, Mtime: e.Mtime, Atime: e.Mtime,
	}
	var err error
	switch {
	case e.LinkTo != "":
		_, err = t.Link(root(), t.h(e.LinkTo), up, name)
	case e.Type == vfs.Regular:
		err = t.populateFile(up, e, s)
	case e.Type == vfs.Directory:
		_, err = t.Mkdir(root(), up, name, &s)
	case e.Type == vfs.Symlink:
		s.Valid &^= vfs.SetMode
		_, err = t.Symlink(root(), up, name, e.Target, &s)
	default:
		_, err = t.Mknod(root(), up, name, &vfs.Node{Type: e.Type, Major: e.Major, Minor: e.Minor}, &s)
	}
	t.ok(err, "seed %q", e.Path)
}

func (t *tree) populateFile(up vfs.Handle, e Entry, s vfs.SetAttr) error {
	made, err := t.Create(root(), up, path.Base(e.Path), &vfs.Create{Mode: vfs.Guarded, Attr: s})
	if err != nil || e.Content == "" && e.Size == 0 {
		return err
	}
	if _, err = t.Write(root(), made.Handle, []byte(e.Content), 0, vfs.Unstable); err != nil {
		return err
	}
	if e.Size > 0 {
		s.Valid, s.Size = s.Valid|vfs.SetSize, e.Size
	}
	_, err = t.SetAttr(root(), made.Handle, &s)
	return err
}
