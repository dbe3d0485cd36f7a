package capture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/store"
	"dim/internal/testkit"
)

// later sets the clock of captures ahead, so that they trust the notes of files that have just been written.
func (l *lab) later() {
	l.o.Now = func() time.Time { return time.Now().Add(10 * time.Second) }
}

// tick waits until the clock of the file system has advanced.
func tick() { time.Sleep(12 * time.Millisecond) }

func paths(r Result) []string {
	var list []string
	for _, c := range r.Changes {
		mark := "~"
		if c.Old == nil {
			mark = "+"
		} else if c.New == nil {
			mark = "-"
		}
		list = append(list, mark+c.Path)
	}
	return list
}

func TestOnlyChangedFilesAreRead(t *testing.T) {
	l := newLab(t)
	l.later()
	for i := range 100 {
		l.write(fmt.Sprintf("d%d/f%d", i%10, i), fmt.Sprint(i))
	}
	first := l.capture()
	if first.Added != 110 || first.FilesRead != 100 || !first.Changed {
		t.Errorf("first: %+v", first)
	}
	tick()
	if r := l.capture(); r.Changed || r.FilesRead != 0 || r.Unchanged != 110 {
		t.Errorf("unchanged: %+v", r)
	}
	tick()
	l.write("d3/f13", "changed")
	l.write("d4/new", "new")
	testkit.Must(t, os.Remove(l.path("d5/f5")), os.Chmod(l.path("d6"), 0o700))
	r := l.capture()
	want := []string{"~d3/f13", "~d4", "+d4/new", "~d5", "-d5/f5", "~d6"}
	if d := cmp.Diff(want, paths(r)); d != "" {
		t.Error(d)
	}
	if r.FilesRead != 2 || r.Added != 1 || r.Removed != 1 || r.Modified != 4 || r.Unchanged != 105 ||
		r.Version.Number != 2 {
		t.Errorf("after a change: %+v", r)
	}
	if r.Version.Parent != 1 || r.Version.Files != 110 {
		t.Errorf("version %+v", r.Version)
	}
	tick()
	if r := l.capture(); r.Changed || r.FilesRead != 0 {
		t.Errorf("unchanged again: %+v", r)
	}
	l.sound()
}

func TestFilesThatChangedDuringACaptureAreReadAgain(t *testing.T) {
	l := newLab(t)
	l.write("f", "1")
	l.capture()
	if r := l.capture(); r.FilesRead != 1 || r.Changed {
		t.Errorf("a file as young as the capture: %d files read, changed %v", r.FilesRead, r.Changed)
	}
	l.later()
	l.capture()
	if r := l.capture(); r.FilesRead != 0 {
		t.Errorf("a file older than the capture: %d files read", r.FilesRead)
	}
}

func TestNewContentWithTheOldSizeAndTimesIsFound(t *testing.T) {
	l := newLab(t)
	l.later()
	l.write("f", "one")
	l.capture()
	var st unix.Stat_t
	testkit.Must(t, unix.Stat(l.path("f"), &st))
	tick()
	l.write("f", "two")
	testkit.Must(t, unix.UtimesNanoAt(unix.AT_FDCWD, l.path("f"), []unix.Timespec{st.Atim, st.Mtim}, 0))
	if r := l.capture(); !r.Changed {
		t.Error("the change went by")
	}
}

// mutate does something random to the master.
func (l *lab) mutate(r *rand.Rand) {
	if _, err := os.Lstat(l.path("always")); err != nil {
		l.write("always", "") // an empty master is refused
	}
	dirs, files := []string{""}, []string{}
	testkit.Must(l.t, filepath.WalkDir(l.o.Dir, func(path string, e os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(l.o.Dir, path); rel != "." && rel != "always" {
			if e.IsDir() {
				dirs = append(dirs, rel)
			} else {
				files = append(files, rel)
			}
		}
		return err
	}))
	dir := dirs[r.IntN(len(dirs))]
	fresh := l.path(filepath.Join(dir, fmt.Sprintf("%c%d", 'a'+r.IntN(3), r.IntN(20))))
	file := ""
	if len(files) > 0 {
		file = l.path(files[r.IntN(len(files))])
	}
	// Operations that fail, such as a rename of a directory into itself, are ignored.
	switch r.IntN(11) {
	case 0, 1:
		_ = os.WriteFile(fresh, []byte(fmt.Sprint(r.IntN(10))), 0o644)
	case 2:
		_ = os.Mkdir(fresh, 0o755)
	case 3:
		_ = os.Link(file, fresh)
	case 4:
		_ = os.Remove(file)
	case 5:
		_ = os.Rename(file, fresh)
	case 6:
		if dir != "" {
			_ = os.Rename(l.path(dir), fresh)
		}
	case 7:
		_ = os.Symlink(fmt.Sprint(r.IntN(3)), fresh)
	case 8:
		if r.IntN(4) == 0 && dir != "" {
			_ = os.RemoveAll(l.path(dir))
		} else {
			_ = os.Chmod(l.path(dir), os.FileMode(0o700+r.IntN(64)))
		}
	case 9:
		_ = unix.Setxattr(l.path(dir), "user.test", []byte{byte('a' + r.IntN(3))}, 0)
	case 10:
		_ = unix.Renameat2(unix.AT_FDCWD, l.path(dir), unix.AT_FDCWD, l.path(dirs[r.IntN(len(dirs))]),
			unix.RENAME_EXCHANGE)
	}
}

func TestCapturesWithNotesAndWithoutAgree(t *testing.T) {
	l := newLab(t)
	l.later()
	l.exclude("/**/c1*", "/a1/*")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for round := range 60 {
		for range r.IntN(6) {
			l.mutate(r)
		}
		with := l.capture()
		plain := l.o
		plain.Image, plain.CacheDir = "plain", ""
		without, err := Run(context.Background(), l.store, plain)
		testkit.Must(t, err)
		if with.Version.Digest != without.Version.Digest {
			testkit.Must(t, treediff.Diff(context.Background(), l.store.Tree, &with.Version.Root, &without.Version.Root,
				func(c treediff.Change) error {
					t.Errorf("%q: with notes %+v, without %+v", c.Path, c.Old, c.New)
					return nil
				}))
			t.Fatalf("round %d: other digests", round)
		}
		if with.Version.Files != without.Version.Files || with.Version.Bytes != without.Version.Bytes {
			t.Fatalf("round %d: %d names and %d bytes with notes, %d and %d without", round, with.Version.Files,
				with.Version.Bytes,
				without.Version.Files, without.Version.Bytes)
		}
		tick()
	}
	l.sound()
}

func TestNotesWithoutTheirVersionAreNotUsed(t *testing.T) {
	l := newLab(t)
	l.later()
	l.write("f", "1")
	one := l.capture()
	s, err := store.Open(filepath.Join(t.TempDir(), "other"), store.Options{})
	testkit.Must(t, err)
	defer s.Close()
	l.store = s
	if r := l.capture(); r.FilesRead != 1 || r.Version.Digest != one.Version.Digest {
		t.Errorf("into another store: %+v", r)
	}
	l.sound()
}

func TestMissingTreesAreBuiltAgain(t *testing.T) {
	l := newLab(t)
	l.later()
	l.write("d/f", "1")
	l.write("d/g", "2")
	r := l.capture()
	d := l.entries(r.Version)["d"]
	testkit.Must(t, os.Remove(filepath.Join(l.store.Dir(), "trees", d.Digest.String()[:2], d.Digest.String())))
	tick()
	l.write("d/f", "3")
	l.capture()
	if r := l.capture(); r.Changed {
		t.Errorf("%+v", r)
	}
}

func TestASecondCaptureOfOneImageIsRefused(t *testing.T) {
	l := newLab(t)
	lock, err := l.store.Lock("capture-test")
	testkit.Must(t, err)
	_, err = Run(context.Background(), l.store, l.o)
	var held *store.LockedError
	if !errors.As(err, &held) {
		t.Errorf("got %v", err)
	}
	lock.Unlock()
	l.capture()
}

func TestACancelledCaptureLeavesNothing(t *testing.T) {
	l := newLab(t)
	for i := range 500 {
		l.write(fmt.Sprintf("d%d/f%d", i%10, i), fmt.Sprint(i))
	}
	for after := range 5 {
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			time.Sleep(time.Duration(after) * 3 * time.Millisecond)
			cancel()
		}()
		_, err := Run(ctx, l.store, l.o)
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		cancel()
		staging, err := os.ReadDir(filepath.Join(l.store.Dir(), "staging"))
		if err != nil || len(staging) > 0 {
			t.Errorf("staging holds %v, %v", staging, err)
		}
	}
	fds, err := os.ReadDir("/proc/self/fd")
	testkit.Must(t, err)
	left := slices.DeleteFunc(fds, func(e os.DirEntry) bool {
		target, _ := os.Readlink("/proc/self/fd/" + e.Name())
		return !filepath.IsAbs(target) || len(target) < len(l.o.Dir) || target[:len(l.o.Dir)] != l.o.Dir
	})
	if len(left) > 0 {
		t.Errorf("%d descriptors of the master are left open", len(left))
	}
	l.sound()
}

func TestProgressEndsWithTheTotals(t *testing.T) {
	l := newLab(t)
	l.later()
	for i := range 100 {
		l.write(fmt.Sprintf("d%d/f%d", i%10, i), "12345")
	}
	var last Progress
	l.o.Progress = func(p Progress) { last = p }
	l.capture()
	if d := cmp.Diff(Progress{Files: 110, Bytes: 500}, last); d != "" {
		t.Error(d)
	}
	l.capture()
	if d := cmp.Diff(Progress{Files: 110, Bytes: 500, TotalFiles: 110, TotalBytes: 500}, last); d != "" {
		t.Error(d)
	}
}

func FuzzParseNotes(f *testing.F) {
	leaf := &dirNote{start: 5, entries: []note{{"b", stamp{ino: 2, nlink: 2}, nil}}}
	n := &notes{fsid: 3, rootIno: 4, linkBytes: 1, links: map[fileID]linkNote{{0, 0, 2}: {"a/b", 1}},
		root: &dirNote{start: 6, tree: image.Sum(nil), bytes: 2,
			entries: []note{{"a", stamp{ino: 1, mode: unix.S_IFDIR}, leaf}, {"c", stamp{}, nil}}}}
	leaf.count()
	n.root.count()
	b := n.encode()
	got, err := parseNotes(b)
	if err != nil {
		f.Fatal(err)
	}
	if d := cmp.Diff(n, got, cmp.AllowUnexported(notes{}, dirNote{}, note{}, totals{}, stamp{}, linkNote{},
		fileID{})); d != "" {
		f.Fatal(d)
	}
	f.Add(b[:len(b)-4])
	f.Add([]byte(notesMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := parseNotes(seal(b))
		if err != nil {
			return
		}
		if again, err := parseNotes(n.encode()); err != nil || again.files() > n.files() {
			t.Errorf("notes that were read and written again: %v", err)
		}
	})
}

// seal appends the checksum, so that the fuzzer reaches the parser.
func seal(b []byte) []byte {
	return appendSum(slices.Clone(b))
}

func TestAFullDiskFailsTheCaptureAndLeavesTheStoreWhole(t *testing.T) {
	testkit.NeedRoot(t, "owners, devices, trusted xattrs and mounts")
	l := newLab(t)
	l.later()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { testkit.Must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	s, err := store.Open(filepath.Join(dir, "store"), store.Options{})
	testkit.Must(t, err)
	defer s.Close()
	l.store = s
	l.write("small", "1")
	l.capture()
	tick()
	for i := range 50 {
		l.write(fmt.Sprintf("big%d", i), fmt.Sprintf("%0100000d", i))
	}
	if _, err := Run(context.Background(), s, l.o); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("got %v, want no space", err)
	}
	l.sound()
	for i := range 40 {
		testkit.Must(t, os.Remove(l.path(fmt.Sprintf("big%d", i))))
	}
	if r := l.capture(); !r.Changed || r.Version.Number != 2 || r.Version.Files != 11 {
		t.Errorf("once there is room: %+v", r)
	}
	l.sound()
}
