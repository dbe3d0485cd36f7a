package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/pathmatch"
	"dim/internal/store"
	"dim/internal/testkit"
)

// capability is the value of security.capability for cap_net_raw+ep (linux/capability.h, VFS_CAP_REVISION_2).
func capability() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 0x02000001)
	return append(binary.LittleEndian.AppendUint32(b, 1<<13), make([]byte, 12)...)
}

// acl is the value of system.posix_acl_access for user::rw-,user:1000:r--,group::r--,mask::r--,other::---
// (linux/posix_acl_xattr.h).
func acl() []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range [][3]uint32{{1, 6, 1<<32 - 1}, {2, 4, 1000}, {4, 4, 1<<32 - 1}, {16, 4, 1<<32 - 1},
		{32, 0, 1<<32 - 1}} {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return b
}

// nasty fills the master with entries that real and hostile trees have.
func (l *lab) nasty() {
	l.odd()
	for i := range 10_000 {
		testkit.Must(l.t, os.MkdirAll(l.path("many"), 0o755),
			os.WriteFile(l.path(fmt.Sprintf("many/%05d", i)), []byte(fmt.Sprint(i%10)), 0o640))
	}
}

// odd fills the master with one of each oddity.
func (l *lab) odd() {
	t := l.t
	l.write("plain", "hello")
	l.write("empty", "")
	l.write("new\nline", "1")
	l.write("\xff\xfe not utf-8", "2")
	l.write(strings.Repeat("n", 255), "3")
	l.write("a/first", "linked")
	l.write("dir/with/depth/file", "deep")
	l.write("caps", "x")
	l.write("acl", "y")
	l.write("xattr", "z")
	l.write("big", strings.Repeat("big file ", 100_000))
	testkit.Must(t,
		os.Link(l.path("a/first"), l.path("a/second")),
		os.Link(l.path("a/first"), l.path("dir/third")),
		os.Symlink("../nowhere/\xff", l.path("dangling")),
		os.Symlink("/etc", l.path("escape")),
		unix.Mkfifo(l.path("fifo"), 0o620),
		unix.Mknod(l.path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))),
		unix.Mknod(l.path("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 1<<18))),
		os.Link(l.path("null"), l.path("zz-null")),
		unix.Setxattr(l.path("caps"), "security.capability", capability(), 0),
		unix.Setxattr(l.path("acl"), "system.posix_acl_access", acl(), 0),
		unix.Setxattr(l.path("xattr"), "user.b", bytes.Repeat([]byte{0, 1}, 900), 0),
		unix.Setxattr(l.path("xattr"), "user.a", nil, 0),
		unix.Setxattr(l.path("xattr"), "trusted.x", []byte("t"), 0),
		unix.Setxattr(l.path("xattr"), "trusted.overlay.opaque", []byte("y"), 0),
		unix.Lsetxattr(l.path("dangling"), "trusted.link", []byte("l"), 0),
		unix.Setxattr(l.path("dir"), "user.dir", []byte("d"), 0),
		unix.Lchown(l.path("dangling"), 7, 8),
		unix.Chown(l.path("plain"), 1234, 4321),
		unix.Chmod(l.path("plain"), 0o6751),
		unix.Chmod(l.path("dir"), 0o1777),
	)
	old := []unix.Timespec{{Sec: 1, Nsec: 2}, {Sec: -86400, Nsec: 123456789}}
	testkit.Must(t, unix.UtimesNanoAt(unix.AT_FDCWD, l.path("plain"), old, 0),
		unix.UtimesNanoAt(unix.AT_FDCWD, l.path("dangling"), old, unix.AT_SYMLINK_NOFOLLOW))
	f, err := os.Create(l.path("sparse"))
	testkit.Must(t, err)
	_, err = f.WriteAt([]byte("data"), 1<<20)
	testkit.Must(t, err, f.Truncate(4<<20), f.Close())
	ln, err := net.Listen("unix", l.path("socket"))
	testkit.Must(t, err)
	t.Cleanup(func() { ln.Close() })
	for _, dir := range []string{"proc/1", "sys/kernel", "dev/pts", "run/lock", "srv/proc/in"} {
		testkit.Must(t, os.MkdirAll(l.path(dir), 0o755))
	}
	l.write("tmp/left/out", "no")
}

func (l *lab) exclude(patterns ...string) {
	l.o.Exclude = nil
	for _, s := range patterns {
		p, err := pathmatch.Parse(s)
		testkit.Must(l.t, err)
		l.o.Exclude = append(l.o.Exclude, p)
	}
}

func TestANastyTreeIsCapturedFaithfully(t *testing.T) {
	testkit.NeedRoot(t, "owners, devices, trusted xattrs and mounts")
	l := newLab(t)
	l.nasty()
	l.exclude("/tmp/*")
	r := l.capture()
	if len(r.Problems) > 0 {
		t.Errorf("problems: %v", r.Problems)
	}
	got := l.entries(r.Version)
	for path, want := range oracle(t, l.o.Dir) {
		if strings.HasPrefix(path, "tmp/") {
			continue
		}
		e := got[path]
		delete(got, path)
		switch path {
		case "dev", "proc", "sys", "tmp": // captured without content and with a zero mtime
			want.Mtime = image.Time{}
		}
		if e == nil {
			t.Errorf("%q is missing", path)
			continue
		}
		have := *e
		if have.Type == image.Directory {
			have.Digest = image.Digest{}
		}
		if d := cmp.Diff(want, have); d != "" {
			t.Errorf("%q (-master +capture):\n%s", path, d)
		}
	}
	for path := range got {
		t.Errorf("%q should not be there", path)
	}
	if r.Version.Files != uint64(len(l.entries(r.Version))-1) {
		t.Errorf("the version says %d files, it has %d", r.Version.Files, len(l.entries(r.Version))-1)
	}
	sparse := l.entries(r.Version)["sparse"]
	if d := cmp.Diff([]image.Extent{{Offset: 1 << 20, Length: 4096}}, sparse.Data); d != "" {
		t.Errorf("sparse: %s", d)
	}
}

// oracle walks dir in a simple way and returns the entries of a correct capture. Directories have no digest.
func oracle(t *testing.T, dir string) map[string]image.Entry {
	t.Helper()
	want := map[string]image.Entry{}
	groups := map[uint64][]string{}
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		testkit.Must(t, err)
		rel := strings.TrimPrefix(strings.TrimPrefix(path, dir), "/")
		var st unix.Stat_t
		testkit.Must(t, unix.Lstat(path, &st))
		e := image.Entry{Name: filepath.Base(rel), Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Nlink: 1,
			Mtime: image.Time{Sec: st.Mtim.Sec, Nsec: uint32(st.Mtim.Nsec)}}
		if rel == "" {
			e.Name = ""
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			b, err := os.ReadFile(path)
			testkit.Must(t, err)
			e.Type, e.Size, e.Digest = image.Regular, uint64(len(b)), image.Sum(b)
			if rel == "sparse" {
				e.Data = []image.Extent{{Offset: 1 << 20, Length: 4096}}
			}
		case unix.S_IFDIR:
			e.Type = image.Directory
		case unix.S_IFLNK:
			e.Type = image.Symlink
			e.Target, err = os.Readlink(path)
			testkit.Must(t, err)
		case unix.S_IFCHR, unix.S_IFBLK:
			e.Type, e.Major, e.Minor = image.CharDevice, unix.Major(st.Rdev), unix.Minor(st.Rdev)
			if st.Mode&unix.S_IFMT == unix.S_IFBLK {
				e.Type = image.BlockDevice
			}
		case unix.S_IFIFO:
			e.Type = image.FIFO
		case unix.S_IFSOCK:
			return nil
		}
		e.Xattrs = oracleXattrs(t, path)
		want[rel] = e
		if e.Type != image.Directory && st.Nlink > 1 {
			groups[st.Ino] = append(groups[st.Ino], rel)
		}
		switch rel {
		case "proc", "sys", "dev":
			return filepath.SkipDir
		}
		return nil
	})
	testkit.Must(t, err)
	for _, names := range groups { // WalkDir walks in walk order
		for _, name := range names {
			e := want[name]
			e.Link, e.Nlink = names[0], uint32(len(names))
			want[name] = e
		}
	}
	return want
}

func oracleXattrs(t *testing.T, path string) []image.Xattr {
	t.Helper()
	var list []image.Xattr
	for _, name := range []string{"security.capability", "system.posix_acl_access", "system.posix_acl_default",
		"trusted.link", "trusted.x", "user.a", "user.b", "user.dir"} {
		b := make([]byte, 4096)
		if n, err := unix.Lgetxattr(path, name, b); err == nil {
			list = append(list, image.Xattr{Name: name, Value: append([]byte{}, b[:n]...)})
		}
	}
	return list
}

func TestCapturingTwiceGivesTheSameDigest(t *testing.T) {
	testkit.NeedRoot(t, "owners, devices, trusted xattrs and mounts")
	l := newLab(t)
	l.nasty()
	one := l.capture()
	again := l.capture()
	if again.Changed || again.Version.Number != 1 {
		t.Errorf("with notes: changed %v, version %d", again.Changed, again.Version.Number)
	}
	l.o.CacheDir = ""
	if again := l.capture(); again.Changed {
		t.Errorf("without notes: %v", again.Changes)
	}
	l.o.Image = "other"
	if other := l.capture(); other.Version.Digest != one.Version.Digest || other.BytesNew > 1000 {
		t.Errorf("as another image: other digest, or %d new bytes", other.BytesNew)
	}
}

func TestMountPointsAreNotCrossed(t *testing.T) {
	testkit.NeedRoot(t, "owners, devices, trusted xattrs and mounts")
	l := newLab(t)
	l.write("mnt/hidden", "1")
	l.write("file", "2")
	l.write("bind/x", "3")
	l.write("source/y", "4")
	for target, mount := range map[string]func(string) error{
		"mnt":  func(p string) error { return unix.Mount("tmpfs", p, "tmpfs", 0, "size=1m,mode=0751") },
		"file": func(p string) error { return unix.Mount("/etc/hostname", p, "", unix.MS_BIND, "") },
		// the same device
		"bind": func(p string) error { return unix.Mount(l.path("source"), p, "", unix.MS_BIND, "") },
	} {
		if err := mount(l.path(target)); err != nil {
			t.Skipf("mount: %v", err)
		}
		t.Cleanup(func() { testkit.Must(t, unix.Unmount(l.path(target), unix.MNT_DETACH)) })
	}
	testkit.Must(t, os.WriteFile(l.path("mnt/above"), nil, 0o644))
	r := l.capture()
	got := l.entries(r.Version)
	for _, path := range []string{"mnt", "file", "bind", "source", "source/y"} {
		if got[path] == nil {
			t.Errorf("%s is missing", path)
		}
	}
	if len(got) != 6 || got["file"].Size != 0 || got["mnt"].Mode != 0o751 {
		t.Errorf("captured %v", got)
	}
	if len(r.Problems) != 3 || r.Problems[1].Kind != LeftOut || r.Problems[1].Path != "file" {
		t.Errorf("problems: %v", r.Problems)
	}
	testkit.Must(t, os.WriteFile(l.path("mnt/more"), nil, 0o644))
	if l.capture().Changed {
		t.Error("what happens in a mount makes a version")
	}
}

func TestTheStoreInItsOwnMasterIsLeftOut(t *testing.T) {
	l := newLab(t)
	s, err := store.Open(l.path("var/lib/dim/store"), store.Options{})
	testkit.Must(t, err)
	defer s.Close()
	l.store, l.o.CacheDir = s, l.path("var/lib/dim/cache")
	testkit.Must(t, os.Mkdir(l.o.CacheDir, 0o700))
	l.write("etc/x", "1")
	r := l.capture()
	if r.Version.Files != 7 {
		t.Errorf("%d names, want etc, etc/x, var, lib, dim, store, cache", r.Version.Files)
	}
	if l.capture().Changed {
		t.Error("the store makes versions of itself")
	}
}

func TestVanishingEntriesAreLeftOutAndReported(t *testing.T) {
	l := newLab(t)
	for i := range 3000 {
		l.write(fmt.Sprintf("d%d/f%d", i%50, i), strings.Repeat("x", 1000))
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; i < 3000; i += 2 {
			select {
			case <-stop:
				return
			default:
				_ = os.Remove(l.path(fmt.Sprintf("d%d/f%d", i%50, i)))
			}
			if i%100 == 0 {
				_ = os.RemoveAll(l.path(fmt.Sprintf("d%d", i/100%50)))
			}
		}
	}()
	r := l.capture()
	close(stop)
	<-done
	for _, p := range r.Problems {
		if p.Kind != Vanished && p.Kind != Changing {
			t.Errorf("unexpected problem %v", p)
		}
	}
	l.sound()
	t.Logf("%d problems, %d names", len(r.Problems), r.Version.Files)
}

// sound checks that the store has no problems.
func (l *lab) sound() {
	l.t.Helper()
	testkit.Must(l.t, l.store.Check(context.Background(),
		store.CheckObserver{Problem: func(p store.Problem) { l.t.Error(p) }}))
}

func TestAFileThatChangesAllTheTimeIsReported(t *testing.T) {
	l := newLab(t)
	l.write("still", "1")
	l.write("log", strings.Repeat("x", 24<<20)) // reading it takes longer than the grain of ctimes
	f, err := os.OpenFile(l.path("log"), os.O_WRONLY, 0)
	testkit.Must(t, err)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				_, _ = f.WriteAt([]byte(fmt.Sprint("line ", i, "\n")), 1<<20)
				time.Sleep(10 * time.Microsecond)
			}
		}
	}()
	r := l.capture()
	close(stop)
	<-done
	testkit.Must(t, f.Close())
	if len(r.Problems) != 1 || r.Problems[0].Path != "log" || r.Problems[0].Kind != Changing {
		t.Errorf("problems: %v", r.Problems)
	}
	l.sound()
	if r := l.capture(); len(r.Problems) > 0 || r.FilesRead == 0 {
		t.Errorf("the next capture: %d files read, problems %v", r.FilesRead, r.Problems)
	}
}

func TestUnreadableEntriesAreListed(t *testing.T) {
	if os.Getuid() == 0 { // root can read everything: run again as nobody
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestUnreadableEntriesAreListed$", "-test.v")
		cmd.Dir, cmd.Env = "/", []string{"TMPDIR=/tmp"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("as nobody: %v\n%s", err, out)
		}
		return
	}
	l := newLab(t)
	l.write("a", "1")
	l.write("d/b", "2")
	l.write("good", "3")
	testkit.Must(t, os.Chmod(l.path("a"), 0), os.Chmod(l.path("d"), 0))
	t.Cleanup(func() { _ = os.Chmod(l.path("d"), 0o755) })
	_, err := Run(context.Background(), l.store, l.o)
	var bad *unreadableError
	if !errors.As(err, &bad) || len(bad.Problems) != 2 {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"/a: permission denied", "/d: permission denied"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
	if _, err := l.store.Versions("test"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("there is a version: %v", err)
	}
}
