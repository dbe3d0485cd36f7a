package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"dim/internal/disktest"
	"dim/internal/image"
	"dim/internal/testkit"
)

// sound checks what holds at any time: Check finds no problem, and the store has all objects that any tree names.
func sound(t *testing.T, s *Store) {
	t.Helper()
	if p := problems(t, s); p != nil {
		t.Fatalf("%q", p)
	}
	for _, d := range objects(t, s, treesDir) {
		enc, err := s.encodedTree(d, nil)
		if err != nil {
			t.Fatal(err)
		}
		list, err := image.ParseTree(enc, nil)
		if root, rerr := image.ParseRoot(enc); rerr == nil {
			list, err = image.Tree{root}, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			missing := e.Type == image.Directory && !s.has(object{treesDir, e.Digest}) ||
				e.Type == image.Regular && !s.has(object{blobsDir, e.Digest})
			if missing {
				t.Fatalf("tree %s is there, %q in it is not", d.Short(), e.Name)
			}
		}
	}
}

func objects(t *testing.T, s *Store, kind string) (list []image.Digest) {
	t.Helper()
	for _, fan := range testkit.Value(os.ReadDir(s.path(kind)))(t) {
		for _, e := range testkit.Value(os.ReadDir(s.path(kind, fan.Name())))(t) {
			list = append(list, testkit.Value(image.ParseDigest(e.Name()))(t))
		}
	}
	return list
}

// deep adds a version with directories in directories.
func deep(t *testing.T, s *Store, name string, contents ...string) image.Version {
	t.Helper()
	b := begin(t, s)
	dir := testkit.Value(b.PutTree(nil))(t)
	for i, content := range contents {
		d := testkit.Value(b.PutBytes([]byte(content)))(t)
		dir = testkit.Value(b.PutTree(image.Tree{
			{Name: "d", Type: image.Directory, Mode: 0o755, Digest: dir},
			{Name: fmt.Sprint("f", i), Type: image.Regular, Mode: 0o644, Size: uint64(len(content)), Digest: d},
		}))(t)
	}
	root := testkit.Value(b.PutRoot(image.Entry{Type: image.Directory, Mode: 0o755, Digest: dir}))(t)
	if err := b.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	return testkit.Value(s.AddVersion(image.Version{Image: name, Number: nextNumber(s, name), Digest: root}))(t)
}

func TestSweepRemovesUnusedObjects(t *testing.T) {
	s := open(t, t.TempDir())
	deep(t, s, "x", "shared", "one")
	two := deep(t, s, "x", "shared", "two")
	deep(t, s, "y", "two")
	before := len(objects(t, s, treesDir)) + len(objects(t, s, blobsDir))
	if g := testkit.Value(s.Sweep(context.Background(), nil))(t); g.Objects != 0 {
		t.Errorf("%d objects are garbage of nothing", g.Objects)
	}
	one := image.Ref{Image: "x", Number: 1}
	plan := testkit.Value(s.Garbage(context.Background(), []image.Ref{one}, nil))(t)
	if err := s.RemoveVersion(one); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveVersion(one); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	g := testkit.Value(s.Sweep(context.Background(), nil))(t)
	// The blob "one", the tree that names it, and the root.
	if g.Objects != 3 || plan.Objects != 3 || g.Bytes == 0 || plan.Bytes != g.Bytes {
		t.Errorf("planned %d objects of %d bytes, removed %d of %d", plan.Objects, plan.Bytes, g.Objects, g.Bytes)
	}
	if left := len(objects(t, s, treesDir)) + len(objects(t, s, blobsDir)); left != before-3 {
		t.Errorf("%d objects are left, want %d", left, before-3)
	}
	if v := testkit.Value(s.Resolve(image.Ref{Image: "x"}))(t); v.Digest != two.Digest {
		t.Errorf("the newest is %s", v.Ref())
	}
	sound(t, s)
}

func TestRootsStayWithoutAVersion(t *testing.T) {
	s := open(t, t.TempDir())
	v := deep(t, s, "x", "a", "b")
	if err := s.RemoveVersion(v.Ref()); err != nil {
		t.Fatal(err)
	}
	roots := []image.Digest{v.Digest, image.Sum([]byte("not there"))}
	if g := testkit.Value(s.Sweep(context.Background(), roots))(t); g.Objects != 0 {
		t.Errorf("%d objects were removed", g.Objects)
	}
	if g := testkit.Value(s.Sweep(context.Background(), nil))(t); g.Objects != 6 {
		t.Errorf("%d objects were removed, want 6", g.Objects)
	}
	sound(t, s)
}

func TestNothingIsRemovedDuringABatchOrAHold(t *testing.T) {
	s := open(t, t.TempDir())
	lock := testkit.Value(s.Lock("capture-compute"))(t)
	b := begin(t, s)
	testkit.Value(b.PutBytes([]byte("x")))(t)
	_, err := s.Sweep(context.Background(), nil)
	want := fmt.Sprintf("capture-compute: pid %d ", os.Getpid())
	if locked, ok := errors.AsType[*LockedError](err); !ok || !strings.HasPrefix(locked.Holder, want) {
		t.Errorf("during a batch: %v", err)
	}
	if err := b.Abort(); err != nil {
		t.Fatal(err)
	}
	lock.Unlock()
	hold := testkit.Value(s.Hold())(t)
	if _, err := s.Sweep(context.Background(), nil); err == nil {
		t.Error("swept during a Hold")
	}
	hold.Unlock()
	if _, err := s.Sweep(context.Background(), nil); err != nil {
		t.Error(err)
	}
}

// TestASweepThatIsRefusedTakesNoLocks checks that a capture can begin while a sweep looks for the holder of objects.
func TestASweepThatIsRefusedTakesNoLocks(t *testing.T) {
	s := open(t, t.TempDir())
	testkit.Value(s.Lock("capture-idle"))(t).Unlock()
	hold := testkit.Value(s.Hold())(t)
	defer hold.Unlock()
	var stop atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop.Store(true)
	wg.Go(func() {
		for !stop.Load() {
			if _, err := s.Sweep(context.Background(), nil); err == nil {
				t.Error("swept during a Hold")
			}
		}
	})
	for range 100 {
		lock, err := s.Lock("capture-idle")
		if err != nil {
			t.Fatal(err)
		}
		lock.Unlock()
	}
}

func TestAVersionThatCannotBeReadStopsASweep(t *testing.T) {
	s := open(t, t.TempDir())
	deep(t, s, "x", "a")
	deep(t, s, "x", "b")
	if err := os.WriteFile(s.path(versionsDir, "x", "1.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := len(objects(t, s, blobsDir))
	if _, err := s.Sweep(context.Background(), nil); !errors.Is(err, errCorrupt) {
		t.Errorf("got %v", err)
	}
	if left := len(objects(t, s, blobsDir)); left != before {
		t.Errorf("%d blobs are left of %d", left, before)
	}
}

func TestAPruneKilledAtAnyStepLeavesAWholeStore(t *testing.T) {
	for n, done := 0, false; !done; n++ {
		dir := disktest.Memory(t)
		s := open(t, dir)
		deep(t, s, "x", "shared", "a", "b", "c")
		two := deep(t, s, "x", "shared", "d")
		one := image.Ref{Image: "x", Number: 1}
		dying := killAfter(t, dir, n)
		err := dying.RemoveVersion(one)
		if err == nil {
			_, err = dying.Sweep(context.Background(), nil)
		}
		if done = err == nil; !done && !errors.Is(err, errKilled) {
			t.Fatalf("step %d: %v", n, err)
		}
		s = open(t, dir)
		sound(t, s)
		if v, err := s.Resolve(image.Ref{Image: "x"}); err != nil || v.Digest != two.Digest {
			t.Fatalf("step %d: the version that stays: %v", n, err)
		}
		if err := s.RemoveVersion(one); err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatalf("step %d: once more: %v", n, err)
		}
		testkit.Value(s.Sweep(context.Background(), nil))(t)
		if left := len(objects(t, s, treesDir)) + len(objects(t, s, blobsDir)); left != 6 {
			t.Fatalf("step %d: %d objects are left, want the 6 of the other version", n, left)
		}
		sound(t, s)
		if n > 100 {
			t.Fatal("there is no end of steps")
		}
	}
}

func TestVersionsAreAddedAndRemovedAtOnce(t *testing.T) {
	dir := disktest.Memory(t)
	stores := []*Store{open(t, dir), open(t, dir)} // two processes
	stop := make(chan struct{})
	var makers, sweeper sync.WaitGroup
	for i := range 3 {
		makers.Go(func() {
			s := stores[i%2]
			for j := range 40 {
				hold := testkit.Value(s.Hold())(t)
				v := deep(t, s, fmt.Sprint("image", i), "shared", fmt.Sprint("content", j%5))
				hold.Unlock()
				if j > 0 {
					if err := s.RemoveVersion(image.Ref{Image: v.Image, Number: v.Number - 1}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	swept := 0
	sweeper.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			_, err := stores[1].Sweep(context.Background(), nil)
			if _, busy := errors.AsType[*LockedError](err); err != nil && !busy {
				t.Error(err)
			}
			if err == nil {
				swept++
			}
		}
	})
	makers.Wait()
	close(stop)
	sweeper.Wait()
	t.Logf("%d sweeps", swept)
	sound(t, stores[0])
}

func TestAVersionIsCheckedByItself(t *testing.T) {
	s := open(t, t.TempDir())
	one := deep(t, s, "x", "a", "b", "c")
	two := deep(t, s, "x", "a", "d")
	check := func(v image.Version) (list []string, last CheckProgress) {
		t.Helper()
		err := s.CheckVersion(context.Background(), v, CheckObserver{
			Problem: func(p Problem) { list = append(list, p.String()) }, Progress: func(c CheckProgress) { last = c },
		})
		if err != nil {
			t.Fatal(err)
		}
		return list, last
	}
	if p, last := check(one); p != nil || last != (CheckProgress{Objects: 8, Bytes: 3}) { // 3 blobs, 4 trees, the root
		t.Errorf("%q %+v", p, last)
	}
	blob := s.blobPath(image.Sum([]byte("d")))
	if err := errors.Join(os.Chmod(blob, 0o600), os.WriteFile(blob, []byte("e"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if p, _ := check(one); p != nil {
		t.Errorf("what another version has: %q", p)
	}
	if p, _ := check(two); len(p) != 1 || !strings.Contains(p[0], "corrupt") {
		t.Errorf("%q", p)
	}
	if err := os.Remove(s.path(objectPath(treesDir, two.Digest))); err != nil {
		t.Fatal(err)
	}
	if p, _ := check(two); len(p) != 1 || !strings.HasPrefix(p[0], "x@2: ") {
		t.Errorf("without its root: %q", p)
	}
}
