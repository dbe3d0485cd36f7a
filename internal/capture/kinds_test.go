package capture

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/testkit"
)

// kind is one way in which a master can change.
type kind struct {
	name   string
	change func(*lab) error
	want   []string
}

// keepTimes changes a file and restores its times: only its ctime shows the change.
func keepTimes(l *lab, name string, do func() error) error {
	var st unix.Stat_t
	if err := unix.Lstat(l.path(name), &st); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, l.path(name), []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

// again removes the entry at a path and calls make.
func again(l *lab, name string, make func(path string) error) error {
	if err := os.RemoveAll(l.path(name)); err != nil {
		return err
	}
	return make(l.path(name))
}

func makeDevice(mode uint32, major, minor uint32) func(string) error {
	return func(path string) error { return unix.Mknod(path, mode, int(unix.Mkdev(major, minor))) }
}

// sparse makes a file of 1 MB whose data are at the given offsets.
func sparse(path string, at ...int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, off := range at {
		if _, err := f.WriteAt(make([]byte, 4096), off); err != nil {
			return err
		}
		if _, err := f.WriteAt([]byte("x"), off); err != nil {
			return err
		}
	}
	return f.Truncate(1 << 20)
}

// master makes one entry of every type in d, and others that do not change.
func (l *lab) master() {
	l.write("d/f", "one")
	l.write("d/empty", "")
	l.write("d/a", "linked")
	l.write("d/other", "other")
	l.write("d/sub/x", "x")
	l.write("n/neighbour", "same")
	testkit.Must(l.t,
		os.Link(l.path("d/a"), l.path("d/b")), os.Symlink("f", l.path("d/l")), unix.Mkfifo(l.path("d/p"), 0o644),
		makeDevice(unix.S_IFCHR|0o600, 1, 3)(l.path("d/c")), makeDevice(unix.S_IFBLK|0o600, 7, 1)(l.path("d/k")),
		sparse(l.path("d/s"), 0), os.Mkdir(l.path("d/void"), 0o755),
		unix.Setxattr(l.path("d/other"), "trusted.old", []byte("1"), 0),
		unix.Setxattr(l.path("d/empty"), "security.capability", capability(), 0),
	)
}

func kinds() []kind {
	set := func(name, attr, value string) func(*lab) error {
		return func(l *lab) error { return unix.Lsetxattr(l.path(name), attr, []byte(value), 0) }
	}
	return []kind{
		{"content", func(l *lab) error { return os.WriteFile(l.path("d/f"), []byte("three"), 0o644) },
			[]string{"~d/f"}},
		{"content of the same size and times", func(l *lab) error {
			return keepTimes(l, "d/f", func() error { return os.WriteFile(l.path("d/f"), []byte("two"), 0o644) })
		}, []string{"~d/f"}},
		{"content through another name", func(l *lab) error {
			return os.WriteFile(l.path("d/b"), []byte("LINKED"), 0o644)
		}, []string{"~d/a", "~d/b"}},
		{"a file that becomes empty", func(l *lab) error { return os.Truncate(l.path("d/f"), 0) }, []string{"~d/f"}},
		{"replaced by a rename, with the old times", func(l *lab) error {
			return keepTimes(l, "d/f", func() error {
				l.write("d/new", "two")
				return os.Rename(l.path("d/new"), l.path("d/f"))
			})
		}, []string{"~d/f"}},
		{"mode", func(l *lab) error { return os.Chmod(l.path("d/f"), 0o600) }, []string{"~d/f"}},
		{"setuid", func(l *lab) error { return unix.Chmod(l.path("d/f"), 0o4755) }, []string{"~d/f"}},
		{"mode of a directory", func(l *lab) error { return os.Chmod(l.path("d/sub"), 0o700) }, []string{"~d/sub"}},
		{"owner", func(l *lab) error { return os.Lchown(l.path("d/f"), 12345, -1) }, []string{"~d/f"}},
		{"group of a link", func(l *lab) error { return os.Lchown(l.path("d/l"), -1, 12345) }, []string{"~d/l"}},
		{"mtime", func(l *lab) error {
			return unix.UtimesNanoAt(unix.AT_FDCWD, l.path("d/f"), []unix.Timespec{{Sec: 1}, {Sec: 1, Nsec: 1}}, 0)
		}, []string{"~d/f"}},
		{"a new xattr", set("d/f", "trusted.new", "1"), []string{"~d/f"}},
		{"another value of an xattr", set("d/other", "trusted.old", "2"), []string{"~d/other"}},
		{"an xattr less", func(l *lab) error { return unix.Removexattr(l.path("d/other"), "trusted.old") },
			[]string{"~d/other"}},
		{"an ACL", set("d/f", "system.posix_acl_access", string(acl())), []string{"~d/f"}},
		{"a default ACL of a directory", set("d/sub", "system.posix_acl_default", string(acl())), []string{"~d/sub"}},
		{"a capability", set("d/f", "security.capability", string(capability())), []string{"~d/f"}},
		{"a capability less", func(l *lab) error { return unix.Removexattr(l.path("d/empty"), "security.capability") },
			[]string{"~d/empty"}},
		{"one more hard link", func(l *lab) error { return os.Link(l.path("d/f"), l.path("n/f2")) },
			[]string{"~d/f", "+n/f2"}},
		{"one hard link less", func(l *lab) error { return os.Remove(l.path("d/a")) }, []string{"-d/a", "~d/b"}},
		{"a hard link that becomes a copy", func(l *lab) error {
			return again(l, "d/b", func(p string) error { return os.WriteFile(p, []byte("linked"), 0o644) })
		}, []string{"~d/a", "~d/b"}},
		{"a file becomes a directory", func(l *lab) error {
			return again(l, "d/f", func(p string) error { return os.Mkdir(p, 0o755) })
		}, []string{"~d/f"}},
		{"a directory becomes a link", func(l *lab) error {
			return again(l, "d/sub", func(p string) error { return os.Symlink("void", p) })
		},
			[]string{"~d/sub", "-d/sub/x"}},
		{"a file becomes a FIFO", func(l *lab) error {
			return again(l, "d/f", func(p string) error { return unix.Mkfifo(p, 0o644) })
		}, []string{"~d/f"}},
		{"another target of a link", func(l *lab) error {
			return again(l, "d/l", func(p string) error { return os.Symlink("g", p) })
		}, []string{"~d/l"}},
		{"a rename", func(l *lab) error { return os.Rename(l.path("d/f"), l.path("d/g")) }, []string{"-d/f", "+d/g"}},
		{"a rename of a directory", func(l *lab) error { return os.Rename(l.path("d/sub"), l.path("n/sub")) },
			[]string{"-d/sub", "-d/sub/x", "+n/sub", "+n/sub/x"}},
		{"two files that change their places", func(l *lab) error {
			return unix.Renameat2(unix.AT_FDCWD, l.path("d/f"), unix.AT_FDCWD, l.path("d/other"), unix.RENAME_EXCHANGE)
		}, []string{"~d/f", "~d/other"}},
		{"a new file", func(l *lab) error { return os.WriteFile(l.path("d/new"), []byte("n"), 0o644) },
			[]string{"+d/new"}},
		{"a new empty directory", func(l *lab) error { return os.Mkdir(l.path("d/new"), 0o755) }, []string{"+d/new"}},
		{"a removed file", func(l *lab) error { return os.Remove(l.path("d/f")) }, []string{"-d/f"}},
		{"a removed tree", func(l *lab) error { return os.RemoveAll(l.path("d/sub")) }, []string{"-d/sub", "-d/sub/x"}},
		{"another minor number", func(l *lab) error { return again(l, "d/c", makeDevice(unix.S_IFCHR|0o600, 1, 5)) },
			[]string{"~d/c"}},
		{"another major number", func(l *lab) error { return again(l, "d/k", makeDevice(unix.S_IFBLK|0o600, 8, 1)) },
			[]string{"~d/k"}},
		{"a character device that becomes a block device",
			func(l *lab) error { return again(l, "d/c", makeDevice(unix.S_IFBLK|0o600, 1, 3)) }, []string{"~d/c"}},
		{"a hole that is filled with zeros", func(l *lab) error {
			return keepTimes(l, "d/s", func() error {
				b := make([]byte, 1<<20)
				b[0] = 'x'
				return os.WriteFile(l.path("d/s"), b, 0o644)
			})
		}, []string{"~d/s"}},
		{"nothing but a look at it", func(l *lab) error {
			_, err := os.ReadFile(l.path("d/f"))
			return err
		}, nil},
		{"a change that was taken back", func(l *lab) error {
			if err := os.Chmod(l.path("d/f"), 0o600); err != nil {
				return err
			}
			return os.Chmod(l.path("d/f"), 0o644)
		}, nil},
	}
}

// found returns the changes of r without those of the mtime of a directory, which changes with the names in it.
func found(r Result) []string {
	list := paths(r)
	return slices.DeleteFunc(list, func(p string) bool {
		i := slices.IndexFunc(r.Changes, func(c treediff.Change) bool { return "~"+c.Path == p })
		if i < 0 || r.Changes[i].Old.Type != image.Directory || r.Changes[i].New.Type != image.Directory {
			return false
		}
		old := *r.Changes[i].Old
		old.Mtime, old.Digest = r.Changes[i].New.Mtime, r.Changes[i].New.Digest
		return cmp.Equal(&old, r.Changes[i].New, cmpopts.EquateEmpty())
	})
}

func TestACaptureFindsEveryKindOfChange(t *testing.T) {
	testkit.NeedRoot(t, "owners, devices, capabilities")
	l := newLab(t)
	l.later()
	for _, k := range kinds() {
		testkit.Must(t, os.RemoveAll(l.path("d")), os.RemoveAll(l.path("n")))
		l.master()
		l.capture()
		tick()
		testkit.Must(t, k.change(l))
		tick()
		r := l.capture()
		if d := cmp.Diff(k.want, found(r)); d != "" && (len(k.want) > 0 || r.Changed) {
			t.Errorf("%s: %s", k.name, d)
		}
		tick()
		if again := l.capture(); again.Changed {
			t.Errorf("%s: found again: %s", k.name, strings.Join(paths(again), " "))
		}
	}
	l.sound()
}
