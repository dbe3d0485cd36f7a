// Package pkgdb lists the packages that are installed in a root file system, from the package manager's database.
//
// It reads
//
//   - dpkg's database: var/lib/dpkg/status, the stanzas and lists of MD5 sums in var/lib/dpkg/status.d (in images
//     without dpkg), and the lists of files in var/lib/dpkg/info;
//   - rpm's database in all its forms: SQLite, ndb, and the hash table of Berkeley DB;
//   - apk's and pacman's databases, which are text.
//
// The databases come from a master and are not trusted: sizes are bounded, and malformed parts are left out. The
// package must not know what a version or a node is. It sees an io/fs file system.
package pkgdb

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// Package is one installed package.
type Package struct {
	Name    string
	Arch    string
	Version string
}

// Database is what is installed.
type Database struct {
	Packages []Package // by name, architecture, version
	Unread   []string  // databases that exist and could not be read, each with the reason

	root  fs.FS
	files map[string][]string // the files of each package, but not those in dpkg's info
	found []string            // names of the package managers that have a database, read or not
}

// Bounds of what is read.
const (
	maxFile     = 256 << 20
	maxPackages = 1 << 17
)

// Directories of dpkg's database.
const (
	dpkgStatusD = "var/lib/dpkg/status.d"
	dpkgInfo    = "var/lib/dpkg/info"
)

// DpkgStatus is the path of dpkg's database.
const DpkgStatus = "var/lib/dpkg/status"

// DatabaseFiles returns the paths of the databases that Load can read, apart from those of images without dpkg. That of
// pacman, PacmanLocal, is a directory.
func DatabaseFiles() []string {
	list := append([]string{DpkgStatus, PacmanLocal}, apkInstalled...)
	for _, dir := range rpmDirs {
		for _, form := range rpmForms {
			list = append(list, dir+"/"+form.file)
		}
	}
	return list
}

// ManagerOf returns the package manager that has its database, or a part of it, at a path: "dpkg", "rpm", "apk" or
// "pacman"; "" for other paths.
func ManagerOf(name string) string {
	switch {
	case name == DpkgStatus || strings.HasPrefix(name, dpkgStatusD+"/"):
		return "dpkg"
	case name == PacmanLocal || strings.HasPrefix(name, PacmanLocal+"/"):
		return "pacman"
	case slices.Contains(apkInstalled, name):
		return "apk"
	case slices.Contains(DatabaseFiles(), name):
		return "rpm"
	}
	return ""
}

// Load reads the databases in root. A root without a database has no packages, which is not an error.
func Load(root fs.FS) *Database {
	d := &Database{root: root, files: map[string][]string{}}
	d.loadDpkg()
	d.loadRpm()
	d.loadApk()
	d.loadPacman()
	slices.SortFunc(d.Packages, compare)
	d.Packages = slices.Compact(d.Packages)
	return d
}

func compare(a, b Package) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Arch, b.Arch),
		strings.Compare(a.Version, b.Version))
}

// read returns a file's content. It returns nil if the file does not exist or cannot be read, which it records.
func (d *Database) read(name string) []byte {
	b, err := readFile(d.root, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.addUnread(name, err)
	}
	return b
}

func (d *Database) addUnread(name string, err error) {
	d.Unread = append(d.Unread, fmt.Sprintf("/%s: %v", name, err))
	d.addFound(ManagerOf(name))
}

func readFile(root fs.FS, name string) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("more than %d bytes", maxFile)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

func (d *Database) loadDpkg() {
	d.addStatus(DpkgStatus)
	entries, _ := fs.ReadDir(d.root, dpkgStatusD) // most roots have no such directory
	for _, e := range entries {
		switch pkg, sums := strings.CutSuffix(e.Name(), ".md5sums"); {
		case !e.Type().IsRegular():
		case sums:
			d.addSums(pkg, d.read(dpkgStatusD+"/"+e.Name()))
		default:
			d.addStatus(dpkgStatusD + "/" + e.Name())
		}
	}
}

func (d *Database) addStatus(name string) {
	if list := parseStatus(d.read(name)); len(list) > 0 {
		d.Packages = append(d.Packages, list...)
		d.addFound("dpkg")
	}
}

func (d *Database) addFound(manager string) {
	if !slices.Contains(d.found, manager) {
		d.found = append(d.found, manager)
	}
}

// addSums adds the files in a list of MD5 sums, lines "SUM  PATH".
func (d *Database) addSums(pkg string, b []byte) {
	for line := range bytes.Lines(b) {
		if _, path, ok := strings.Cut(strings.TrimRight(string(line), "\r\n"), "  "); ok {
			d.files[pkg] = append(d.files[pkg], strings.TrimPrefix(strings.TrimPrefix(path, "./"), "/"))
		}
	}
}

// parseStatus returns the packages in a status file that are at least unpacked. A package without a Status field is. A
// line of white space, or a further Package field, ends a stanza.
func parseStatus(b []byte) (list []Package) {
	var s stanza
	for line := range bytes.Lines(b) {
		line = bytes.TrimRight(line[:min(len(line), 1024)], " \t\r\n")
		if len(line) > 0 && bytes.IndexByte([]byte("PpAaVvSs"), line[0]) < 0 {
			continue // no field that counts: most lines of a file of a megabyte
		}
		text := string(line)
		key, value, _ := strings.Cut(text, ":")
		key = strings.ToLower(key)
		if text == "" || key == "package" && s.Name != "" {
			if list = s.appendTo(list); len(list) >= maxPackages {
				return list
			}
			s = stanza{}
		}
		s.set(key, strings.TrimSpace(value))
	}
	return s.appendTo(list)
}

// stanza is a package in a status file.
type stanza struct {
	Package
	absent bool // its files are not there
}

func (s *stanza) set(key, value string) {
	switch key {
	case "package":
		s.Name = value
	case "architecture":
		s.Arch = value
	case "version":
		s.Version = value
	case "status":
		words := strings.Fields(value)
		s.absent = len(words) != 3 || words[2] == "not-installed" || words[2] == "config-files"
	}
}

func (s *stanza) appendTo(list []Package) []Package {
	if s.absent || s.Name == "" || s.Version == "" {
		return list
	}
	return append(list, s.Package)
}

// Owners returns the packages to which paths belong, by path. A path that belongs to no package is not in the result.
// Paths are slash-separated and relative to the root, and contain no symbolic links. If a top-level directory is a
// link, as /lib is to usr/lib, the package manager's paths below it are resolved.
func (d *Database) Owners(paths map[string]bool) map[string]string {
	owners := map[string]string{}
	topLinks := d.topLinks()
	note := func(pkg, path string) {
		path = resolveTop(topLinks, path)
		if paths[path] {
			owners[path] = pkg
		}
	}
	for pkg, files := range d.files {
		for _, path := range files {
			note(pkg, path)
		}
	}
	entries, err := fs.ReadDir(d.root, dpkgInfo)
	if err != nil {
		return owners
	}
	for _, e := range entries {
		pkg, ok := strings.CutSuffix(e.Name(), ".list")
		if !ok {
			continue
		}
		pkg, _, _ = strings.Cut(pkg, ":") // "libc6:amd64": the package may be installed for several architectures
		b, _ := readFile(d.root, dpkgInfo+"/"+e.Name())
		for line := range bytes.Lines(b) {
			note(pkg, strings.TrimPrefix(strings.TrimSuffix(string(line), "\n"), "/"))
		}
	}
	return owners
}

// topLinks returns the targets of those top-level directories that are links.
func (d *Database) topLinks() map[string]string {
	targets := map[string]string{}
	links, ok := d.root.(fs.ReadLinkFS)
	if !ok {
		return targets
	}
	for _, top := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		if target, err := links.ReadLink(top); err == nil {
			targets[top] = strings.Trim(target, "/")
		}
	}
	return targets
}

// Change is one package that differs. From is empty if it was added; To is empty if it was removed.
type Change struct {
	Name string
	Arch string
	From string
	To   string
}

// Compare returns the differences from old to new, in order of name, and the databases of either that could not be
// read, each with the reason. If there are such, packages that only one of them has are not differences.
func Compare(old, new *Database) (changes []Change, unread []string) {
	unread = append(slices.Clone(new.Unread), old.Unread...)
	for _, manager := range old.found {
		if !slices.Contains(new.found, manager) {
			unread = append(unread, "the database of "+manager+" is gone or empty")
		}
	}
	slices.Sort(unread)
	unread = slices.Compact(unread)
	changes = diff(old.Packages, new.Packages)
	if len(unread) > 0 {
		changes = slices.DeleteFunc(changes, func(c Change) bool { return c.From == "" || c.To == "" })
	}
	return changes, unread
}

// diff returns the differences from old to new, in order of name. A package, such as a kernel, may be installed in
// several versions; versions that are in both lists are not a difference.
func diff(old, new []Package) []Change {
	type key struct{ name, arch string }
	removed, added := map[key][]string{}, map[key][]string{}
	keys := map[key]bool{}
	subtract := func(list, others []Package, into map[key][]string) {
		both := map[Package]bool{}
		for _, p := range others {
			both[p] = true
		}
		for _, p := range list {
			if k := (key{p.Name, p.Arch}); !both[p] {
				into[k] = append(into[k], p.Version)
				keys[k] = true
			}
		}
	}
	subtract(old, new, removed)
	subtract(new, old, added)
	var list []Change
	for k := range keys {
		for i := range max(len(removed[k]), len(added[k])) {
			c := Change{Name: k.name, Arch: k.arch}
			if i < len(removed[k]) {
				c.From = removed[k][i]
			}
			if i < len(added[k]) {
				c.To = added[k][i]
			}
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b Change) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Arch, b.Arch),
			strings.Compare(a.From, b.From), strings.Compare(a.To, b.To))
	})
	return list
}
