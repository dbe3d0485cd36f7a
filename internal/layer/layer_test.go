package layer

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/testkit"
)

// A size near the largest possible must not count as a negative number.
func TestOccupiedCountsTheLargestFile(t *testing.T) {
	for _, size := range []int64{math.MaxInt64, math.MaxInt64 - block, 1 << 62} {
		if n := Occupied(&unix.Stat_t{Mode: unix.S_IFREG, Size: size, Blocks: 8}); n != block {
			t.Errorf("size %d: counted %d", size, n)
		}
	}
}

func TestOccupiedCountsLinksWithLongTargets(t *testing.T) {
	for size, want := range map[int64]int64{0: 0, 59: 0, 60: block, block: block, block + 1: 2 * block} {
		if n := Occupied(&unix.Stat_t{Mode: unix.S_IFLNK, Size: size}); n != want {
			t.Errorf("target of %d bytes: counted %d, want %d", size, n, want)
		}
	}
}

func TestHomeNamesTheDirectoriesOfAReplica(t *testing.T) {
	const home = Home("n01/compute")
	got := []string{
		home.Upper(""), home.Upper("etc/a"), home.Work(), home.Saved(), home.Saved("T", ""), home.Snapshots("T", "a"),
	}
	want := []string{
		"n01/compute/upper", "n01/compute/upper/etc/a", "n01/compute/work", "n01/compute/saved", "n01/compute/saved/T",
		"n01/compute/snapshots/T/a",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := Home("").Saved("T"); got != "saved/T" {
		t.Errorf("relative: %q", got)
	}
}

// open opens a new directory.
func open(t *testing.T) (Dir, string) {
	t.Helper()
	path := t.TempDir()
	fd := testkit.Value(unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0))(t)
	t.Cleanup(func() { unix.Close(fd) })
	return Dir(fd), path
}

func TestAPathFollowsNoLinkAndStaysInTheDirectory(t *testing.T) {
	dir, path := open(t)
	testkit.Must(t, os.Symlink("/etc", filepath.Join(path, "link")))
	for _, p := range []string{"link", "link/passwd", "../x", "/etc"} {
		if fd, err := dir.Open(p, unix.O_RDONLY); err == nil {
			unix.Close(fd)
			t.Errorf("%s was opened", p)
		}
	}
}

func TestAPathMayBeLongerThanTheKernelTakes(t *testing.T) {
	dir, _ := open(t)
	long := strings.Repeat(strings.Repeat("d", 99)+"/", 60) + "end"
	fd := testkit.Value(dir.MakePath(long, func(int) error { return nil }))(t)
	unix.Close(fd)
	var st unix.Stat_t
	if err := dir.Stat(long, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		t.Errorf("a path of %d bytes: %v", len(long), err)
	}
	testkit.Must(t, dir.RemoveAll(strings.Repeat("d", 99)))
}

func TestStampsAreListedLatestFirst(t *testing.T) {
	dir, path := open(t)
	for _, name := range []string{
		"20260101T000000.000000001Z", "20260102T000000.000000000Z", "#new-20260103T000000.000000000Z", "x",
	} {
		testkit.Must(t, os.Mkdir(filepath.Join(path, name), 0o700))
	}
	got := testkit.Value(dir.Stamps("."))(t)
	day := time.Date(2026, 1, 1, 0, 0, 0, 1, time.UTC)
	if diff := cmp.Diff([]time.Time{day.Add(24*time.Hour - 1), day}, got); diff != "" {
		t.Error(diff)
	}
	if got, err := dir.Stamps("missing"); err != nil || len(got) > 0 {
		t.Errorf("a missing directory: %v, %v", got, err)
	}
}

func TestAnIDIsReadAsItWasSet(t *testing.T) {
	testkit.NeedRoot(t, "ids are in trusted attributes")
	dir, path := open(t)
	testkit.Must(t, os.WriteFile(filepath.Join(path, "f"), nil, 0o600))
	f, buf := At(int(dir), "f"), make([]byte, 64)
	if _, _, _, err := f.ID(buf); !errors.Is(err, unix.ENODATA) {
		t.Errorf("a file without an id: %v", err)
	}
	digest := image.Sum([]byte("x"))
	for _, origin := range []*image.Digest{nil, &digest} {
		want := NewID()
		testkit.Must(t, f.SetID(want, origin))
		id, got, ok, err := f.ID(buf)
		if id != want || !cmp.Equal(got, origin) || !ok || err != nil {
			t.Errorf("read %x, %v, %v, %v", id, got, ok, err)
		}
	}
	testkit.Must(t, f.setXattr(xattrID, []byte("short")))
	if _, _, ok, err := f.ID(buf); ok || err != nil {
		t.Errorf("an id of 5 bytes: %v, %v", ok, err)
	}
}

func TestACopyIsTheSameAndKeepsHardLinks(t *testing.T) {
	testkit.NeedRoot(t, "layers have whiteouts and trusted attributes")
	dir, path := open(t)
	testkit.Must(t, os.MkdirAll(filepath.Join(path, "from/sub"), 0o755), os.Mkdir(filepath.Join(path, "to"), 0o700),
		os.WriteFile(filepath.Join(path, "from/sub/f"), []byte("content"), 0o640),
		os.Symlink("f", filepath.Join(path, "from/sub/s")),
		os.Link(filepath.Join(path, "from/sub/f"), filepath.Join(path, "from/link")),
		unix.Mknod(filepath.Join(path, "from/gone"), unix.S_IFCHR, 0))
	sub := At(testkit.Value(dir.OpenDir("from/sub"))(t), ".")
	defer unix.Close(sub.FD)
	testkit.Must(t, sub.SetOpaque(), At(sub.FD, "f").SetID(NewID(), nil))

	c := Copy{Root: dir, From: "from", To: "to", Fault: func(string) error { return nil }}
	testkit.Must(t, c.Run())
	copied := At(testkit.Value(dir.OpenDir("to/sub"))(t), ".")
	defer unix.Close(copied.FD)
	if c.Files != 5 || !copied.Opaque() {
		t.Errorf("%d entries, opaque: %v", c.Files, copied.Opaque())
	}
	for _, name := range []string{"f", "s"} {
		a, b := At(sub.FD, name), At(copied.FD, name)
		if !testkit.Value(a.SameContent(b))(t) || !testkit.Value(a.SameXattrs(b))(t) {
			t.Errorf("%s differs", name)
		}
	}
	var f, link, gone unix.Stat_t
	testkit.Must(t, dir.Stat("to/sub/f", &f), dir.Stat("to/link", &link), dir.Stat("to/gone", &gone))
	if f.Ino != link.Ino || f.Mode&0o7777 != 0o640 || !IsWhiteout(&gone) {
		t.Errorf("inodes %d and %d, mode %o, whiteout: %v", f.Ino, link.Ino, f.Mode, IsWhiteout(&gone))
	}
}
