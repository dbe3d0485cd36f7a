// Package pkgdb tells which packages are installed in a root file system, from the database that its package manager left there.
//
// Read is dpkg's: var/lib/dpkg/status, the stanzas in var/lib/dpkg/status.d (images without dpkg itself), and the lists of files in
// var/lib/dpkg/info; and rpm's in its SQLite form. Rpm's older forms (Berkeley DB, ndb) are reported as not read.
//
// What it reads comes from a master, so it is bounded, and nothing in it is trusted to be well formed: what cannot be understood is
// left out. It must not know what a version or a node is; it sees an io/fs file system.
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
	Unread   []string  // databases that are there and could not be read, each with the reason

	root  fs.FS
	files map[string][]string // rpm: the packages' files
}

// The bounds of what is read.
const (
	maxFile     = 256 << 20
	maxPackages = 1 << 17
)

// The places of dpkg's database.
const (
	dpkgStatus  = "var/lib/dpkg/status"
	dpkgStatusD = "var/lib/dpkg/status.d"
	dpkgInfo    = "var/lib/dpkg/info"
)

// Load reads the databases that root has. A root without any has no packages, which is no error.
func Load(root fs.FS) *Database {
	d := &Database{root: root, files: map[string][]string{}}
	d.loadDpkg()
	d.loadRpm()
	slices.SortFunc(d.Packages, compare)
	d.Packages = slices.Compact(d.Packages)
	return d
}

func compare(a, b Package) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Arch, b.Arch), strings.Compare(a.Version, b.Version))
}

// read returns a file's content; what is not there is nil, what cannot be read is noted.
func (d *Database) read(name string) []byte {
	b, err := readFile(d.root, name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.unread(name, err)
	}
	return b
}

func (d *Database) unread(name string, err error) {
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
		return // most have none
	}
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasSuffix(e.Name(), ".md5sums") {
			d.Packages = append(d.Packages, parseStatus(d.read(dpkgStatusD+"/"+e.Name()))...)
		}
	}
}

// parseStatus returns the packages of a status file that are there: unpacked at least. One without a Status field is.
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

func parseStanza(b []byte) (Package, bool) {
	var p Package
	there := true
	for line := range bytes.Lines(b) {
		key, value, _ := strings.Cut(strings.TrimSpace(string(line[:min(len(line), 1024)])), ":")
		value = strings.TrimSpace(value)
		if line[0] == ' ' || line[0] == '\t' {
			continue // goes on with the field above
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
			there = len(words) == 3 && words[2] != "not-installed" && words[2] != "config-files"
		}
	}
	return p, there && p.Name != "" && p.Version != ""
}

// Owners returns the packages that paths belong to, for those that belong to one. Paths are slash-separated, from the root, without a
// leading slash, and without symbolic links on the way; where a top directory is a link, as /lib is to usr/lib, the lists are taken to mean
// what it leads to.
func (d *Database) Owners(paths map[string]bool) map[string]string {
	owners := map[string]string{}
	merged := d.merged()
	note := func(pkg, path string) {
		top, rest, _ := strings.Cut(path, "/")
		if to, ok := merged[top]; ok {
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
		pkg, _, _ = strings.Cut(pkg, ":") // of those that may be there for several architectures
		b, _ := readFile(d.root, dpkgInfo+"/"+e.Name())
		for line := range bytes.Lines(b) {
			note(pkg, strings.TrimPrefix(strings.TrimSuffix(string(line), "\n"), "/"))
		}
	}
	return owners
}

// merged returns where the top directories that are links lead to.
func (d *Database) merged() map[string]string {
	to := map[string]string{}
	links, ok := d.root.(fs.ReadLinkFS)
	if !ok {
		return to
	}
	for _, top := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"} {
		if target, err := links.ReadLink(top); err == nil {
			to[top] = strings.Trim(target, "/")
		}
	}
	return to
}

// Change is one package that differs. Of one that was added, From is empty; of one that was removed, To.
type Change struct {
	Name string
	Arch string
	From string
	To   string
}

// Diff returns what differs from old to new, in order of name. Of a package that is there in several versions, such as a kernel, those
// that both have are no difference.
func Diff(old, new []Package) []Change {
	type key struct{ name, arch string }
	gone, came := map[key][]string{}, map[key][]string{}
	keys := map[key]bool{}
	sort := func(list, others []Package, into map[key][]string) {
		have := map[Package]bool{}
		for _, p := range others {
			have[p] = true
		}
		for _, p := range list {
			if k := (key{p.Name, p.Arch}); !have[p] {
				into[k] = append(into[k], p.Version)
				keys[k] = true
			}
		}
	}
	sort(old, new, gone)
	sort(new, old, came)
	var list []Change
	for k := range keys {
		for i := range max(len(gone[k]), len(came[k])) {
			c := Change{Name: k.name, Arch: k.arch}
			if i < len(gone[k]) {
				c.From = gone[k][i]
			}
			if i < len(came[k]) {
				c.To = came[k][i]
			}
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b Change) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Arch, b.Arch), strings.Compare(a.From, b.From), strings.Compare(a.To, b.To))
	})
	return list
}
