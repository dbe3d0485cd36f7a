package delivery

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"dim/internal/boot"
)

// Loaders is the directory of the iPXE package, which has the loaders.
type Loaders struct{ dir string }

// LoadersIn returns the loaders in a directory; "" is /usr/lib/ipxe.
func LoadersIn(dir string) Loaders {
	if dir == "" {
		dir = "/usr/lib/ipxe"
	}
	return Loaders{dir}
}

// Dir returns the directory.
func (l Loaders) Dir() string { return l.dir }

// Has reports whether a loader is installed.
func (l Loaders) Has(name string) bool {
	fi, err := os.Stat(filepath.Join(l.dir, name))
	return err == nil && fi.Mode().IsRegular()
}

// Any reports whether any loader is installed.
func (l Loaders) Any() bool { return slices.ContainsFunc(boot.Loaders(), l.Has) }

// open opens a loader by name. Only names of package boot can be opened, so the only way out of the directory are the
// symbolic links in it, which are its owner's (Debian's ipxe.efi is one to /boot).
func (l Loaders) open(name string) (*os.File, fs.FileInfo, error) {
	if !slices.Contains(boot.Loaders(), name) {
		return nil, nil, fmt.Errorf("open loader %q: %w", name, fs.ErrNotExist)
	}
	f, err := os.Open(filepath.Join(l.dir, name))
	if err != nil {
		return nil, nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("open loader %q: not a regular file: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}
