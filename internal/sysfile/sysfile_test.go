package sysfile

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"dim/internal/testkit"
)

func TestWritesAreWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	f := testkit.Value(os.Create(path))(t)
	defer f.Close()
	fd := int(f.Fd())
	testkit.Must(t, Write(fd, []byte("hello, ")), Write(fd, []byte("world")), WriteAt(fd, []byte("J"), 0))
	if got := string(testkit.Value(os.ReadFile(path))(t)); got != "Jello, world" {
		t.Errorf("the file has %q", got)
	}
	dir := testkit.Value(os.Open(filepath.Dir(path)))(t)
	defer dir.Close()
	if got := string(testkit.Value(os.ReadFile(ProcPath(int(dir.Fd()), "file")))(t)); got != "Jello, world" {
		t.Errorf("by its directory the file has %q", got)
	}
}

func TestAWriteGoesOnWhereItWasInterrupted(t *testing.T) {
	var got []byte
	steps := []error{syscall.EINTR, nil, syscall.EINTR, nil, nil}
	err := writeAll([]byte("abc"), func(p []byte) (int, error) {
		step := steps[0]
		steps = steps[1:]
		if step != nil {
			return -1, step
		}
		got = append(got, p[0])
		return 1, nil
	})
	if err != nil || string(got) != "abc" {
		t.Errorf("%q was written, error %v", got, err)
	}
	if err := writeAll([]byte("abc"), func([]byte) (int, error) { return 0, nil }); err != io.ErrShortWrite {
		t.Errorf("a write of nothing gave %v", err)
	}
	errs := []error{syscall.EINTR, syscall.EINTR, syscall.EIO}
	if err := Retry(func() error { e := errs[0]; errs = slices.Delete(errs, 0, 1); return e }); err != syscall.EIO {
		t.Errorf("Retry returned %v", err)
	}
}

func TestALockEndsAlthoughAChildHasItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	lock := func() *os.File {
		t.Helper()
		f := testkit.Value(os.Create(path))(t)
		testkit.Must(t, syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
		return f
	}
	f := lock()
	copied, err := syscall.Dup(int(f.Fd())) // as a child has it that was forked and has not called exec
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(copied)
	if err := Unlock(f); err != nil {
		t.Error(err)
	}
	if err := Unlock(lock()); err != nil {
		t.Error(err)
	}
	if err := Unlock(f); err == nil {
		t.Error("a lock was released twice")
	}
}
