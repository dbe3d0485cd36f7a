package pkgdb

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Conflict is a package that a node and its master have both changed, each in its own way. A version is "" where the
// package is not installed; several versions of one package are separated by a comma.
type Conflict struct {
	Name   string
	Arch   string
	Old    string // before either changed it
	Node   string
	Master string
}

// Describe names the first packages of a list, with the versions of node and master.
func Describe(list []Conflict) string {
	const most = 5
	var names []string
	for i, p := range list {
		if i == most {
			names = append(names, fmt.Sprintf("%d more", len(list)-most))
			break
		}
		names = append(names, fmt.Sprintf("%s (node: %s, master: %s)", p.Name, installed(p.Node), installed(p.Master)))
	}
	return strings.Join(names, ", ")
}

func installed(version string) string {
	if version == "" {
		return "none"
	}
	return version
}

// OnConflict tells what becomes of a node that has changed packages which its next version changes in another way.
type OnConflict string

// The node stays with the version that it shows; or the packages are the master's, and what the node has of them is set
// aside; or they stay the node's, and the rest is the master's.
const (
	LeaveNode  OnConflict = "stop"
	MasterWins OnConflict = "master"
	NodeWins   OnConflict = "node"
)

// Choices returns all that an OnConflict can be.
func Choices() []OnConflict { return []OnConflict{LeaveNode, MasterWins, NodeWins} }

// Conflicts returns the packages that node and master have made different from old and from each other, by name.
func Conflicts(old, node, master []Package) []Conflict {
	return slices.DeleteFunc(Changed(old, node, master), func(c Conflict) bool { return c.Old == c.Master })
}

// Changed returns the packages that node has made different from old, and not to what master has, by name.
func Changed(old, node, master []Package) []Conflict {
	type key struct{ name, arch string }
	type versions [3][]string
	all := map[key]*versions{}
	for i, list := range [][]Package{old, node, master} {
		for _, p := range list {
			k := key{p.Name, p.Arch}
			if all[k] == nil {
				all[k] = new(versions)
			}
			all[k][i] = append(all[k][i], p.Version)
		}
	}
	var list []Conflict
	for k, v := range all {
		text := func(i int) string { slices.Sort(v[i]); return strings.Join(v[i], ",") }
		c := Conflict{Name: k.name, Arch: k.arch, Old: text(0), Node: text(1), Master: text(2)}
		if c.Old != c.Node && c.Node != c.Master {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b Conflict) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Arch, b.Arch))
	})
	return list
}

// Files returns the paths of a package, as Owners names them, and those of its files in dpkg's database.
func (d *Database) Files(name, arch string) []string {
	links := d.topLinks()
	var list []string
	for _, path := range d.files[name] {
		list = append(list, resolveTop(links, path))
	}
	for _, stem := range []string{name + ":" + arch, name} {
		b, err := readFile(d.root, dpkgInfo+"/"+stem+".list")
		if err != nil {
			continue
		}
		for line := range bytes.Lines(b) {
			path := strings.Trim(string(line), "/\n")
			if path != "" && path != "." {
				list = append(list, resolveTop(links, path))
			}
		}
		list = append(list, d.infoFiles(stem)...)
		break
	}
	return list
}

// infoFiles returns the files in dpkg's database whose names are stem and one suffix.
func (d *Database) infoFiles(stem string) []string {
	entries, err := fs.ReadDir(d.root, dpkgInfo)
	if err != nil {
		return nil
	}
	var list []string
	for _, e := range entries {
		if strings.TrimSuffix(e.Name(), path.Ext(e.Name())) == stem {
			list = append(list, dpkgInfo+"/"+e.Name())
		}
	}
	return list
}

// resolveTop returns a path of a package without a link at its top.
func resolveTop(links map[string]string, path string) string {
	top, rest, _ := strings.Cut(path, "/")
	if to, ok := links[top]; ok && rest != "" {
		return to + "/" + rest
	}
	return path
}

// Conffiles returns the configuration files of a package of dpkg, each with the MD5 sum in hexadecimal that it had when
// it was installed.
func (d *Database) Conffiles(name, arch string) map[string]string {
	sums := map[string]string{}
	b := d.read(DpkgStatus)
	for len(b) > 0 {
		var text []byte
		text, b, _ = bytes.Cut(b, []byte("\n\n"))
		if list := parseStatus(text); len(list) == 0 || list[0].Name != name || list[0].Arch != arch {
			continue
		}
		in := false
		for line := range bytes.Lines(text) {
			if line[0] != ' ' {
				in = bytes.HasPrefix(line, []byte("Conffiles:"))
				continue
			}
			if words := strings.Fields(string(line)); in && len(words) >= 2 {
				sums[strings.TrimPrefix(words[0], "/")] = words[1]
			}
		}
	}
	return sums
}
