package layers

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/pkgdb"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// dpkgUpdates is the directory in which dpkg has files while it runs. It writes the database anew from them and from
// what it has in memory.
const dpkgUpdates = "var/lib/dpkg/updates"

// PackageState returns a text that is another one after a node has installed or removed packages; "" if its layer has
// no database of packages. It does not read the layer, which need not be attached.
func PackageState(s *replica.Set, node, image string) (string, error) {
	root, home := s.DiskOf(node, image)
	text := ""
	for _, path := range append(pkgdb.DatabaseFiles(), dpkgUpdates) {
		var st unix.Stat_t
		switch err := root.Stat(home.Upper(path), &st); {
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		case err != nil:
			return "", err
		case vfs.TypeOf(st.Mode) == vfs.Regular || path == dpkgUpdates:
			text += fmt.Sprintln(path, st.Ino, st.Size, st.Mtim, st.Ctim)
		}
	}
	return text, nil
}

// PackageConflicts is what a node and the master have both changed of packages.
type PackageConflicts struct {
	Busy  bool // dpkg runs on the node, or was interrupted there, and the master has changed its database
	List  []pkgdb.Conflict
	Own   []pkgdb.Conflict // all that the node has changed, and not to what the master has now
	Whole bool             // the database is replaced as a whole: List is all that the node has changed
	Paths []string         // what the layer has of these packages, in walk order
	Files []string         // all files of these packages, the node's and those of both versions, in walk order
}

// PackageComparison says with what the packages of a node are compared.
type PackageComparison struct {
	Old    *pkgdb.Database // of the version that the node has changed
	Next   *pkgdb.Database // of the one to which it goes
	Merged bool            // a switch merges dpkg's database record by record
}

// PackageConflicts returns what the node and the master have both changed. Configuration files that somebody has
// changed on the node are not in Paths: they are files of the node.
func (l Layer) PackageConflicts(with PackageComparison) (out PackageConflicts, err error) {
	err = l.r.View(func(root replica.LayerEntry) error {
		c := packageComparer{PackageComparison: with, root: root, own: pkgdb.Load(nodeFS{root, with.Old.Root()})}
		if out.Whole, err = c.replacesDatabase(); err != nil {
			return err
		}
		if out.Busy, err = c.busy(); err != nil {
			return err
		}
		out.Own = pkgdb.Changed(with.Old.Packages, c.own.Packages, with.Next.Packages)
		if out.List = out.Own; !out.Whole {
			out.List = pkgdb.Conflicts(with.Old.Packages, c.own.Packages, with.Next.Packages)
		}
		out.Files = c.files(out.List)
		out.Paths, err = c.paths(out.List)
		return err
	})
	return out, err
}

// packageComparer compares the packages of one node.
type packageComparer struct {
	PackageComparison
	root replica.LayerEntry
	own  *pkgdb.Database
}

// replacesDatabase reports whether the switch puts the master's database in the place of the node's.
func (c *packageComparer) replacesDatabase() (bool, error) {
	for _, path := range pkgdb.DatabaseFiles() {
		entry, ok := c.root.At(path)
		if !ok || entry.Kind() != vfs.Regular || c.Merged && path == pkgdb.DpkgStatus {
			continue
		}
		if same, err := sameFile(c.Old.Root(), c.Next.Root(), path); !same || err != nil {
			return true, err
		}
	}
	return false, nil
}

// busy reports whether dpkg runs on the node while the master has another database. The database that dpkg writes at
// its end would have nothing of the master's.
func (c *packageComparer) busy() (bool, error) {
	dir, ok := c.root.At(dpkgUpdates)
	if !ok {
		return false, nil
	}
	for entry := range dir.Entries() {
		if entry.Kind() == vfs.Regular {
			same, err := sameFile(c.Old.Root(), c.Next.Root(), pkgdb.DpkgStatus)
			return !same, err
		}
	}
	return false, nil
}

// sameFile reports whether a file is the same in two versions. It reads the file only if a version cannot tell its
// digest.
func sameFile(a, b fs.FS, path string) (bool, error) {
	var sums [2]image.Digest
	for i, from := range []fs.FS{a, b} {
		var err error
		if sums[i], err = digestOf(from, path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return sums[0] == sums[1], nil
}

// digestOf returns the digest of a file of a version.
func digestOf(version fs.FS, path string) (image.Digest, error) {
	if v, ok := version.(interface {
		Entry(name string) (image.Entry, error)
	}); ok {
		e, err := v.Entry(path)
		return e.Digest, err
	}
	b, err := fs.ReadFile(version, path)
	if err != nil {
		return image.Digest{}, err
	}
	return image.Sum(b), nil
}

// files returns the paths of all files of some packages, in any of the three databases.
func (c *packageComparer) files(list []pkgdb.Conflict) []string {
	paths := map[string]bool{}
	for _, p := range list {
		for _, d := range []*pkgdb.Database{c.Old, c.own, c.Next} {
			for _, path := range d.Files(p.Name, p.Arch) {
				paths[path] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(paths), image.ComparePaths)
}

// paths returns what the layer has of some packages.
func (c *packageComparer) paths(list []pkgdb.Conflict) ([]string, error) {
	paths := map[string]bool{}
	for _, p := range list {
		sums := c.own.Conffiles(p.Name, p.Arch)
		for _, path := range slices.Concat(c.own.Files(p.Name, p.Arch), c.Old.Files(p.Name, p.Arch)) {
			entry, ok := c.root.At(path)
			switch {
			case paths[path] || !ok || entry.Kind() == 0 && !entry.Whiteout():
				continue
			case entry.Kind() == vfs.Directory:
				if _, err := fs.Stat(c.Next.Root(), path); err == nil {
					continue // packages have directories in common
				}
			case entry.Kind() == vfs.Regular && sums[path] != "":
				changed, err := changedSince(entry, sums[path])
				if err != nil {
					return nil, err
				}
				if changed {
					continue
				}
			}
			paths[path] = true
		}
	}
	return slices.SortedFunc(maps.Keys(paths), image.ComparePaths), nil
}

// changedSince reports whether the file at entry has another MD5 sum than it had.
func changedSince(entry replica.LayerEntry, sum string) (bool, error) {
	b, err := fs.ReadFile(nodeFS{entry, nil}, ".")
	now := md5.Sum(b)
	return hex.EncodeToString(now[:]) != strings.ToLower(sum), err
}
