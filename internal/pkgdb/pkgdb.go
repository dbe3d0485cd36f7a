// Package pkgdb lists the packages that are installed in a root file system, from the package manager's database.
//
// It reads
//
//   - dpkg's database: var/lib/dpkg/status, the stanzas in var/lib/dpkg/status.d (in images without dpkg), and the
//     lists of files in var/lib/dpkg/info;
//   - rpm's database in its SQLite form. The older forms, Berkeley DB and ndb, are reported as unread.
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
	files map[string][]string // rpm: the files of each package
}

// Bounds of what is read.
const (
	maxFile     = 256 << 20
	maxPackages = 1 << 17
)

// The paths of dpkg's database.
const (
	dpkgStatus  = "var/lib/dpkg/status"
	dpkgStatusD = "var/lib/dpkg/status.d"
	dpkgInfo    = "var/lib/dpkg/info"
)

// Load reads the databases in root. A root without a database has no packages, which is not an error.
func Load(root fs.FS) *Database {
	d := &Database{root: root, files: map[string][]string{}}
	d.loadDpkg()
	d.loadRpm()
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
	d.Packages = append(d.Packages, parseStatus(d.read(dpkgStatus))...)
	entries, err := fs.ReadDir(d.root, dpkgStatusD)
	if err != nil {
		return // most roots have no such directory
	}
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasSuffix(e.Name(), ".md5sums") {
			d.Packages = append(d.Packages, parseStatus(d.read(dpkgStatusD+"/"+e.Name()))...)
		}
	}
}

// parseStatus returns the packages in a status file that are at least unpacked. A package without a Status field is.
func parseStatus(b []byte) []Package {
	var list []Package
	for len(b) > 0 && len(list) < maxPackages {
		var stanza []byte
		stanza, b, _ = bytes.Cut(b, []byte("\n\n"))
		if p, ok := parseStanza(stanza); ok {
			list = append(list, p)
		}
	}
	return list
}

// parseStanza returns the package of a stanza, and whether it is unpacked.
func parseStanza(b []byte) (Package, bool) {
	var p Package
	unpacked := true
	for line := range bytes.Lines(b) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line[:min(len(line), 1024)])), ":")
		value = strings.TrimSpace(value)
		if line[0] == ' ' || line[0] == '\t' {
			continue // continues the field above
		}
		switch key {
		case "Package":
			p.Name = value
		case "Architecture":
			p.Arch = value
		case "Version":
			p.Version = value
		case "Status":
			words := strings.Fields(value)
			unpacked = len(words) == 3 && words[2] != "not-installed" && words[2] != "config-files"
		}
	}
	return p, unpacked && p.Name != "" && p.Version != ""
}

// Owners returns the packages to which paths belong, by path. A path that belongs to no package is not in the result.
// Paths are slash-separated and relative to the root, and contain no symbolic links. If a top-level directory is a
// link, as /lib is to usr/lib, the package manager's paths below it are resolved.
func (d *Database) Owners(paths map[string]bool) map[string]string {
	owners := map[string]string{}
	topLinks := d.topLinks()
	note := func(pkg, path string) {
		top, rest, _ := strings.Cut(path, "/")
		if to, ok := topLinks[top]; ok {
			path = to + "/" + rest
		}
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

// Diff returns the differences from old to new, in order of name. A package, such as a kernel, may be installed in
// several versions; versions that are in both lists are not a difference.
func Diff(old, new []Package) []Change {
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
