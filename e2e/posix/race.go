package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const racers = 8

// oneWins runs do several times in parallel. One call must succeed, and the others must return want.
func (t *testRun) oneWins(want unix.Errno, do func(i int) error) {
	t.begin()
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			err := do(i)
			if err == nil {
				won.Add(1)
				return
			}
			if !errors.Is(err, want) {
				t.errorf("got %v, want %v", err, want)
			}
		})
	}
	wg.Wait()
	same(t, "winners", won.Load(), 1)
}

func raceCases() []testCase {
	return []testCase{
		{"of many that create one name exactly one wins", "", func(t *testRun) {
			for round := range 20 {
				t.oneWins(unix.EEXIST, func(int) error {
					return t.open(fmt.Sprint("n", round), unix.O_CREAT|unix.O_EXCL|wr)
				})
			}
		}},
		{"of many that make one directory exactly one wins", "", func(t *testRun) {
			for round := range 20 {
				t.oneWins(unix.EEXIST, func(int) error { return unix.Mkdir(t.p(fmt.Sprint("n", round)), 0o755) })
			}
		}},
		{"of many that remove one name exactly one wins", "", func(t *testRun) {
			for range 20 {
				t.file("f", "", perm{0o644, 0, 0})
				t.oneWins(unix.ENOENT, func(int) error { return unix.Unlink(t.p("f")) })
			}
		}},
		{"of many that rename one name exactly one wins", "", func(t *testRun) {
			for round := range 20 {
				t.file("f", "", perm{0o644, 0, 0})
				t.oneWins(unix.ENOENT, func(i int) error { return t.rename("f", fmt.Sprintf("n-%d-%d", round, i)) })
			}
		}},
		{"of many that link one name exactly one wins", "", func(t *testRun) {
			t.file("f", "", perm{0o644, 0, 0})
			for round := range 20 {
				t.oneWins(unix.EEXIST, func(int) error { return unix.Link(t.p("f"), t.p(fmt.Sprint("n", round))) })
			}
		}},
		{"a name that files are renamed over is always there and whole", "", renamedOver},
		{"directories moved into each other make no ring", "", func(t *testRun) {
			for range 20 {
				t.mkdir("x", 0o755, 0, 0)
				t.mkdir("y", 0o755, 0, 0)
				var wg sync.WaitGroup
				wg.Go(func() { t.rename("x", "y/x") })
				wg.Go(func() { t.rename("y", "x/y") })
				wg.Wait()
				left := 0
				for _, n := range []string{"x/y", "y/x", "x", "y"} {
					err := unix.Rmdir(t.p(n))
					if err == nil {
						left++
					} else if !errors.Is(err, fs.ErrNotExist) {
						t.errorf("rmdir %s: %v", n, err)
					}
				}
				same(t, "directories", left, 2)
			}
		}},
	}
}

// lostAfterOpen reports whether a file vanished between open and read, on a server that does not retain removed
// files. NFSv3 has no open, so such a server does not know the reader, and the client keeps the old file under
// another name only if it saw the open in time (nfs_rename in fs/nfs/dir.c). The open itself must never fail.
func (t *testRun) lostAfterOpen(err error) bool {
	at, ok := errors.AsType[*fs.PathError](err)
	return ok && t.forgets && at.Op == "read" && errors.Is(at.Err, unix.ESTALE)
}

func renamedOver(t *testRun) {
	content := func(i int) string { return strings.Repeat(fmt.Sprint(i%10), 1000) }
	t.file("f", content(0), perm{0o644, 0, 0})
	var done atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		defer done.Store(true)
		for i := range 100 {
			if err := os.WriteFile(t.p("f.new"), []byte(content(i)), 0o644); err != nil {
				t.errorf("write: %v", err)
			}
			if err := t.rename("f.new", "f"); err != nil {
				t.errorf("rename: %v", err)
			}
		}
	})
	for range 3 {
		wg.Go(func() {
			for !done.Load() {
				b, err := os.ReadFile(t.p("f"))
				if t.lostAfterOpen(err) {
					continue
				}
				if err != nil || len(b) != 1000 || strings.Trim(string(b), string(b[:1])) != "" {
					t.errorf("read %d bytes, %v", len(b), err)
					return
				}
			}
		})
	}
	wg.Wait()
}
