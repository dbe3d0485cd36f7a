package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"dim/internal/disktest"
	"dim/internal/image"
	"dim/internal/testkit"
)

// problems returns what Check finds.
func problems(t *testing.T, s *Store) []string {
	t.Helper()
	var list []string
	o := CheckObserver{Problem: func(p Problem) { list = append(list, p.String()) }}
	testkit.Must(t, s.Check(context.Background(), o))
	slices.Sort(list)
	return list
}

var errKilled = errors.New("killed")

// killAfter returns a store whose process ends at the nth step: all later steps fail, those that clean up too.
func killAfter(t *testing.T, dir string, n int) *Store {
	t.Helper()
	var mu sync.Mutex
	s, err := Open(dir, Options{fault: func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if n--; n < 0 {
			return errKilled
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// die does what the kernel does for a killed process: it closes the files, and so releases the locks.
func (b *Batch) die() {
	b.prune.Unlock()
	b.dir.Close()
}

// life adds a version in a process that is killed when a step fails.
func life(s *Store, files map[string]string) error {
	b, err := s.Begin()
	if err != nil {
		return err
	}
	d, err := fill(b, files)
	if err == nil {
		err = b.commit(context.Background())
	}
	if err != nil {
		b.die()
		return err
	}
	if err := b.release(); err != nil {
		return err
	}
	_, err = s.AddVersion(image.Version{Image: "x", Number: nextNumber(s, "x"), Digest: d})
	return err
}

func TestAProcessKilledAtAnyStepLeavesTheOldStateOrTheNew(t *testing.T) {
	for _, many := range []bool{false, true} {
		old, files := map[string]string{}, map[string]string{}
		for i := range 2 * few {
			old[fmt.Sprint("old", i)] = fmt.Sprint("old", i)
			if many || i < 3 {
				files[fmt.Sprint("new", i)] = fmt.Sprint("new", i)
			}
		}
		done, stride := false, 1
		if many {
			stride = 7
		}
		for n := 0; !done; n += stride {
			dir := disktest.Memory(t)
			if _, err := addVersion(open(t, dir), "x", old); err != nil {
				t.Fatal(err)
			}
			err := life(killAfter(t, dir, n), files)
			done = err == nil
			if !done && !errors.Is(err, errKilled) {
				t.Fatalf("step %d: %v", n, err)
			}
			s := open(t, dir)
			if p := problems(t, s); p != nil {
				t.Fatalf("killed at step %d: %q", n, p)
			}
			if left, err := os.ReadDir(filepath.Join(dir, stagingDir)); err != nil || len(left) > 0 {
				t.Fatalf("killed at step %d: staging holds %v, %v", n, left, err)
			}
			versions, err := s.Versions("x")
			if err != nil || len(versions) < 1 || len(versions) > 2 || done && len(versions) != 2 {
				t.Fatalf("killed at step %d: %d versions, %v", n, len(versions), err)
			}
			if _, err := addVersion(s, "x", files); err != nil {
				t.Fatalf("killed at step %d: going on: %v", n, err)
			}
			if n > 2000 {
				t.Fatal("there is no end of steps")
			}
		}
	}
}

func TestManyBatchesAtOnce(t *testing.T) {
	dir := disktest.Memory(t)
	stores := []*Store{open(t, dir), open(t, dir)} // two processes
	var last [4]atomic.Int32                       // number of each image
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			number := func() int { return int(last[i%4].Add(1)) }
			for j := range 4 {
				files := map[string]string{}
				for k := range 40 {
					files[fmt.Sprint(k)] = fmt.Sprint("content ", (i+j+k)%50) // other batches put the same
				}
				if _, err := addNumbered(stores[i%2], fmt.Sprint("image", i%4), number, files); err != nil {
					t.Error(err)
				}
				open(t, dir) // must not remove what open batches have staged
			}
		})
	}
	wg.Wait()
	if p := problems(t, stores[0]); p != nil {
		t.Errorf("%q", p)
	}
	for i := range 4 {
		versions, err := stores[0].Versions(fmt.Sprint("image", i))
		if err != nil || len(versions) != 8 || versions[7].Number != 8 {
			t.Errorf("image%d: %d versions, want 8 with numbers 1 to 8: %v", i, len(versions), err)
		}
	}
}

func TestPutsOfOneBatchMayBeConcurrent(t *testing.T) {
	s := open(t, t.TempDir())
	b := begin(t, s)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for k := range 100 {
				if _, err := b.PutBytes([]byte(fmt.Sprint(k))); err != nil {
					t.Error(err)
				}
				if _, err := b.PutBlob(context.Background(), strings.NewReader(fmt.Sprint("s", k))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n, _ := b.Staged(); n != 200 {
		t.Errorf("%d objects are staged, want 200", n)
	}
	if err := b.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	if p := problems(t, s); p != nil {
		t.Errorf("%q", p)
	}
}

func TestAFullDiskIsAnErrorAndHarmsNothing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a tmpfs")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := open(t, dir)
	small := map[string]string{"a": "1"}
	if _, err := addVersion(s, "x", small); err != nil {
		t.Fatal(err)
	}
	big := map[string]string{}
	for i := range 100 {
		big[fmt.Sprint(i)] = strings.Repeat(fmt.Sprint(i), 50_000)
	}
	if _, err := addVersion(s, "x", big); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("got %v, want no space", err)
	}
	if p := problems(t, s); p != nil {
		t.Errorf("%q", p)
	}
	if v, err := s.Versions("x"); err != nil || len(v) != 1 {
		t.Errorf("%d versions, %v", len(v), err)
	}
	maps.Copy(small, map[string]string{"b": "2"})
	if _, err := addVersion(s, "x", small); err != nil {
		t.Errorf("once there is room: %v", err)
	}
}

func TestCheckFindsAllDamage(t *testing.T) {
	s := open(t, t.TempDir())
	v, err := addVersion(s, "x", map[string]string{"a": "1", "b": "2", "c": "3"})
	if err != nil {
		t.Fatal(err)
	}
	blob := func(content string) string { return objectPath(blobsDir, image.Sum([]byte(content))) }
	for _, step := range []error{
		os.Remove(s.path(blob("1"))),
		os.Chmod(s.path(blob("2")), 0o600),
		os.WriteFile(s.path(blob("2")), []byte("22"), 0o600),
		os.WriteFile(filepath.Dir(s.path(blob("3")))+"/stray", nil, 0o600),
		os.Remove(s.path(blob("3"))),
		os.Symlink("/etc/passwd", s.path(blob("3"))),
		os.WriteFile(s.path(versionsDir, "x", "2.json"), []byte("{"), 0o600),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	want := []string{"stray", "2.json", blob("2"), blob("3"), "/a: blob", "/b: corrupt", "/c: corrupt"}
	got := problems(t, s)
	for _, w := range want {
		if !slices.ContainsFunc(got, func(p string) bool { return strings.Contains(p, w) }) {
			t.Errorf("nothing about %q of version %s in %q", w, v.Ref(), got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d problems, want %d: %q", len(got), len(want), got)
	}
}

func TestAFileThatChangesWhileItIsReadIsStoredAsItWasHashed(t *testing.T) {
	s := open(t, t.TempDir())
	path := filepath.Join(t.TempDir(), "f")
	f := testkit.Value(os.Create(path))(t)
	defer f.Close()
	const size = 8 << 20
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				_, _ = f.WriteAt([]byte(strings.Repeat(fmt.Sprint(i%10), 1000)), int64(i*4001%size))
			}
		}
	})
	r := testkit.Value(os.Open(path))(t)
	defer r.Close()
	for range 5 {
		b := begin(t, s)
		if _, err := b.PutFile(context.Background(), int(r.Fd()), r.Name()); err != nil {
			t.Fatal(err)
		}
		if err := b.Commit(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	if p := problems(t, s); p != nil {
		t.Errorf("%q", p)
	}
}
