package layers

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"dim/internal/image"
	"dim/internal/layers/pkgread"
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
		case vfs.TypeOf(st.Mode) == vfs.Regular || path == dpkgUpdates || path == pkgdb.PacmanLocal:
			text += fmt.Sprintln(path, st.Ino, st.Size, st.Mtim, st.Ctim)
		}
	}
	return text, nil
}

// PackageConflicts is what a node and the master have both changed of packages.
type PackageConflicts struct {
	// Unread tells why the package database cannot be read; "": it can. Then there are no conflicts, and Paths are
	// what the layer has of the databases.
	Unread string
	Busy   bool // dpkg runs on the node, or was interrupted there, and the master has changed its database
	List   []pkgdb.Conflict
	Own    []pkgdb.Conflict // all that the node has changed, and not to what the master has now
	Whole  bool             // the database is replaced as a whole: List is all that the node has changed
	Paths  []string         // what the layer has of these packages, in walk order
	Files  []string         // all files of these packages, the node's and those of both versions, in walk order
}

// PackageComparison says with what the packages of a node are compared.
type PackageComparison struct {
	pkgread.Pair
	Reader *pkgread.Reader
	Merged bool // a switch merges dpkg's database record by record
}

// PackageConflicts returns what the node and the master have both changed. Configuration files that somebody has
// changed on the node are not in Paths: they are files of the node. That the databases cannot be read is no error.
func (l Layer) PackageConflicts(with PackageComparison) (out PackageConflicts, err error) {
	err = l.r.View(func(root replica.LayerEntry) error {
		c := packageComparer{PackageComparison: with, root: root}
		if out.Whole, err = c.replacesDatabase(); err != nil {
			return err
		}
		if out.Busy, err = c.busy(); err != nil {
			return err
		}
		with.Whole = out.Whole
		answer, err := with.Reader.Compare(&with.Pair, nodeFS{root, with.Old.Files})
		if err != nil {
			out.Unread, out.Paths = "package database cannot be read: "+err.Error(), c.databases()
			return nil
		}
		out.Own, out.List = answer.Own, answer.List
		for _, path := range answer.Files {
			out.Files = append(out.Files, string(path))
		}
		out.Paths, err = c.paths(answer.Paths)
		return err
	})
	return out, err
}

// packageComparer compares the packages of one node.
type packageComparer struct {
	PackageComparison
	root replica.LayerEntry
}

// databases returns what the layer has of package databases.
func (c *packageComparer) databases() (list []string) {
	for _, path := range pkgdb.DatabaseFiles() {
		if entry, ok := c.root.At(path); ok && (entry.Kind() != 0 || entry.Whiteout()) {
			list = append(list, path)
		}
	}
	slices.SortFunc(list, image.ComparePaths)
	return list
}

// replacesDatabase reports whether the switch puts the master's database in the place of the node's.
func (c *packageComparer) replacesDatabase() (bool, error) {
	for _, path := range pkgdb.DatabaseFiles() {
		entry, ok := c.root.At(path)
		if !ok || entry.Kind() != vfs.Regular || c.Merged && path == pkgdb.DpkgStatus {
			continue
		}
		if same, err := sameFile(c.Old.Files, c.Next.Files, path); !same || err != nil {
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
			same, err := sameFile(c.Old.Files, c.Next.Files, pkgdb.DpkgStatus)
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

// paths returns what the layer has of files of packages.
func (c *packageComparer) paths(list []pkgread.File) ([]string, error) {
	paths := map[string]bool{}
	for _, p := range list {
		path := string(p.Path)
		entry, ok := c.root.At(path)
		switch {
		case paths[path] || !ok || entry.Kind() == 0 && !entry.Whiteout():
			continue
		case entry.Kind() == vfs.Directory:
			if _, err := fs.Stat(c.Next.Files, path); err == nil {
				continue // packages have directories in common
			}
		case entry.Kind() == vfs.Regular && p.Sum != "":
			changed, err := changedSince(entry, p.Sum)
			if err != nil {
				return nil, err
			}
			if changed {
				continue
			}
		}
		paths[path] = true
	}
	return slices.SortedFunc(maps.Keys(paths), image.ComparePaths), nil
}

// maxConffile is the size in bytes of the largest configuration file whose sum is made. A larger one was changed.
const maxConffile = 16 << 20

// changedSince reports whether the file at entry has another MD5 sum than it had.
func changedSince(entry replica.LayerEntry, sum string) (bool, error) {
	f, err := nodeFS{entry, nil}.Open(".")
	if errors.Is(err, errTooLarge) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	now := md5.New()
	n, err := io.Copy(now, io.LimitReader(f, maxConffile+1))
	return n > maxConffile || hex.EncodeToString(now.Sum(nil)) != strings.ToLower(sum), err
}
