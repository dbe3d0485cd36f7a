package verdict

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"dim/internal/pkgdb"
)

// Findings are what the files of two versions tell about the changes between them. They may come from a process that is
// not trusted.
type Findings struct {
	Readers  []bool         `json:"readers"` // by index of reloadRules: the old version has what reads these paths
	Packages []pkgdb.Change `json:"packages"`
	Unread   []string       `json:"unread"`
	Restart  []Service      `json:"restart"`
	Init     bool           `json:"init"`
}

// check returns an error if Find cannot have found f.
func (f *Findings) check() error {
	if len(f.Readers) != len(reloadRules) {
		return errors.New("what was found in the files is incomplete")
	}
	for _, s := range f.Restart {
		if !validUnit(s.Unit) {
			return fmt.Errorf("what was found in the files names %.100q as a service", s.Unit)
		}
	}
	return nil
}

// maxUnitName and unitCharacters are those of names of units (systemd.unit(5)). The @ is that of instances.
const (
	maxUnitName    = 255
	unitCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:-_.\\@"
)

// validUnit reports whether systemd takes a name as that of a unit. Others must not get into commands.
func validUnit(name string) bool {
	return name != "" && len(name) <= maxUnitName && strings.Trim(name, unitCharacters) == "" && name[0] != '-'
}

// Find reads the package databases of both versions and, if something was replaced, the programs of the old version's
// services. The file systems implement fs.ReadLinkFS, and their files implement io.ReaderAt. Replaced are the paths of
// Collector.Replaced.
func Find(old, new fs.FS, replaced []string) *Findings {
	l := newLinker(tree{old})
	f := &Findings{Readers: readers(l.tree)}
	before, after := pkgdb.Load(old), pkgdb.Load(new)
	f.Packages, f.Unread = pkgdb.Compare(before, after)
	if len(replaced) == 0 {
		return f
	}
	units := l.tree.services()
	r := newReplacements(before, replaced, units)
	for _, u := range units {
		if reasons := r.reasons(l, u); len(reasons) > 0 {
			f.Restart = append(f.Restart, Service{Unit: u.name, Because: reasons})
		}
	}
	f.Init = slices.ContainsFunc(l.files("sbin/init"), func(p string) bool { return r.paths[p] })
	return f
}

// replacements are the replaced paths.
type replacements struct {
	paths    map[string]bool
	owners   map[string]string   // packages of these paths and of the units
	units    map[string][]string // paths of units, by the name of the unit
	packages map[string]bool     // those with other paths than units
}

func newReplacements(db *pkgdb.Database, replaced []string, units []unit) *replacements {
	r := &replacements{
		paths: make(map[string]bool, len(replaced)), units: map[string][]string{}, packages: map[string]bool{},
	}
	relevant := make(map[string]bool, len(replaced)+len(units))
	for _, p := range replaced {
		r.paths[p], relevant[p] = true, true
	}
	for _, u := range units {
		relevant[u.file] = true
	}
	r.owners = db.Owners(relevant)
	for _, p := range replaced {
		if name := unitOf(p); name != "" {
			r.units[name] = append(r.units[name], p)
		} else if pkg := r.owners[p]; pkg != "" {
			r.packages[pkg] = true
		}
	}
	return r
}

// reasons returns the packages and paths because of which a service runs replaced code.
func (r *replacements) reasons(l *linker, u unit) []string {
	var list []string
	for _, p := range r.units[u.base()] {
		list = append(list, r.ownerOf(p))
	}
	for _, program := range u.programs {
		for _, p := range l.files(program) {
			if r.paths[p] {
				list = append(list, r.ownerOf(p))
			}
		}
	}
	if pkg := r.owners[u.file]; r.packages[pkg] {
		list = append(list, pkg)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// ownerOf returns the package that a path belongs to, or the path with a leading slash.
func (r *replacements) ownerOf(p string) string {
	if pkg := r.owners[p]; pkg != "" {
		return pkg
	}
	return "/" + p
}
