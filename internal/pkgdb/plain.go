package pkgdb

import (
	"bytes"
	"fmt"
	"io/fs"
	"strings"
)

// apkInstalled are the places of apk's database. Alpine has moved it with apk 3.
var apkInstalled = []string{"usr/lib/apk/db/installed", "lib/apk/db/installed"}

// PacmanLocal is the directory of pacman's database. It has a directory for each package.
const PacmanLocal = "var/lib/pacman/local"

// loadApk reads the first of apk's databases: the second place can be a link to the first.
func (d *Database) loadApk() {
	for _, name := range apkInstalled {
		b := d.read(name)
		if b == nil {
			continue
		}
		if err := d.parseApk(b); err != nil {
			d.addUnread(name, err)
		}
		return
	}
}

// parseApk adds the packages in apk's database. A package is a group of lines that an empty line ends: P is the name, V
// the version, A the architecture; R is a file in the directory of the F before it.
func (d *Database) parseApk(b []byte) error {
	var p Package
	var files []string
	dir := ""
	for line := range bytes.Lines(append(b[:len(b):len(b)], '\n', '\n')) {
		key, value, _ := strings.Cut(strings.TrimRight(string(line[:min(len(line), maxPath)]), "\r\n"), ":")
		switch key {
		case "P":
			p.Name = value
		case "V":
			p.Version = value
		case "A":
			p.Arch = value
		case "F":
			dir = value
		case "R":
			files = append(files, strings.TrimPrefix(dir+"/"+value, "/"))
		case "":
			if err := d.add("apk", p, files); err != nil {
				return err
			}
			p, files, dir = Package{}, nil, ""
		}
	}
	return nil
}

// loadPacman reads the packages in pacman's database.
func (d *Database) loadPacman() {
	entries, _ := fs.ReadDir(d.root, PacmanLocal) // most roots have no such directory
	for _, e := range entries {
		if !e.IsDir() {
			continue // its version
		}
		dir := PacmanLocal + "/" + e.Name()
		sections := pacmanSections(d.read(dir + "/desc"))
		value := func(key string) string { return strings.Join(sections[key], " ") }
		files := []string{dir}
		if info, err := fs.ReadDir(d.root, dir); err == nil {
			for _, f := range info {
				files = append(files, dir+"/"+f.Name())
			}
		}
		for _, file := range pacmanSections(d.read(dir + "/files"))["%FILES%"] {
			files = append(files, strings.TrimSuffix(file, "/"))
		}
		p := Package{Name: value("%NAME%"), Version: value("%VERSION%"), Arch: value("%ARCH%")}
		if err := d.add("pacman", p, files); err != nil {
			d.addUnread(PacmanLocal, err)
			return
		}
	}
}

// pacmanSections returns the lines of each section of a file. An empty line ends a section.
func pacmanSections(b []byte) map[string][]string {
	sections := map[string][]string{}
	name := ""
	for line := range bytes.Lines(b) {
		text := strings.TrimRight(string(line[:min(len(line), maxPath)]), "\r\n")
		switch {
		case text == "":
			name = ""
		case name == "":
			name = text
		default:
			sections[name] = append(sections[name], text)
		}
	}
	return sections
}

// add adds a package with its files. One without a name or a version is none.
func (d *Database) add(manager string, p Package, files []string) error {
	if p.Name == "" || p.Version == "" {
		return nil
	}
	if len(d.Packages) >= maxPackages {
		return fmt.Errorf("more than %d packages", maxPackages)
	}
	d.Packages = append(d.Packages, p)
	d.files[p.Name] = append(d.files[p.Name], files...)
	d.addFound(manager)
	return nil
}
