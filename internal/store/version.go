package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/durable"
	"dim/internal/image"
)

// versionFile is the format of a version on disk.
type versionFile struct {
	Format int `json:"format"`
	image.Version
}

const versionFormat = 1

// AddVersion adds v and returns it with its Root and time. Everything that v.Digest leads to must have been committed,
// and kept by Hold since. The caller gives the number; numbers need not be consecutive. To add a version again is no
// error, but another version of the same number is one. Tags are not taken from v.
func (s *Store) AddVersion(v image.Version) (image.Version, error) {
	return s.addVersion(v, func(err error) bool { return errors.Is(err, ErrNotFound) })
}

// RewriteVersion writes the record of v anew, which is Damaged. Its root must not be. It returns what AddVersion does.
func (s *Store) RewriteVersion(v image.Version) (image.Version, error) {
	return s.addVersion(v, func(err error) bool { return damaged(err) && !errors.Is(err, errNewer) })
}

// addVersion adds v if reading what has its number fails with an error that is one of lacks.
func (s *Store) addVersion(v image.Version, lacks func(error) bool) (image.Version, error) {
	if !image.ValidName(v.Image) {
		return v, fmt.Errorf("add version: %q is not an image name", v.Image)
	}
	if v.Number <= 0 {
		return v, fmt.Errorf("add version %s: it has no number", v.Ref())
	}
	root, err := s.Root(v.Digest)
	if err != nil {
		return v, fmt.Errorf("add version of %s: %w", v.Image, err)
	}
	v.Root, v.Tags = root, nil
	if v.Created.IsZero() {
		v.Created = s.o.Now().UTC()
	}
	lock, err := s.lock(versionsLock, unix.LOCK_EX)
	if err != nil {
		return v, err
	}
	defer lock.Unlock()
	dir := s.path(versionsDir, v.Image)
	if err := s.makeDir(versionsDir, v.Image); err != nil {
		return v, err
	}
	old, err := s.readVersion(v.Image, v.Number)
	switch {
	case err == nil && old.Digest != v.Digest:
		return old, fmt.Errorf("add version %s: another version has this number", v.Ref())
	case err == nil || !lacks(err):
		return old, err
	}
	b, err := json.MarshalIndent(versionFile{versionFormat, v}, "", "  ")
	if err != nil {
		return v, fmt.Errorf("add version %s: %w", v.Ref(), err)
	}
	if err := s.step("write version"); err != nil {
		return v, err
	}
	if err := durable.WriteFile(dir+"/"+strconv.Itoa(v.Number)+".json", append(b, '\n'), 0o600); err != nil {
		return v, err
	}
	return v, s.step("version written")
}

// makeDir makes kind/name durably. If it is there already, it removes temporary files that a crash left in it.
func (s *Store) makeDir(kind, name string) error {
	err := os.Mkdir(s.path(kind, name), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return durable.RemoveTemps(s.path(kind, name))
	}
	if err != nil {
		return err
	}
	return durable.SyncDir(s.path(kind))
}

// numbers returns the numbers of the versions of an image in ascending order.
func (s *Store) numbers(name string) ([]int, error) {
	entries, err := os.ReadDir(s.path(versionsDir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []int
	for _, e := range entries {
		base, ok := strings.CutSuffix(e.Name(), ".json")
		if n, err := strconv.Atoi(base); ok && err == nil && n > 0 && strconv.Itoa(n) == base {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list, nil
}

func (s *Store) readVersion(name string, number int) (image.Version, error) {
	v, err := s.readVersionFile(name, number)
	if err != nil {
		return v, err
	}
	if v.Root, err = s.Root(v.Digest); err != nil {
		return v, fmt.Errorf("version %s: %w", v.Ref(), err)
	}
	return v, nil
}

func (s *Store) readVersionFile(name string, number int) (image.Version, error) {
	ref := image.Ref{Image: name, Number: number}
	b, err := os.ReadFile(s.path(versionsDir, name, strconv.Itoa(number)+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return image.Version{}, fmt.Errorf("version %s: %w", ref, ErrNotFound)
	}
	if err != nil {
		return image.Version{}, err
	}
	var f versionFile
	if err := json.Unmarshal(b, &f); err != nil {
		return image.Version{}, fmt.Errorf("version %s: %w: %v", ref, errCorrupt, err)
	}
	if f.Format > versionFormat {
		return image.Version{}, fmt.Errorf("version %s: its %w: %d, not %d", ref, errNewer, f.Format, versionFormat)
	}
	if f.Image != name || f.Number != number {
		return image.Version{}, fmt.Errorf("version %s: %w: it says that it is %s", ref, errCorrupt, f.Ref())
	}
	return f.Version, nil
}

// Images returns the names of the images that have versions, sorted.
func (s *Store) Images() ([]string, error) {
	entries, err := os.ReadDir(s.path(versionsDir))
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		if numbers, err := s.numbers(e.Name()); err == nil && len(numbers) > 0 && image.ValidName(e.Name()) {
			list = append(list, e.Name())
		}
	}
	return list, nil
}

// Versions returns the versions of an image, oldest first, without those that are damaged: see Damaged. Errors may be
// ErrNotFound.
func (s *Store) Versions(name string) ([]image.Version, error) {
	if !image.ValidName(name) {
		return nil, fmt.Errorf("%q is not an image name", name)
	}
	numbers, err := s.numbers(name)
	if err != nil {
		return nil, err
	}
	if len(numbers) == 0 {
		return nil, fmt.Errorf("image %s: %w", name, ErrNotFound)
	}
	var list []image.Version
	for _, n := range numbers {
		v, err := s.readVersion(name, n)
		if err == nil {
			list = append(list, v)
		} else if !damaged(err) {
			return nil, err
		}
	}
	return list, nil
}

// errNewer is the error of a record in a format of a later program. It is not overwritten.
var errNewer = errors.New("format is newer than this program knows")

// damaged reports whether an error of readVersion is of this version alone.
func damaged(err error) bool {
	for _, e := range []error{errCorrupt, ErrNotFound, errNewer, unix.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Damaged is a version of which the store has lost something that it needs to know about it.
type Damaged struct {
	Ref image.Ref
	Err error
}

// Damaged returns the versions whose record or root is missing or damaged. Whatever is missing below a root is found by
// Check alone.
func (s *Store) Damaged() ([]Damaged, error) {
	names, err := s.Images()
	if err != nil {
		return nil, err
	}
	var list []Damaged
	for _, name := range names {
		numbers, err := s.numbers(name)
		if err != nil {
			return nil, err
		}
		for _, n := range numbers {
			if _, err := s.readVersion(name, n); err != nil {
				list = append(list, Damaged{image.Ref{Image: name, Number: n}, err})
			}
		}
	}
	return list, nil
}

// Resolve returns the version with the number of r, or the newest version of the image that is not damaged if r has no
// number. The store knows no tags. Errors may be ErrNotFound.
func (s *Store) Resolve(r image.Ref) (image.Version, error) {
	if !image.ValidName(r.Image) {
		return image.Version{}, fmt.Errorf("%q is not an image name", r.Image)
	}
	switch {
	case r.Tag != "":
		return image.Version{}, fmt.Errorf("tag %s: %w", r, ErrNotFound)
	case r.Number > 0:
		return s.readVersion(r.Image, r.Number)
	}
	numbers, err := s.numbers(r.Image)
	if err != nil {
		return image.Version{}, err
	}
	for _, n := range slices.Backward(numbers) {
		if v, err := s.readVersion(r.Image, n); err == nil || !damaged(err) {
			return v, err
		}
	}
	return image.Version{}, fmt.Errorf("image %s: %w", r.Image, ErrNotFound)
}
