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

// aDay is the modification time of seeded entries that name none.
var aDay = vfs.Time{Sec: 1_100_000_000, Nsec: 123_456_789}

func dir(path string, mode, uid, gid uint32) Entry {
	return Entry{Path: path, Type: vfs.Directory, Mode: mode, UID: uid, GID: gid, Mtime: aDay}
}

func file(path string, mode, uid, gid uint32, content string) Entry {
	return Entry{Path: path, Type: vfs.Regular, Mode: mode, UID: uid, GID: gid, Content: content, Mtime: aDay}
}

func symlink(path, target string) Entry {
	return Entry{Path: path, Type: vfs.Symlink, Target: target, Mtime: aDay}
}

func hardLink(path, to string) Entry { return Entry{Path: path, LinkTo: to} }

// Split deals a seed out for trees that are made of two halves, such as a version and a layer. The first half holds all
// directories and every other one of the rest, the second what is left; names of one hard-linked file stay
// together. Populate can put the second half into a tree that was made from the first.
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
	for i := len(seed) - 1; i >= 0; i-- { // directories last: their times move as they fill
		e := seed[i]
		if e.LinkTo != "" {
			continue
		}
		ts := []unix.Timespec{{Sec: e.Mtime.Sec, Nsec: int64(e.Mtime.Nsec)}, {Sec: e.Mtime.Sec, Nsec: int64(e.Mtime.Nsec)}}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, e.Path), ts, unix.AT_SYMLINK_NOFOLLOW); err != nil {
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

// Populate makes the seed in fs through its own operations, as root. Directories of the seed that exist already are
// kept. It skips the test when the seed has extended attributes, which the contract cannot set.
func Populate(t *testing.T, fs vfs.FS, seed []Entry) {
	t.Helper()
	tr := &tree{T: t, FS: fs}
	for _, e := range seed {
		if len(e.Xattrs) > 0 {
			t.Skip("the seed has extended attributes, which vfs.FS cannot set")
		}
		tr.populate(e)
	}
	for i := len(seed) - 1; i >= 0; i-- {
		e := seed[i]
		parent := path.Dir(e.Path)
		for _, d := range seed { // a directory's time moved as it filled
			if d.Path == parent && d.Type == vfs.Directory {
				tr.setTimes(d)
			}
		}
	}
}

func (t *tree) setTimes(e Entry) {
	t.Helper()
	t.set(root(), e.Path, vfs.SetAttr{Valid: vfs.SetMtime | vfs.SetAtime, Mtime: e.Mtime, Atime: e.Mtime})
}

func (t *tree) populate(e Entry) {
	t.Helper()
	up, name := t.h(path.Dir(e.Path)), path.Base(e.Path)
	s := vfs.SetAttr{
		Valid: vfs.SetMode | vfs.SetUID | vfs.SetGID | vfs.SetMtime | vfs.SetAtime,
		Mode:  e.Mode, UID: e.UID, GID: e.GID, Mtime: e.Mtime, Atime: e.Mtime,
	}
	var err error
	switch {
	case e.LinkTo != "":
		_, err = t.Link(root(), t.h(e.LinkTo), up, name)
	case e.Type == vfs.Regular:
		t.populateFile(up, name, e)
		t.set(root(), e.Path, s)
	case e.Type == vfs.Directory:
		_, err = t.Mkdir(root(), up, name, &s)
	case e.Type == vfs.Symlink:
		s.Valid &^= vfs.SetMode
		_, err = t.Symlink(root(), up, name, e.Target, &s)
	default:
		_, err = t.Mknod(root(), up, name, &vfs.Node{Type: e.Type, Major: e.Major, Minor: e.Minor}, &s)
	}
	if err != nil {
		t.Fatalf("seed %q: %v", e.Path, err)
	}
}

func (t *tree) populateFile(up vfs.Handle, name string, e Entry) {
	t.Helper()
	s := vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o600}
	made, err := t.Create(root(), up, name, &vfs.Create{Mode: vfs.Guarded, Attr: s})
	t.ok(err, "seed %q", e.Path)
	if e.Content != "" {
		_, err = t.Write(root(), made.Handle, []byte(e.Content), 0, vfs.Unstable)
		t.ok(err, "seed %q", e.Path)
	}
	if e.Size > 0 {
		t.set(root(), e.Path, vfs.SetAttr{Valid: vfs.SetSize, Size: e.Size})
	}
}
