package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/control"
	"dim/internal/disktest"
	"dim/internal/image"
	"dim/internal/layer"
	"dim/internal/pki"
	"dim/internal/store"
	"dim/internal/testkit"
)

// site is a data directory, and the source of its backups: layers are given as they are on disk, with an origin.
type site struct {
	t    *testing.T
	data string
}

const upper = "replicas/n01/compute/upper"

func newSite(t *testing.T, dir string) *site {
	t.Helper()
	testkit.NeedRoot(t, "owners, devices and trusted xattrs")
	s := &site{t, filepath.Join(dir, "data")}
	_, err := pki.Init(s.data)
	testkit.Must(t, err)
	st, err := store.Open(filepath.Join(s.data, "store"), store.Options{})
	testkit.Must(t, err)
	testkit.Must(t, st.Close())
	s.put("state.json", "{}")
	for i := range 20 {
		s.object("blobs", fmt.Sprintf("blob %d", i))
	}
	s.object("trees", "a tree")
	s.put("store/versions/compute/1.json", `{"format":1,"image":"compute","version":1}`)
	s.oddFiles()
	return s
}

func (s *site) at(path string) string { return filepath.Join(s.data, path) }

func (s *site) put(path, text string) {
	s.t.Helper()
	testkit.Must(s.t, os.MkdirAll(filepath.Dir(s.at(path)), 0o700))
	testkit.Must(s.t, os.WriteFile(s.at(path), []byte(text), 0o600))
}

func (s *site) object(kind, text string) {
	s.t.Helper()
	hex := image.Sum([]byte(text)).String()
	s.put("store/"+kind+"/"+hex[:2]+"/"+hex, text)
}

// oddFiles makes a layer with everything that a layer can have.
func (s *site) oddFiles() {
	t := s.t
	t.Helper()
	s.put(upper+"/etc/motd", "mine\n")
	s.put(upper+"/etc/\xff\xfe \\ #=\n", "an odd name")
	s.put(upper+"/"+strings.Repeat("n", 255), "long")
	s.put(upper+"/etc/caps", "x")
	s.put(upper+"/empty", "")
	s.put("replicas/n01/compute/saved/20260102T150405.000000000Z/etc/shared", "two names")
	testkit.Must(t, os.MkdirAll(s.at("replicas/n01/compute/work"), 0o700))
	s.put("replicas/n01/compute/work/#1", "unfinished")
	s.put("replicas/n01/compute/snapshots/20260102T150405.000000000Z/etc/motd", "old")
	dir := s.at(upper)
	in := func(name string) string { return filepath.Join(dir, name) }
	f, err := os.Create(in("holes"))
	testkit.Must(t, err)
	_, err = f.WriteAt([]byte("in the middle"), 5<<20)
	testkit.Must(t, err)
	testkit.Must(t, f.Truncate(20<<20))
	testkit.Must(t, f.Close())
	saved := s.at("replicas/n01/compute/saved/20260102T150405.000000000Z/etc/shared")
	acl := []byte("\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x07\x00\xe8\x03\x00\x00" +
		"\x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x07\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff")
	capability := []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, err := range []error{
		os.Symlink("../else\nwhere", in("link")),
		os.Link(in("etc/motd"), in("etc/motd2")),
		os.Link(saved, in("shared")),
		unix.Mknod(in("gone"), unix.S_IFCHR, 0),
		unix.Mknod(in("tty"), unix.S_IFCHR|0o620, int(unix.Mkdev(4, 5))),
		unix.Mknod(in("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(253, 70000))),
		unix.Mknod(in("pipe"), unix.S_IFIFO|0o600, 0),
		unix.Mknod(in("socket"), unix.S_IFSOCK|0o755, 0),
		unix.Lsetxattr(in("etc"), "trusted.overlay.opaque", []byte("y"), 0),
		unix.Lsetxattr(in("etc/motd"), "trusted.dim.id", []byte("\x80\x00\x00\x00\x00\x00\x00\x01"), 0),
		unix.Lsetxattr(in("link"), "trusted.dim.id", []byte("12345678"), 0),
		unix.Lsetxattr(in("etc/motd"), "user.a=b", []byte("\x00 binary \n"), 0),
		os.Lchown(in("etc/caps"), 1000, 4294967294),
		os.Chmod(in("etc/caps"), 0o755|os.ModeSetuid),
		unix.Lsetxattr(in("etc/caps"), "security.capability", capability, 0),
		unix.Lsetxattr(in("empty"), "system.posix_acl_access", acl, 0),
		os.Chmod(in("etc"), 0o711|os.ModeSticky),
	} {
		testkit.Must(t, err)
	}
	deep := dir
	for range 30 {
		deep = filepath.Join(deep, strings.Repeat("d", 100))
	}
	testkit.Must(t, os.MkdirAll(deep, 0o750), os.WriteFile(filepath.Join(deep, "deep"), []byte("deep"), 0o600))
	for name, ns := range map[string]int64{"etc/motd": 1_700_000_000_123_456_789, "link": -5_000_000_001, "etc": 7} {
		at := []unix.Timespec{unix.NsecToTimespec(ns), unix.NsecToTimespec(ns)}
		testkit.Must(t, unix.UtimesNanoAt(unix.AT_FDCWD, in(name), at, unix.AT_SYMLINK_NOFOLLOW))
	}
}

// BackupState implements Source.
func (s *site) BackupState(context.Context) (control.BackupState, error) {
	return control.BackupState{Cluster: "small", Server: "head", Replicas: []string{"n01/compute"}}, nil
}

// Stage implements Source. It marks files as the daemon does.
func (s *site) Stage(_ context.Context, r control.StageRequest) (control.Staged, func(), error) {
	err := filepath.WalkDir(s.at(upper), func(path string, d os.DirEntry, err error) error {
		var st unix.Stat_t
		if err != nil || !d.Type().IsRegular() || unix.Lstat(path, &st) != nil {
			return err
		}
		if have := make([]byte, 16); true {
			if n, err := unix.Lgetxattr(path, originXattr, have); err == nil && n == 16 {
				return nil // it was marked before, and has not changed since
			}
		}
		o, _ := (&layer.CopyEntry{Stat: st}).Origin(time.Now())
		return unix.Lsetxattr(path, originXattr, o[:], 0)
	})
	return control.Staged{Path: r.Replica, Time: time.Now(), Version: 1}, func() {}, err
}

func (s *site) options() Options { return Options{Data: s.data, Source: s, Program: "test"} }

func (s *site) backup(dir string) (string, *Info) {
	s.t.Helper()
	path, info, err := Make(s.t.Context(), dir, s.options())
	testkit.Must(s.t, err)
	if !info.Complete {
		s.t.Fatalf("incomplete: %q", info.Problems)
	}
	return path, info
}

// listing returns the manifest of a directory tree, as if it were data/ of a backup.
func listing(t *testing.T, dir string) string {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	testkit.Must(t, err)
	defer unix.Close(fd)
	var b strings.Builder
	tr := tree{
		root: layer.Dir(fd), prefix: dataDir,
		failed: func(path string, err error) { t.Errorf("%s: %v", path, err) },
		emit: func(e *entry, c content) error {
			if _, err := (checkSink{}).add(e, c); err != nil {
				return err
			}
			e.origin = nil
			b.Write(e.line())
			return nil
		},
	}
	testkit.Must(t, tr.walk("."))
	return b.String()
}

// sameLayers compares what two directories have of layers.
func sameLayers(t *testing.T, a, b string) {
	t.Helper()
	want := listing(t, filepath.Join(a, upper))
	if got := listing(t, filepath.Join(b, upper)); got != want {
		for i, line := range strings.Split(want, "\n") {
			if other := strings.Split(got, "\n"); i >= len(other) || other[i] != line {
				t.Fatalf("the layer differs:\n%.500s\n%.500s", line, other[min(i, len(other)-1)])
			}
		}
		t.Fatal("the layer has more than it had")
	}
}

func TestABackupIsRestoredAsItWas(t *testing.T) {
	s := newSite(t, disktest.Memory(t))
	dir := filepath.Join(t.TempDir(), "backup")
	path, info := s.backup(dir)
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("others may enter %s: %v", dir, st.Mode())
	}
	if info.Entries == 0 || info.Bytes < 20<<20 || info.Written > 1<<20 {
		t.Errorf("a first backup has %+v", info)
	}
	for _, absent := range []string{"work/#1", "snapshots", "upper/nothing"} {
		if _, err := os.Lstat(filepath.Join(path, "data/replicas/n01/compute", absent)); err == nil {
			t.Errorf("%s is in the backup", absent)
		}
	}
	var st unix.Stat_t
	testkit.Must(t, unix.Lstat(filepath.Join(path, "data", upper, "holes"), &st))
	if st.Blocks*512 > 1<<20 {
		t.Errorf("the holes of a file take %d bytes", st.Blocks*512)
	}
	sameLayers(t, s.data, filepath.Join(path, "data"))
	verified, err := Restoration{From: dir}.Verify(t.Context())
	testkit.Must(t, err)
	if verified.Manifest != info.Manifest {
		t.Error("another backup was verified")
	}
	to := filepath.Join(t.TempDir(), "data")
	_, err = Restoration{From: dir}.Restore(t.Context(), to)
	testkit.Must(t, err)
	sameLayers(t, s.data, to)
	testkit.Must(t, pki.Check(to))
	_, err = Restoration{From: dir}.Restore(t.Context(), to)
	if err == nil || !strings.Contains(err.Error(), "initialised already") {
		t.Errorf("a restore over a data directory: %v", err)
	}
}

// A stream can be read by GNU tar alone, and proves itself at its end.
func TestAStreamIsRestoredAsItWas(t *testing.T) {
	s := newSite(t, disktest.Memory(t))
	var b bytes.Buffer
	info, err := Stream(t.Context(), &b, s.options())
	testkit.Must(t, err)
	stream := func() Restoration { return Restoration{Stream: bytes.NewReader(b.Bytes())} }
	verified, err := stream().Verify(t.Context())
	testkit.Must(t, err)
	if verified.Manifest != info.Manifest {
		t.Error("the digest of the manifest differs")
	}
	to := filepath.Join(t.TempDir(), "data")
	_, err = stream().Restore(t.Context(), to)
	testkit.Must(t, err)
	sameLayers(t, s.data, to)

	extracted := t.TempDir()
	cmd := exec.Command("tar", "--xattrs", "--xattrs-include=*", "--acls", "-xpf", "-", "-C", extracted)
	cmd.Stdin = bytes.NewReader(b.Bytes())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	testkit.Must(t, os.Remove(filepath.Join(extracted, "data", upper, "socket"))) // tar has no type for it
	testkit.Must(t, os.Remove(filepath.Join(s.data, upper, "socket")))
	sameTimes(t, s.data, filepath.Join(extracted, "data"))
	sameLayers(t, s.data, filepath.Join(extracted, "data"))

	for _, cut := range []int{b.Len() / 3, b.Len() - 2048, b.Len() - 1024 - 512} {
		r := Restoration{Stream: bytes.NewReader(b.Bytes()[:cut])}
		if _, err := r.Verify(t.Context()); err == nil {
			t.Errorf("a stream that was cut to %d of %d bytes is taken", cut, b.Len())
		}
	}
}

// sameTimes gives the directory of a removed name its time again.
func sameTimes(t *testing.T, a, b string) {
	t.Helper()
	for _, dir := range []string{a, b} {
		at := time.Unix(1, 1)
		testkit.Must(t, os.Chtimes(filepath.Join(dir, upper), at, at))
	}
}

func TestASecondBackupCostsWhatHasChanged(t *testing.T) {
	s := newSite(t, disktest.Memory(t))
	dir := filepath.Join(t.TempDir(), "backup")
	first, _ := s.backup(dir)
	s.put(upper+"/new", "new")
	s.object("blobs", "another blob")
	second, info := s.backup(dir)
	// The keys, the state and the journal are always written.
	if info.Written > 10_000 || info.Bytes < 20<<20 {
		t.Errorf("the second backup of %d bytes has written %d", info.Bytes, info.Written)
	}
	var a, b unix.Stat_t
	testkit.Must(t, unix.Lstat(filepath.Join(first, "data", upper, "holes"), &a))
	testkit.Must(t, unix.Lstat(filepath.Join(second, "data", upper, "holes"), &b))
	if a.Ino != b.Ino {
		t.Error("a file that has not changed was copied")
	}
	sameLayers(t, s.data, filepath.Join(second, "data"))
	for _, one := range []string{first, second} {
		_, err := Restoration{From: one}.Verify(t.Context())
		testkit.Must(t, err)
	}
	removed, err := Prune(dir, 1)
	testkit.Must(t, err)
	if len(removed) != 1 || removed[0] != filepath.Base(first) {
		t.Errorf("removed: %q", removed)
	}
	_, err = Restoration{From: dir}.Verify(t.Context())
	testkit.Must(t, err)
}

// Files that are missing in the backup before are copied again, or the backup says that it lacks them: of a file that
// the backup before should have, the server has sent no content.
func TestADamagedBackupBeforeIsNoticed(t *testing.T) {
	s := newSite(t, disktest.Memory(t))
	dir := filepath.Join(t.TempDir(), "backup")
	first, _ := s.backup(dir)
	testkit.Must(t, removeOne(filepath.Join(first, "data/store/blobs/*/*")))
	testkit.Must(t, os.Remove(filepath.Join(first, "data", upper, "holes")))
	second, info, err := Make(t.Context(), dir, s.options())
	testkit.Must(t, err)
	if info.Complete || len(info.Problems) != 1 || !strings.Contains(info.Problems[0], "upper/holes") {
		t.Errorf("complete: %v, problems: %q", info.Complete, info.Problems)
	}
	_, err = Restoration{From: second}.Verify(t.Context())
	testkit.Must(t, err)
	third, _ := s.backup(dir)
	sameLayers(t, s.data, filepath.Join(third, "data"))
}

func TestDamageIsFound(t *testing.T) {
	for what, damage := range map[string]func(in func(string) string) error{
		"content": func(in func(string) string) error { return overwrite(in("etc/motd")) },
		"mode":    func(in func(string) string) error { return os.Chmod(in("etc/caps"), 0o700) },
		"xattr":   func(in func(string) string) error { return unix.Lremovexattr(in("etc"), "trusted.overlay.opaque") },
		"missing": func(in func(string) string) error { return os.Remove(in("gone")) },
		"more":    func(in func(string) string) error { return os.WriteFile(in("etc/more"), nil, 0o600) },
		"lost link": func(in func(string) string) error {
			return errors.Join(os.Remove(in("etc/motd2")), os.WriteFile(in("etc/motd2"), []byte("mine\n"), 0o600))
		},
		"manifest":    func(in func(string) string) error { return overwrite(in("../../../../../manifest")) },
		"description": func(in func(string) string) error { return os.Truncate(in("../../../../../backup.json"), 20) },
		"object":      func(in func(string) string) error { return removeOne(in("../../../../store/blobs/*/*")) },
	} {
		t.Run(what, func(t *testing.T) {
			s := newSite(t, disktest.Memory(t))
			dir := filepath.Join(t.TempDir(), "backup")
			path, _ := s.backup(dir)
			testkit.Must(t, damage(func(name string) string { return filepath.Join(path, "data", upper, name) }))
			if _, err := (Restoration{From: path}).Verify(t.Context()); err == nil {
				t.Error("it is not found")
			}
		})
	}
}

// overwrite changes the first byte of a file, and not its times.
func overwrite(path string) error {
	var st unix.Stat_t
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	err = errors.Join(unix.Fstat(int(f.Fd()), &st))
	_, werr := f.WriteAt([]byte("X"), 0)
	return errors.Join(err, werr,
		unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW))
}

func removeOne(pattern string) error {
	list, err := filepath.Glob(pattern)
	if err != nil || len(list) == 0 {
		return fmt.Errorf("nothing matches %s: %v", pattern, err)
	}
	return os.Remove(list[0])
}

// A damaged object of the server's own store makes the backup one that lacks something.
func TestABackupOfDamagedContentSaysSo(t *testing.T) {
	s := newSite(t, disktest.Memory(t))
	list, err := filepath.Glob(s.at("store/blobs/*/*"))
	testkit.Must(t, err)
	testkit.Must(t, overwrite(list[0]))
	_, info, err := Make(t.Context(), filepath.Join(t.TempDir(), "backup"), s.options())
	testkit.Must(t, err)
	if info.Complete || len(info.Problems) != 1 || !strings.Contains(info.Problems[0], filepath.Base(list[0])) {
		t.Errorf("complete: %v, problems: %q", info.Complete, info.Problems)
	}
}

// fillDisk leaves a disk a few MB, until free is called.
func fillDisk(t *testing.T, dir string) (free func()) {
	t.Helper()
	var st unix.Statfs_t
	testkit.Must(t, unix.Statfs(dir, &st))
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	testkit.Must(t, err)
	defer f.Close()
	testkit.Must(t, unix.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-(8<<20)))
	return func() { testkit.Must(t, os.Remove(filler)) }
}

// A full disk leaves the backup before as it was, and none that looks like one; nor a restored directory that counts.
func TestAFullDiskLeavesTheBackupBefore(t *testing.T) {
	s := newSite(t, disktest.Memory(t))
	disk := disktest.New(t, "mkfs.ext4", "-q")
	dir := filepath.Join(disk.Dir, "backup")
	first, _ := s.backup(dir)
	s.put(upper+"/big", strings.Repeat("0123456789abcdef", 2<<20))
	free := fillDisk(t, disk.Dir)
	if _, _, err := Make(t.Context(), dir, s.options()); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("a backup to a full disk: %v", err)
	}
	names, err := os.ReadDir(dir)
	testkit.Must(t, err)
	for _, e := range names {
		if e.Name() != "lock" && e.Name() != filepath.Base(first) {
			t.Errorf("%s is left", e.Name())
		}
	}
	_, err = Restoration{From: dir}.Verify(t.Context())
	testkit.Must(t, err)
	free()
	s.backup(dir)
	free = fillDisk(t, disk.Dir)
	to := filepath.Join(disk.Dir, "data")
	if _, err := (Restoration{From: dir}).Restore(t.Context(), to); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("a restore to a full disk: %v", err)
	}
	if err := pki.Check(to); !errors.Is(err, pki.ErrNotInitialised) {
		t.Errorf("the directory counts as initialised: %v", err)
	}
	free()
	_, err = Restoration{From: dir}.Restore(t.Context(), to)
	testkit.Must(t, err)
	sameLayers(t, s.data, to)
}

// The digest of a file does not depend on which of its zeros are holes.
func TestDigestsDoNotDependOnHoles(t *testing.T) {
	const size = wholeMax + 3*block + 5
	data := bytes.Repeat([]byte("data"), block/2)
	a := newHasher(size)
	testkit.Must(t, a.write(data, 2*block))
	testkit.Must(t, a.write([]byte("end"), size-3))
	b := newHasher(size)
	testkit.Must(t, b.write(make([]byte, block), block))
	testkit.Must(t, b.write(data[:100], 2*block))
	testkit.Must(t, b.write(data[100:], 2*block+100))
	testkit.Must(t, b.write(make([]byte, 10), 7*block+3))
	testkit.Must(t, b.write(append(make([]byte, 20), "end"...), size-23))
	if a.sum() != b.sum() {
		t.Error("they differ")
	}
	c := newHasher(size)
	testkit.Must(t, c.write(data, 3*block))
	testkit.Must(t, c.write([]byte("end"), size-3))
	if c.sum() == b.sum() {
		t.Error("the same data elsewhere has the same digest")
	}
}
