// Package durable writes files so that a crash at any moment leaves the old content or the new one, never a mix.
//
// It must not know what the files are for.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// WriteFile replaces the file at path. It writes data to a temporary file beside it, syncs that, renames it to path and
// syncs the directory. When WriteFile returns nil, data survives a power cut.
func WriteFile(path string, data []byte, perm fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// CheckFormat checks that the file at path has the number of a format that this program knows, as text, and makes the
// file if there is none. A damaged one is told from one of a newer program.
func CheckFormat(path string, known int) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return WriteFile(path, fmt.Appendln(nil, known), 0o600)
	}
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	switch {
	case err != nil || n < 1:
		return fmt.Errorf("%s is damaged: it contains %q; check the disk, then: echo %d > %s", path, b, known, path)
	case n != known:
		return fmt.Errorf("%s: format %d is not known, this program reads format %d: use a newer one", path, n, known)
	}
	return nil
}

const tempPrefix = ".tmp-"

// RemoveTemps removes temporary files that interrupted calls of WriteFile left in dir.
func RemoveTemps(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, tempPrefix+"*"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// SyncDir makes changes of names in dir durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
