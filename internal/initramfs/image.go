package initramfs

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"dim/internal/rootpath"
)

// digester is implemented by file systems that know the digest of a file or directory without reading it, such as the
// tree of a version. Key is cheap on these.
type digester interface {
	// Digest returns a string that changes when something at or below name does.
	Digest(name string) (string, error)
}

// tree is an image's file system. Symbolic links are resolved as if it were the root.
type tree struct{ fs.ReadLinkFS }

// resolve returns the name without symbolic links, also at its end.
func (t tree) resolve(name string) (string, error) {
	real, _, err := rootpath.Resolve(t, name)
	return real, err
}

// read returns the content of a regular file.
func (t tree) read(name string) ([]byte, error) {
	real, err := t.resolve(name)
	if err != nil {
		return nil, err
	}
	return fs.ReadFile(t, real)
}

// text returns the content of a regular file, "" if it does not exist.
func (t tree) text(name string) (string, error) {
	b, err := t.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

// list returns the sorted names in a directory; none if it does not exist.
func (t tree) list(name string) ([]string, error) {
	real, err := t.resolve(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := fs.ReadDir(t, real)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names, nil
}

// regular returns the first of names that is a regular file, without symbolic links.
func (t tree) regular(names ...string) (string, bool) {
	for _, n := range names {
		real, err := t.resolve(n)
		if err != nil {
			continue
		}
		if fi, err := t.Lstat(real); err == nil && fi.Mode().IsRegular() {
			return real, true
		}
	}
	return "", false
}

// digest returns a string that changes with the content at or below name.
func (t tree) digest(name string) (string, error) {
	real, err := t.resolve(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "none", nil
	}
	if err != nil {
		return "", err
	}
	if d, ok := t.ReadLinkFS.(digester); ok {
		return d.Digest(real)
	}
	return t.stamp(real)
}

// stamp is the digest on file systems that are not a digester: names, modes, sizes and times of everything at or below
// name.
func (t tree) stamp(name string) (string, error) {
	var b strings.Builder
	err := fs.WalkDir(t, name, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%q %v %d %d\n", p, fi.Mode(), fi.Size(), fi.ModTime().UnixNano())
		return nil
	})
	return b.String(), err
}
