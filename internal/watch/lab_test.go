package watch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/capture"
	"dim/internal/disktest"
	"dim/internal/image"
	"dim/internal/image/pathmatch"
	"dim/internal/image/treediff"
	"dim/internal/store"
	"dim/internal/testkit"
)

// lab is a master on a file system with room beside it, a store elsewhere, and what follows the master.
type lab struct {
	t       *testing.T
	fs      string // directory of the file system
	master  string
	store   *store.Store
	follow  *capture.Follower
	exclude pathmatch.List
	reserve func(context.Context) (int, error)
}

func newLab(t *testing.T, fs string) *lab {
	t.Helper()
	l := &lab{t: t, fs: fs, master: filepath.Join(fs, "some where", "master"), reserve: testkit.Counter()}
	s, err := store.Open(filepath.Join(t.TempDir(), "store"), store.Options{})
	must(t, err, os.MkdirAll(l.master, 0o755), os.Mkdir(filepath.Join(fs, "outside"), 0o755))
	t.Cleanup(func() { s.Close() })
	p, err := pathmatch.Parse("/a1/*")
	must(t, err)
	l.store, l.exclude = s, pathmatch.List{p}
	l.follow = capture.NewFollower(s, l.options("followed"))
	return l
}

func (l *lab) options(name string) capture.Options {
	return capture.Options{
		Image: name, Dir: l.master, Exclude: l.exclude, Reserve: l.reserve,
		Now: func() time.Time { return time.Now().Add(10 * time.Second) },
	}
}

func (l *lab) in(path string) string { return filepath.Join(l.master, path) }

func (l *lab) put(path, text string) {
	l.t.Helper()
	must(l.t, os.MkdirAll(filepath.Dir(l.in(path)), 0o755), os.WriteFile(l.in(path), []byte(text), 0o644))
}

// skip is what a capture of the lab's master leaves out.
func (l *lab) skip(dir string) bool { return dir == "a1" || l.exclude.Cover(dir) }

// plain captures everything, with nothing noted.
func (l *lab) plain() image.Version {
	l.t.Helper()
	r, err := capture.Run(context.Background(), l.store, l.options("plain"))
	must(l.t, err)
	return r.Version
}

func (l *lab) do(ctx context.Context, c Changes) (bool, error) {
	var touched *capture.Touched
	if !c.All {
		touched = &capture.Touched{Dirs: c.Dirs, Trees: c.Trees, Inodes: c.Inodes}
	}
	r, err := l.follow.Capture(ctx, touched)
	return r.Changed, err
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// newDisk makes a file system of a kind and returns where it is mounted; "" is that of the temporary files.
func newDisk(t *testing.T, kind string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for the events of a file system")
	}
	switch kind {
	case "":
		return t.TempDir()
	case "tmpfs":
		dir := t.TempDir()
		must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		return dir
	}
	return disktest.New(t, "mkfs."+kind, "-q").Dir
}

// hearing opens the events of the lab's master.
func (l *lab) hearing() (*kernel, *finder) {
	l.t.Helper()
	k, err := openKernel(l.master, unix.FAN_UNLIMITED_QUEUE)
	if _, not := errors.AsType[*UnsupportedError](err); not {
		l.t.Skipf("no events here: %v", err)
	}
	must(l.t, err)
	l.t.Cleanup(k.close)
	return k, newFinder(l.master, l.skip)
}

// heard returns what was told until now: until an event comes of a file that is made now, outside.
func (l *lab) heard(k *kernel, f *finder) Changes {
	l.t.Helper()
	mark, err := os.CreateTemp(filepath.Join(l.fs, "outside"), "mark")
	must(l.t, err, mark.Close())
	defer os.Remove(mark.Name())
	p := newPending(time.Now)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		b, err := k.read(end)
		must(l.t, err, f.begin())
		for marked := false; len(b) > 0; {
			var e event
			e, b, err = nextEvent(b)
			must(l.t, err, f.sort(&e, &p))
			if marked = marked || e.name == filepath.Base(mark.Name()); marked && len(b) == 0 {
				f.end()
				return p.take()
			}
		}
		f.end()
	}
	l.t.Fatal("not within a minute: the event of a file")
	return Changes{}
}

// always is a file that mutate leaves alone: a master that is empty all of a sudden is not captured.
const always = "always"

// mutate does something random in the master or beside it.
func (l *lab) mutate(r *rand.Rand) {
	var dirs, files []string
	must(l.t, filepath.WalkDir(l.fs, func(path string, e os.DirEntry, err error) error {
		switch {
		case err != nil || len(path) <= len(l.fs) || path == filepath.Dir(l.master) || e.Name() == "lost+found" || e.Name() == always:
		case e.IsDir():
			dirs = append(dirs, path)
		default:
			files = append(files, path)
		}
		return err
	}))
	dir := dirs[r.IntN(len(dirs))]
	fresh := filepath.Join(dir, fmt.Sprintf("%c%d", 'a'+r.IntN(3), r.IntN(12)))
	file := fresh
	if len(files) > 0 {
		file = files[r.IntN(len(files))]
	}
	movable := dir != l.master && filepath.Dir(dir) != l.fs
	// What cannot be done, such as to rename a directory into itself, is not done.
	switch r.IntN(12) {
	case 0, 1:
		_ = os.WriteFile(fresh, []byte(fmt.Sprint(r.IntN(10))), 0o644)
	case 2:
		_ = os.WriteFile(file, []byte(fmt.Sprint(r.IntN(10))), 0o644)
	case 3:
		_ = os.Mkdir(fresh, 0o755)
	case 4:
		_ = os.Link(file, fresh)
	case 5:
		_ = os.Remove(file)
	case 6:
		_ = os.Rename(file, fresh)
	case 7:
		if movable {
			_ = os.Rename(dir, fresh)
		}
	case 8:
		if movable && r.IntN(4) == 0 {
			_ = os.RemoveAll(dir)
		}
	case 9:
		_ = os.Chmod(dir, os.FileMode(0o700+r.IntN(64)))
		_ = os.Chmod(file, os.FileMode(0o600+r.IntN(64)))
	case 10:
		_ = unix.Setxattr(dir, "trusted.test", []byte{byte('a' + r.IntN(3))}, 0)
	case 11:
		if other := dirs[r.IntN(len(dirs))]; movable && other != l.master && filepath.Dir(other) != l.fs {
			_ = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
		}
	}
}

// compare compares the newest version with a capture of everything.
func (l *lab) compare(what string) {
	l.t.Helper()
	got, err := l.store.Resolve(image.Ref{Image: "followed"})
	must(l.t, err)
	want := l.plain()
	if got.Digest == want.Digest && got.Files == want.Files && got.Bytes == want.Bytes {
		return
	}
	l.t.Errorf("%s: %d names and %d bytes, want %d and %d", what, got.Files, got.Bytes, want.Files, want.Bytes)
	must(l.t, treediff.Diff(context.Background(), l.store.Tree, &want.Root, &got.Root, func(c treediff.Change) error {
		l.t.Errorf("%q: want %+v, got %+v", c.Path, c.Old, c.New)
		return nil
	}))
	l.t.FailNow()
}
