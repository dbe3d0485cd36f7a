package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// testCase is one property to check.
type testCase struct {
	name  string
	noNFS string // why NFSv3 cannot do it; empty: it can
	run   func(t *testRun)
}

func allCases() []testCase {
	return slices.Concat(fileCases(), dataCases(), permissionCases(), modeCases(), ownerCases(), timeCases(),
		linkCases(),
		renameCases(), renameRefusedCases(), directoryCases(), openCases(), raceCases(), stressCases(), kindCases(),
		hiddenCases(),
		errorCases(), groupCases(), lostBitCases(), offsetCases())
}

// runAll runs each case in a directory of its own below c.dir.
func runAll(c config, w io.Writer) (passed, failed int, err error) {
	if err := os.Chmod(c.dir, 0o755); err != nil {
		return 0, 0, err
	}
	for i, tc := range allCases() {
		if !strings.Contains(tc.name, c.only) {
			continue
		}
		if c.nfs && tc.noNFS != "" {
			if c.v {
				fmt.Fprintf(w, "left out: %s: %s\n", tc.name, tc.noNFS)
			}
			continue
		}
		t := &testRun{config: c, dir: filepath.Join(c.dir, fmt.Sprintf("case-%d", i))}
		if c.seeds == ownSeeds || c.seeds == makeSeeds {
			if err := os.Mkdir(t.dir, 0o755); err != nil {
				return passed, failed, err
			}
		}
		start := time.Now()
		t.do(tc.run)
		if c.seeds != makeSeeds {
			if err := os.RemoveAll(t.dir); err != nil {
				t.errorf("remove what is left: %v", err)
			}
		}
		if len(t.faults) == 0 {
			passed++
			if c.v {
				fmt.Fprintf(w, "ok: %s (%v)\n", tc.name, time.Since(start).Round(time.Millisecond))
			}
			continue
		}
		failed++
		fmt.Fprintf(w, "FAIL: %s: %s\n", tc.name, strings.Join(t.faults, "; "))
	}
	return passed, failed, nil
}

// testRun is one run of one case.
type testRun struct {
	config
	dir string

	once  sync.Once
	begun bool // the case has begun; files that it makes from here on are no seed

	mu     sync.Mutex
	faults []string
}

// do runs f in a new goroutine, because fatalf ends it.
func (t *testRun) do(f func(t *testRun)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(t)
	}()
	<-done
}

const maxFaults = 5

func (t *testRun) errorf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.faults) < maxFaults {
		t.faults = append(t.faults, strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " "))
	}
}

func (t *testRun) fatalf(format string, args ...any) {
	t.errorf(format, args...)
	runtime.Goexit()
}

// p returns the path of a name in the case's directory.
func (t *testRun) p(name string) string { return filepath.Clean(t.raw(name)) }

// raw is p without cleaning dots and slashes in the name.
func (t *testRun) raw(name string) string {
	t.begin()
	return t.dir + "/" + name
}

// ok ends the case if err is not nil.
func (t *testRun) ok(err error) {
	if err != nil {
		t.fatalf("%s: %v", caller(), err)
	}
}

// fails checks that err is one of want.
func (t *testRun) fails(err error, want ...unix.Errno) {
	var e unix.Errno
	if errors.As(err, &e) && slices.Contains(want, e) {
		return
	}
	t.errorf("%s: got %v, want %v", caller(), err, want)
}

// same checks that two values are equal.
func same[V comparable](t *testRun, what string, got, want V) {
	if got != want {
		t.errorf("%s: %s is %.60s, want %.60s", caller(), what, fmt.Sprint(got), fmt.Sprint(want))
	}
}

// caller returns the position of the line of the case.
func caller() string {
	for skip := 2; skip < 8; skip++ {
		_, file, line, ok := runtime.Caller(skip)
		if ok && filepath.Base(file) != "case.go" && filepath.Base(file) != "seed.go" {
			return fmt.Sprintf("%s:%d", filepath.Base(file), line)
		}
	}
	return "?"
}

// user has the ids with which a part of a case runs.
type user struct {
	uid, gid uint32
	groups   []uint32
}

// The users of the cases. Alice and carol share the group team, which is supplementary to both.
const (
	aliceID = 1000
	bobID   = 1001
	carolID = 1002
	team    = 2000
	other   = 3000
)

func alice() user { return user{aliceID, aliceID, []uint32{7, team}} }
func bob() user   { return user{bobID, bobID, nil} }
func carol() user { return user{carolID, carolID, []uint32{team}} }

// as runs f with the ids of u.
func (t *testRun) as(u user, f func()) {
	t.begin()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := u.become(); err != nil {
			t.errorf("become user %d: %v", u.uid, err)
			return
		}
		f()
	}()
	<-done
}

func (t *testRun) lstat(name string) (st unix.Stat_t) {
	t.ok(unix.Lstat(t.p(name), &st))
	return st
}

func (t *testRun) mode(name string, want uint32) {
	st := t.lstat(name)
	if st.Mode&0o7777 != want {
		t.errorf("%s: mode of %s is %#o, want %#o", caller(), name, st.Mode&0o7777, want)
	}
}

func (t *testRun) holds(name, want string) {
	b, err := os.ReadFile(t.p(name))
	t.ok(err)
	if string(b) != want {
		t.errorf("%s: %s holds %.40q, want %.40q", caller(), name, b, want)
	}
}

func (t *testRun) gone(name string) {
	var st unix.Stat_t
	t.fails(unix.Lstat(t.p(name), &st), unix.ENOENT)
}

func (t *testRun) names(name string) string {
	es, err := os.ReadDir(t.p(name))
	t.ok(err)
	var names []string
	for _, e := range es {
		if !strings.HasPrefix(e.Name(), ".nfs") && !strings.HasPrefix(e.Name(), ".fuse_hidden") {
			names = append(names, e.Name())
		}
	}
	return strings.Join(names, " ")
}

// open opens with the given flags and closes at once; it is for cases about permission.
func (t *testRun) open(name string, flags int) error {
	fd, err := unix.Open(t.p(name), flags|unix.O_CLOEXEC, 0o644)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// tick waits until the clock of a file system with the resolution of timer ticks has advanced.
func tick() { time.Sleep(25 * time.Millisecond) }

func nsec(ts unix.Timespec) int64 { return ts.Nano() }
