// Package verdict tells what a change from one version to another means for machines that run the old one: what they see at once,
// what they see when a program is started again, and what needs a reboot.
//
// # How
//
// Each changed path has a class, by its name and mode alone. Which services run replaced code is found in the old version, because
// that is what runs: the unit files tell which services are started, their programs' ELF headers which libraries those load, and the package
// database which other files a service's package brought. A service is named when any of these changed.
//
// # What it does not know
//
// Libraries that a program loads by itself (dlopen) other than its package's, services that generators make at boot, and programs that
// people run. Only a node knows which of its processes map replaced files.
//
// It sees io/fs file systems and the changes between them, and must not know how a version is stored or what a node is.
package verdict

import (
	"io/fs"
	"path"
	"slices"
	"strings"

	"dim/internal/image"
	"dim/internal/pkgdb"
)

// Class tells when a change is in effect on a machine that runs.
type Class uint8

// The classes: at once; when what uses it is started again; at the next boot.
const (
	Data Class = iota
	Program
	Boot
)

// Classify returns the class of a change. A change of attributes alone is in effect at once.
func Classify(c image.Change) Class {
	e := c.New
	if e == nil {
		e = c.Old
	}
	switch {
	case e.Type == image.Directory, c.Old != nil && c.New != nil && sameContent(c.Old, c.New):
		return Data
	case bootPath(c.Path):
		return Boot
	case programPath(c.Path, e):
		return Program
	}
	return Data
}

func sameContent(a, b *image.Entry) bool {
	return a.Type == b.Type && a.Digest == b.Digest && a.Target == b.Target && a.Major == b.Major && a.Minor == b.Minor
}

// bootNames are how files in /boot begin that a kernel is made of.
var bootNames = []string{"vmlinu", "Image", "kernel", "initrd", "initramfs", "System.map", "config"}

func bootPath(p string) bool {
	if name, ok := strings.CutPrefix(p, "boot/"); ok {
		return slices.ContainsFunc(bootNames, func(begin string) bool { return strings.HasPrefix(name, begin) })
	}
	p = strings.TrimPrefix(p, "usr/")
	return strings.HasPrefix(p, "lib/modules/") || strings.HasPrefix(p, "lib/firmware/")
}

// codeDirs are where programs are; codeEndings are of files that programs load.
var (
	codeDirs    = []string{"bin/", "sbin/", "usr/bin/", "usr/sbin/", "usr/local/bin/", "usr/local/sbin/", "usr/libexec/"}
	codeEndings = []string{".so", ".py", ".pyc", ".pm", ".pl", ".rb", ".jar", ".js", ".el", ".elc", ".lua", ".tcl"}
)

func programPath(p string, e *image.Entry) bool {
	if unitOf(p) != "" {
		return true
	}
	if e.Type != image.Regular && e.Type != image.Symlink || strings.HasPrefix(p, "etc/") || strings.HasPrefix(p, "var/") ||
		strings.HasPrefix(p, "usr/share/doc/") {
		return false
	}
	begins := func(dir string) bool { return strings.HasPrefix(p, dir) }
	ends := func(ending string) bool { return strings.HasSuffix(p, ending) }
	return e.Type == image.Regular && e.Mode&0o111 != 0 || slices.ContainsFunc(codeDirs, begins) ||
		slices.ContainsFunc(codeEndings, ends) || strings.Contains(path.Base(p), ".so.")
}

// Verdict is what a change means.
type Verdict struct {
	Data     int // paths in effect at once
	Programs int // paths in effect when what uses them is started again
	Boot     int // paths in effect at the next boot
	Restart  []Service
	Init     bool // the init process itself runs replaced code: `systemctl daemon-reexec`, or the next boot
	Packages []pkgdb.Change
	Unread   []string // package databases that could not be read, see pkgdb.Database
}

// Reboot reports whether a part of the change waits for a reboot.
func (v *Verdict) Reboot() bool { return v.Boot > 0 }

// Service is one that runs replaced code until it is started again.
type Service struct {
	Unit    string
	Because []string // packages whose files changed; paths of files that are no package's, with a leading slash
}

// Judge collects the changes between two versions.
type Judge struct {
	old, new fs.FS
	verdict  Verdict
	replaced map[string]bool // paths of programs that the old version has, and that changed
}

// New returns a Judge of changes from old to new, which are the versions' file systems: they have to implement fs.ReadLinkFS, and their
// files io.ReaderAt.
func New(old, new fs.FS) *Judge { return &Judge{old: old, new: new, replaced: map[string]bool{}} }

// Add notes one change.
func (j *Judge) Add(c image.Change) {
	switch Classify(c) {
	case Data:
		j.verdict.Data++
	case Boot:
		j.verdict.Boot++
	case Program:
		j.verdict.Programs++
		if c.Old != nil {
			j.replaced[c.Path] = true
		} else if unitOf(c.Path) != "" {
			j.replaced[c.Path] = true // a new file may come before, or add to, one that is there
		}
	}
}

// Verdict returns what all that was added means. It reads both versions' package databases, and the programs of the old
// one's services when a program changed.
func (j *Judge) Verdict() Verdict {
	v := j.verdict
	before, after := pkgdb.Load(j.old), pkgdb.Load(j.new)
	v.Packages, v.Unread = pkgdb.Diff(before.Packages, after.Packages), after.Unread
	if len(j.replaced) == 0 {
		return v
	}
	r := newReach(tree{j.old})
	units := r.tree.started()
	interest := make(map[string]bool, len(j.replaced)+len(units))
	for p := range j.replaced {
		interest[p] = true
	}
	for _, u := range units {
		interest[u.file] = true
	}
	owners := before.Owners(interest)
	changed := map[string][]string{} // by package
	for p := range j.replaced {
		if pkg := owners[p]; pkg != "" && unitOf(p) == "" {
			changed[pkg] = append(changed[pkg], p)
		}
	}
	for _, u := range units {
		if because := j.because(r, u, owners, changed); len(because) > 0 {
			v.Restart = append(v.Restart, Service{Unit: u.name, Because: because})
		}
	}
	v.Init = slices.ContainsFunc(r.of("sbin/init"), func(p string) bool { return j.replaced[p] })
	return v
}

// because returns the packages and paths by which a service runs replaced code.
func (j *Judge) because(r *reach, u unit, owners map[string]string, changed map[string][]string) []string {
	var list []string
	for p := range j.replaced {
		if unitOf(p) == u.base() {
			list = append(list, named(p, owners))
		}
	}
	for _, program := range u.programs {
		for _, p := range r.of(program) {
			if j.replaced[p] {
				list = append(list, named(p, owners))
			}
		}
	}
	if pkg := owners[u.file]; pkg != "" && len(changed[pkg]) > 0 {
		list = append(list, pkg)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func named(p string, owners map[string]string) string {
	if pkg := owners[p]; pkg != "" {
		return pkg
	}
	return "/" + p
}
