package vfstest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"dim/internal/vfs"
)

const workers = 8

// race runs do in several goroutines at the same time. It returns how many succeeded, and the errors of the others.
func race(do func(i int) error) (won int64, errs []error) {
	var wins atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			if err := do(i); err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
				return
			}
			wins.Add(1)
		})
	}
	wg.Wait()
	return wins.Load(), errs
}

// oneSucceeds fails the test unless one call of a race succeeds and the others return want.
func (t *tree) oneSucceeds(want vfs.Errno, do func(i int) error) {
	t.Helper()
	won, errs := race(do)
	t.same("winners", won, int64(1))
	for _, err := range errs {
		t.fails(err, want)
	}
}

func concurrencyCases() []testCase { return slices.Concat(raceCases(), disturbanceCases()) }

func raceCases() []testCase {
	seed := []Entry{
		dir("d", 0o777, owner{}), file("d/f", 0o666, owner{}, strings.Repeat("a", 4096)),
		file("d/g", 0o666, owner{}, strings.Repeat("b", 4096)), dir("e", 0o777, owner{}),
	}
	s := vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o644}
	return []testCase{
		{"of many that create one name exactly one succeeds", seed, func(t *tree) {
			d := t.h("d")
			for round := range 10 {
				t.oneSucceeds(vfs.EEXIST, func(int) error {
					_, err := t.Create(alice(), d, fmt.Sprint("n", round), &vfs.Create{Mode: vfs.Guarded, Attr: s})
					return err
				})
			}
		}},
		{"of many that make one directory exactly one succeeds", seed, func(t *tree) {
			d := t.h("d")
			t.oneSucceeds(vfs.EEXIST, func(int) error { _, err := t.Mkdir(alice(), d, "n", &s); return err })
		}},
		{"of many that link one name exactly one succeeds", seed, func(t *tree) {
			d, f := t.h("d"), t.h("d/f")
			t.oneSucceeds(vfs.EEXIST, func(int) error { _, err := t.Link(alice(), f, d, "n"); return err })
			t.same("nlink", t.attr("d/f").Nlink, uint32(2))
		}},
		{"of many that remove one name exactly one succeeds", seed, func(t *tree) {
			d := t.h("d")
			t.oneSucceeds(vfs.ENOENT, func(int) error { _, err := t.Remove(alice(), d, "f"); return err })
		}},
		{"of many that rename one name exactly one succeeds", seed, func(t *tree) {
			d, e := t.h("d"), t.h("e")
			t.oneSucceeds(vfs.ENOENT, func(i int) error {
				_, err := t.Rename(alice(), d, "f", e, fmt.Sprint("n", i))
				return err
			})
			t.same("names", len(t.names("e")), 1)
		}},
		{"of many that create one name exclusively the one with the verifier succeeds", seed, func(t *tree) {
			d := t.h("d")
			t.oneSucceeds(vfs.EEXIST, func(i int) error {
				_, err := t.Create(alice(), d, "n", &vfs.Create{
					Mode: vfs.Exclusive, Verifier: [8]byte{1, byte(i), 3, 4, 5, 6, 7, byte(i)},
				})
				return err
			})
		}},
		{"a name that files are renamed to always exists", seed, renameOver},
		{"writes to different parts of a file do not affect each other", seed, func(t *tree) {
			f := t.h("d/f")
			won, errs := race(func(i int) error {
				for j := range 32 {
					_, err := t.Write(alice(), f, []byte{byte('A' + i)}, uint64(j*workers+i), vfs.Unstable)
					if err != nil {
						return err
					}
				}
				return nil
			})
			t.same("writers", won, int64(workers))
			t.same("errors", len(errs), 0)
			t.hasContent("d/f", strings.Repeat("ABCDEFGH", 32)+strings.Repeat("a", 4096-256))
		}},
	}
}

func disturbanceCases() []testCase {
	seed := []Entry{
		dir("d", 0o777, owner{}), file("d/f", 0o666, owner{}, strings.Repeat("a", 4096)),
		file("d/g", 0o666, owner{}, strings.Repeat("b", 4096)), dir("e", 0o777, owner{}),
	}
	s := vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o644}
	return []testCase{
		{"each of many changes of a directory has its own before and after", seed, func(t *tree) {
			d := t.h("d")
			var mu sync.Mutex
			befores := make(map[vfs.Time]bool)
			_, errs := race(func(i int) error {
				for j := range 5 {
					how := &vfs.Create{Mode: vfs.Guarded, Attr: s}
					made, err := t.Create(alice(), d, fmt.Sprintf("n-%d-%d", i, j), how)
					if err != nil {
						return err
					}
					mu.Lock()
					if befores[made.Dir.Before.Ctime] || !made.Dir.Before.Ctime.Before(made.Dir.After.Ctime) {
						t.Errorf("two changes started from %v, or the ctime stood still", made.Dir.Before.Ctime)
					}
					befores[made.Dir.Before.Ctime] = true
					mu.Unlock()
				}
				return nil
			})
			t.same("errors", len(errs), 0)
		}},
		{"moves of directories into each other never make a cycle", seed, func(t *tree) {
			for range 10 {
				t.mkdir(root(), "d/x", 0o755)
				t.mkdir(root(), "e/y", 0o755)
				d, e, x, y := t.h("d"), t.h("e"), t.h("d/x"), t.h("e/y")
				race(func(i int) error {
					if i%2 == 0 {
						_, err := t.Rename(root(), d, "x", y, "x")
						return err
					}
					_, err := t.Rename(root(), e, "y", x, "y")
					return err
				})
				for _, p := range []string{"d/x/y", "e/y/x", "d/x", "e/y"} {
					if _, _, err := t.find(p); err == nil {
						t.ok(t.rmdir(root(), p), "rmdir %s", p)
					}
				}
				t.same("names", t.names("e"), []string(nil))
				t.same("names", t.names("d"), []string{"f", "g"})
			}
		}},
	}
}

func renameOver(t *tree) {
	d := t.h("d")
	var wg sync.WaitGroup
	var done atomic.Bool
	wg.Go(func() {
		defer done.Store(true)
		for i := range 100 {
			name := fmt.Sprint("new", i)
			how := vfs.Create{Mode: vfs.Guarded, Attr: vfs.SetAttr{Valid: vfs.SetMode, Mode: 0o644}}
			if _, err := t.Create(root(), d, name, &how); err != nil {
				t.Errorf("create: %v", err)
				return
			}
			if _, err := t.Rename(root(), d, name, d, "f"); err != nil {
				t.Errorf("rename: %v", err)
				return
			}
		}
	})
	for range 4 {
		wg.Go(func() {
			for !done.Load() {
				var a vfs.Attr
				if _, err := t.Lookup(root(), d, "f", &a); err != nil {
					t.Errorf("look up: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
}
