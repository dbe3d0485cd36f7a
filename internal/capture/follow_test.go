package capture

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/store"
	"dim/internal/testkit"
)

// stamps returns the stamps of all entries of the master; that of the root has the path "".
func (l *lab) stamps() map[string]stamp {
	l.t.Helper()
	all := map[string]stamp{}
	testkit.Must(l.t, filepath.WalkDir(l.o.Dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var x unix.Statx_t
		rel, _ := filepath.Rel(l.o.Dir, path)
		if rel == "." {
			rel = ""
		}
		err = unix.Statx(unix.AT_FDCWD, path, statxFlags, statxMask, &x)
		all[rel] = (&device{major: x.Dev_major, minor: x.Dev_minor}).stamp(&x)
		return err
	}))
	return all
}

// touchedBetween returns what the kernel reports when a becomes b: the directories in which a name has come, gone or
// changed, and directories that were moved.
func touchedBetween(a, b map[string]stamp) *Touched {
	t := &Touched{}
	up := func(path string) string { return strings.TrimPrefix(filepath.Dir("/"+path), "/") }
	was := map[fileID]string{}
	for path, s := range a {
		was[s.id()] = path
		if _, still := b[path]; !still {
			t.Dirs = append(t.Dirs, up(path))
		}
	}
	for path, s := range b {
		old, there := a[path]
		if there && old == s {
			continue
		}
		t.Dirs = append(t.Dirs, up(path))
		if s.isDir() {
			t.Dirs = append(t.Dirs, path)
			if was[s.id()] != path {
				t.Trees = append(t.Trees, path)
			}
		}
	}
	return t
}

func (l *lab) followed(f *Follower, t *Touched) Result {
	l.t.Helper()
	r, err := f.Capture(context.Background(), t)
	testkit.Must(l.t, err)
	return r
}

// plain captures the whole master without notes, as another image.
func (l *lab) plain() Result {
	l.t.Helper()
	o := l.o
	o.Image, o.CacheDir = "plain", ""
	r, err := Run(context.Background(), l.store, o)
	testkit.Must(l.t, err)
	return r
}

func (l *lab) same(what string, got, want image.Version) {
	l.t.Helper()
	if got.Digest == want.Digest && got.Files == want.Files && got.Bytes == want.Bytes {
		return
	}
	l.t.Errorf("%s: %s, %d names, %d bytes; want %s, %d, %d", what, got.Digest.Short(), got.Files, got.Bytes,
		want.Digest.Short(), want.Files, want.Bytes)
	testkit.Must(l.t, treediff.Diff(context.Background(), l.store.Tree, &want.Root, &got.Root,
		func(c treediff.Change) error {
			l.t.Errorf("%q: want %+v, got %+v", c.Path, c.Old, c.New)
			return nil
		}))
	l.t.FailNow()
}

func TestACaptureOfTouchedDirectoriesEqualsAFullOne(t *testing.T) {
	l := newLab(t)
	l.later()
	l.exclude("/**/c1*", "/a1/*")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	f := NewFollower(l.store, l.o)
	l.followed(f, nil)
	for round := range 40 {
		before := l.stamps()
		for range 1 + r.IntN(5) {
			l.mutate(r)
		}
		touched := touchedBetween(before, l.stamps())
		got := l.followed(f, touched)
		l.same(fmt.Sprintf("round %d, %+v", round, touched), got.Version, l.plain().Version)
		if round%20 == 0 { // the notes on the disk have the same effect
			testkit.Must(t, f.Close())
			f = NewFollower(l.store, l.o)
		}
		if round%10 == 0 {
			if r := l.followed(f, nil); r.Changed {
				t.Fatalf("round %d: a walk finds more: %v", round, r.Changes)
			}
		}
		tick()
	}
	l.sound()
}

func TestOnlyTouchedDirectoriesAreRead(t *testing.T) {
	l := newLab(t)
	l.later()
	for i := range 100 {
		l.write(fmt.Sprintf("a/d%d/f%d", i%10, i), fmt.Sprint(i))
	}
	f := NewFollower(l.store, l.o)
	l.followed(f, nil)
	tick()
	l.write("a/d3/f13", "seen")
	l.write("a/d4/f14", "not seen")
	r := l.followed(f, &Touched{Dirs: []string{"a/d3"}})
	if d := cmp.Diff([]string{"~a/d3/f13"}, paths(r)); d != "" || r.FilesRead != 1 {
		t.Errorf("%d files read, %s", r.FilesRead, d)
	}
	if r := l.followed(f, &Touched{}); r.Changed || r.FilesRead != 0 {
		t.Errorf("nothing touched: %v", paths(r))
	}
	if r := l.followed(f, &Touched{Trees: []string{"a"}}); cmp.Diff([]string{"~a/d4/f14"}, paths(r)) != "" {
		t.Errorf("a tree: %v", paths(r))
	}
	tick()
	l.write("a/d5/f15", "by inode")
	var st unix.Stat_t
	testkit.Must(t, unix.Stat(l.path("a/d5/f15"), &st))
	if r := l.followed(f, &Touched{Inodes: []uint64{st.Ino}}); cmp.Diff([]string{"~a/d5/f15"}, paths(r)) != "" {
		t.Errorf("an inode: %v", paths(r))
	}
	l.sound()
}

func TestTouchedDirectoriesMayBeGone(t *testing.T) {
	l := newLab(t)
	l.later()
	l.write("a/b/c/f", "1")
	l.write("x/f", "2")
	f := NewFollower(l.store, l.o)
	l.followed(f, nil)
	tick()
	testkit.Must(t, os.RemoveAll(l.path("a/b")))
	l.write("a/b", "a file now")
	r := l.followed(f, &Touched{Dirs: []string{"a/b/c", "a/b", "no/where"}, Trees: []string{"x/f/nothing"}})
	l.same("a directory that became a file", r.Version, l.plain().Version)
}

func TestAReplacedMasterIsReadCompletely(t *testing.T) {
	l := newLab(t)
	l.later()
	l.write("d/f", "1")
	f := NewFollower(l.store, l.o)
	l.followed(f, nil)
	testkit.Must(t, os.Rename(l.o.Dir, l.o.Dir+".old"), os.Mkdir(l.o.Dir, 0o755))
	l.write("d/f", "2")
	r := l.followed(f, &Touched{})
	l.same("another directory", r.Version, l.plain().Version)
}

func TestAFollowerWhoseVersionIsRemovedReadsEverything(t *testing.T) {
	l := newLab(t)
	l.later()
	l.write("d/f", "1")
	f := NewFollower(l.store, l.o)
	l.followed(f, nil)
	s, err := store.Open(filepath.Join(t.TempDir(), "other"), store.Options{})
	testkit.Must(t, err)
	defer s.Close()
	f.store, l.store = s, s
	r := l.followed(f, &Touched{})
	l.same("another store", r.Version, l.plain().Version)
	l.sound()
}
