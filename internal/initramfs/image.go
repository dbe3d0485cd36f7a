package initramfs

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Digester is implemented by file systems that know the digest of a file or of a whole directory without reading
// it, such as the tree of a version. Key is cheap on these.
type Digester interface {
	// Digest returns a string that changes whenever something at or below name does.
	Digest(name string) (string, error)
}

// maxLinks is the kernel's own bound (include/linux/namei.h, MAXSYMLINKS).
const maxLinks = 40

// tree is an image's file system, whose symbolic links are followed as if it were the root.
type tree struct{ fs.ReadLinkFS }

// resolve returns the name without symbolic links on the way or at its end. Links that are absolute, or that climb
// over the root, stay inside as after a chroot.
func (t tree) resolve(name string) (string, error) {
	done, rest := ".", strings.Split(path.Clean("/" + name)[1:], "/")
	links := 0
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		fi, err := t.Lstat(next)
		if err != nil {
			return "", err
		}
		if fi.Mode()&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "resolve", Path: name, Err: errors.New("too many symbolic links")}
		}
		target, err := t.ReadLink(next)
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			done = "."
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return done, nil
}

// read returns the content of a regular file.
func (t tree) read(name string) ([]byte, error) {
	real, err := t.resolve(name)
	if err != nil {
		return nil, err
	}
	return fs.ReadFile(t, real)
}

// text is read for files that need not be there.
func (t tree) text(name string) (string, error) {
	b, err := t.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(b), err
}

// list returns the names in a directory, sorted; none if it does not exist.
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

// regular returns the real name of the first of names that is a regular file.
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

// digest returns something that changes with the content at or below name.
func (t tree) digest(name string) (string, error) {
	real, err := t.resolve(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "none", nil
	}
	if err != nil {
		return "", err
	}
	if d, ok := t.ReadLinkFS.(Digester); ok {
		return d.Digest(real)
	}
	return t.stamp(real)
}

// stamp stands in for a digest on file systems that have none: names, sizes and times of all that is below.
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
