// Package testkit holds the few helpers that tests of several packages share. It is for tests only; no program imports
// it.
//
// It must not know any other package of this project.
package testkit

import (
	"context"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"
)

// Must fails the test at once if one of errs is not nil.
func Must(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Value returns a function that returns v, or fails the test at once if err is not nil: testkit.Value(f())(t).
func Value[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		Must(t, err)
		return v
	}
}

// eventuallyWithin bounds Eventually. It is generous, because no test asserts how fast something is.
const eventuallyWithin = time.Minute

// Eventually calls check until it returns true, and fails the test at once if that takes more than a minute. It is for
// what happens in another process or in a kernel; inside this process a test waits for an event or uses
// testing/synctest.
func Eventually(t testing.TB, what string, check func() bool) {
	t.Helper()
	pause := time.Millisecond
	for end := time.Now().Add(eventuallyWithin); time.Now().Before(end); time.Sleep(pause) {
		if check() {
			return
		}
		pause = min(2*pause, 100*time.Millisecond)
	}
	t.Fatalf("not within %v: %s", eventuallyWithin, what)
}

// Counter returns a function that returns 1, 2, 3 and so on. It gives captures the numbers of their versions.
func Counter() func(context.Context) (int, error) {
	var n atomic.Int64
	return func(context.Context) (int, error) { return int(n.Add(1)), nil }
}

// NeedRoot skips the test unless it runs as the superuser; why says what it needs that for.
func NeedRoot(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: " + why)
	}
}

// NeedProgram skips the test where a program is not installed.
func NeedProgram(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip(err)
	}
}
