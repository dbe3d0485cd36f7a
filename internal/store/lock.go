package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/sysfile"
)

// Lock is a named lock of the store that this process holds.
type Lock struct{ f *os.File }

// LockedError reports that another process, or another part of this one, holds a lock.
type LockedError struct {
	Name   string
	Holder string // "pid 12 (dim) since 2026-01-02T03:04:05Z"
}

// Error implements error.
func (e *LockedError) Error() string { return fmt.Sprintf("lock %s: held by %s", e.Name, e.Holder) }

const (
	pruneLock    = "prune"    // shared by batches
	versionsLock = "versions" // while a version is written
)

// Lock takes the lock with a name. If it is held, the error is a *LockedError, at once. The lock ends with Unlock or
// with the process.
func (s *Store) Lock(name string) (*Lock, error) {
	return s.lock(name, unix.LOCK_EX|unix.LOCK_NB)
}

func (s *Store) lock(name string, how int) (*Lock, error) {
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return nil, fmt.Errorf("lock %q: not a name", name)
	}
	f, err := os.OpenFile(s.path(locksDir, name), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock(f, how); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &LockedError{Name: name, Holder: holder(f)}
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	if how&unix.LOCK_EX != 0 {
		comm, _ := os.ReadFile("/proc/self/comm")
		now := s.o.Now().UTC().Format(time.RFC3339)
		_ = f.Truncate(0) // the text is for people only
		_, _ = fmt.Fprintf(f, "pid %d (%s) since %s\n", os.Getpid(), strings.TrimSpace(string(comm)), now)
	}
	return &Lock{f}, nil
}

// Unlock releases the lock.
func (l *Lock) Unlock() { _ = sysfile.Unlock(l.f) }

func flock(f *os.File, how int) error {
	return sysfile.Retry(func() error { return unix.Flock(int(f.Fd()), how) })
}

// holder returns the text that the last holder of a lock wrote into its file.
func holder(f *os.File) string {
	var b [256]byte
	n, _ := f.ReadAt(b[:], 0)
	if text := strings.TrimSpace(string(b[:n])); text != "" {
		return text
	}
	return "another process"
}

// removeAbandoned removes the staging directories that no batch has locked, but for those that keep returns true for.
func (s *Store) removeAbandoned(keep func(name string) bool) error {
	names, err := os.ReadDir(s.path(stagingDir))
	if err != nil {
		return err
	}
	for _, name := range names {
		if keep(name.Name()) {
			continue
		}
		if err := removeUnlocked(s.path(stagingDir, name.Name())); err != nil {
			return err
		}
	}
	return nil
}

func removeUnlocked(dir string) error {
	f, err := openUnlocked(dir)
	if f == nil {
		return err
	}
	defer f.Close()
	return os.RemoveAll(dir)
}

// openUnlocked opens and locks a staging directory. It returns nil if a batch has locked it, or if it is gone.
func openUnlocked(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, nil
		}
		return nil, err
	}
	return f, nil
}
