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

// lab has a master on a file system with a directory beside it, a store on another one, and a Follower of the master.
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
	testkit.Must(t, err, os.MkdirAll(l.master, 0o755), os.Mkdir(filepath.Join(fs, "outside"), 0o755))
	t.Cleanup(func() { s.Close() })
	p, err := pathmatch.Parse("/a1/*")
	testkit.Must(t, err)
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
	testkit.Must(l.t, os.MkdirAll(filepath.Dir(l.in(path)), 0o755), os.WriteFile(l.in(path), []byte(text), 0o644))
}

// skip reports whether a capture leaves out a directory.
func (l *lab) skip(dir string) bool { return dir == "a1" || l.exclude.Cover(dir) }

// plain captures the whole master without notes.
func (l *lab) plain() image.Version {
	l.t.Helper()
	r, err := capture.Run(context.Background(), l.store, l.options("plain"))
	testkit.Must(l.t, err)
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

// newDisk mounts a new file system of a kind and returns its directory. With "" it returns a temporary directory.
func newDisk(t *testing.T, kind string) string {
	t.Helper()
	testkit.NeedRoot(t, "the events of a file system")
	switch kind {
	case "":
		return t.TempDir()
	case "tmpfs":
		dir := t.TempDir()
		testkit.Must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		return dir
	}
	return disktest.New(t, "mkfs."+kind, "-q").Dir
}

// openEvents opens the event queue of the master.
func (l *lab) openEvents() (*eventQueue, *locator) {
	l.t.Helper()
	k, err := openEvents(l.master, unix.FAN_UNLIMITED_QUEUE)
	if _, not := errors.AsType[*unsupportedError](err); not {
		l.t.Skipf("no events here: %v", err)
	}
	testkit.Must(l.t, err)
	l.t.Cleanup(k.close)
	return k, newLocator(l.master, l.skip)
}

// changesUntilNow returns the changes up to the event of a file that it creates outside the master.
func (l *lab) changesUntilNow(k *eventQueue, f *locator) Changes {
	l.t.Helper()
	mark, err := os.CreateTemp(filepath.Join(l.fs, "outside"), "mark")
	testkit.Must(l.t, err, mark.Close())
	defer os.Remove(mark.Name())
	p := newPending(time.Now)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		b, err := k.read(end)
		testkit.Must(l.t, err, f.begin())
		for marked := false; len(b) > 0; {
			var e event
			e, b, err = nextEvent(b)
			testkit.Must(l.t, err, f.record(&e, &p))
			if marked = marked || e.name == filepath.Base(mark.Name()); marked && len(b) == 0 {
				f.end()
				return p.drain()
			}
		}
		f.end()
	}
	l.t.Fatal("not within a minute: the event of a file")
	return Changes{}
}

// always is a file that mutate does not change, because a master that becomes empty is not captured.
const always = "always"

// mutate does something random in the master or beside it.
func (l *lab) mutate(r *rand.Rand) {
	var dirs, files []string
	testkit.Must(l.t, filepath.WalkDir(l.fs, func(path string, e os.DirEntry, err error) error {
		switch {
		case err != nil || len(path) <= len(l.fs) || path == filepath.Dir(l.master) || e.Name() == "lost+found" ||
			e.Name() == always:
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
	// Operations that fail, such as a rename of a directory into itself, are ignored.
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

// compare compares the newest version with a capture of the whole master.
func (l *lab) compare(what string) {
	l.t.Helper()
	got, err := l.store.Resolve(image.Ref{Image: "followed"})
	testkit.Must(l.t, err)
	want := l.plain()
	if got.Digest == want.Digest && got.Files == want.Files && got.Bytes == want.Bytes {
		return
	}
	l.t.Errorf("%s: %d names and %d bytes, want %d and %d", what, got.Files, got.Bytes, want.Files, want.Bytes)
	testkit.Must(l.t, treediff.Diff(context.Background(), l.store.Tree, &want.Root, &got.Root,
		func(c treediff.Change) error {
			l.t.Errorf("%q: want %+v, got %+v", c.Path, c.Old, c.New)
			return nil
		}))
	l.t.FailNow()
}
