// Package verdict determines what a switch from one version to another means for machines that run the old one: which
// changes take effect at once, which when a daemon reads its configuration again, which when a program is restarted,
// and which need a reboot.
//
// # Method
//
// Each changed path has a class, which depends on its name and mode alone. The services that run replaced code are
// found in the old version, because that is what runs:
//
//   - the unit files name the services and their programs;
//   - the ELF headers of the programs name the libraries that they load;
//   - the package database names the other files in a service's package.
//
// A service needs a restart if any of these files changed.
//
// A Collector decides what follows from the changes alone. Find reads the files, whose bytes are a master's; it may run
// in another process, because its Findings are checked.
//
// # Limits
//
// The package does not find libraries that a program loads itself (dlopen) if they are not in the service's package,
// services that generators make at boot, and programs that users run. Only the node can find which of its processes map
// replaced files.
//
// It sees io/fs file systems and the changes between them. It must not know how a version is stored or what a node is.
package verdict

import (
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/pkgdb"
)

// class says when a change takes effect on a running machine.
type class uint8

const (
	dataClass    class = iota // at once
	reloadClass               // when a daemon has read it again
	programClass              // when the programs that use it are restarted
	bootClass                 // at the next boot
)

// classify returns the class of a change. A change of attributes alone takes effect at once.
func classify(c treediff.Change) class {
	e := c.New
	if e == nil {
		e = c.Old
	}
	switch {
	case e.Type == image.Directory, c.Old != nil && c.New != nil && sameContent(c.Old, c.New):
		return dataClass
	case bootPath(c.Path):
		return bootClass
	case programPath(c.Path, e):
		return programClass
	case reloadOf(c.Path) >= 0:
		return reloadClass
	}
	return dataClass
}

func sameContent(a, b *image.Entry) bool {
	return a.Type == b.Type && a.Digest == b.Digest && a.Target == b.Target && a.Major == b.Major && a.Minor == b.Minor
}

// bootNames are the beginnings of the names of kernel files in /boot.
var bootNames = []string{"vmlinu", "Image", "kernel", "initrd", "initramfs", "System.map", "config"}

// bootPath reports whether a path belongs to a kernel.
func bootPath(p string) bool {
	if name, ok := strings.CutPrefix(p, "boot/"); ok {
		return slices.ContainsFunc(bootNames, func(begin string) bool { return strings.HasPrefix(name, begin) })
	}
	p = strings.TrimPrefix(p, "usr/")
	return strings.HasPrefix(p, "lib/modules/") || strings.HasPrefix(p, "lib/firmware/")
}

// codeDirs are the directories of programs. codeEndings are the endings of files that programs load.
var (
	codeDirs = []string{
		"bin/", "sbin/", "usr/bin/", "usr/sbin/", "usr/local/bin/", "usr/local/sbin/", "usr/libexec/",
	}
	codeEndings = []string{".so", ".py", ".pyc", ".pm", ".pl", ".rb", ".jar", ".js", ".el", ".elc", ".lua", ".tcl"}
)

// programPath reports whether a path is a program, a part of one, or a unit.
func programPath(p string, e *image.Entry) bool {
	if unitOf(p) != "" {
		return true
	}
	if e.Type != image.Regular && e.Type != image.Symlink ||
		strings.HasPrefix(p, "etc/") || strings.HasPrefix(p, "var/") ||
		strings.HasPrefix(p, "usr/share/doc/") {
		return false
	}
	begins := func(dir string) bool { return strings.HasPrefix(p, dir) }
	ends := func(ending string) bool { return strings.HasSuffix(p, ending) }
	return e.Type == image.Regular && e.Mode&0o111 != 0 || slices.ContainsFunc(codeDirs, begins) ||
		slices.ContainsFunc(codeEndings, ends) || strings.Contains(path.Base(p), ".so.")
}

// Verdict says what the switch means for running machines.
type Verdict struct {
	Data     int // number of paths that take effect at once
	Load     int // number of paths that take effect when a daemon has read them again, see Reload
	Programs int // number of paths that take effect when programs are restarted
	Boot     int // number of paths that take effect at the next boot
	Restart  []Service
	Reload   []Reload // also for units of services, which Programs counts
	Library  bool     // a shared library is new or has another content
	// Usr is the new time of /usr if that has changed: systemd compares it with the files .updated in /etc and /var
	// (systemd-update-done.service(8)).
	Usr      time.Time
	Init     bool // the init process runs replaced code, until `systemctl daemon-reexec` or the next boot
	Packages []pkgdb.Change
	Unread   []string // package databases that could not be read, see pkgdb.Database
	// Unknown is why the files were not looked at: Restart, Init and Packages then lack what they would have told, and
	// Reload has all that might be necessary. It is empty if they were.
	Unknown string
}

// Reboot reports whether some changes need a reboot.
func (v *Verdict) Reboot() bool { return v.Boot > 0 }

// Service is a service that runs replaced code until it is restarted.
type Service struct {
	Unit    string   `json:"unit"`
	Because []string `json:"because"` // packages with changed files; paths with a leading slash for files in none
}

// Collector collects the changes between two versions.
type Collector struct {
	verdict  Verdict
	replaced map[string]bool // changed paths of programs and units in the old version
	reload   []int           // number of changed paths by index of reloadRules
	services []int           // number of those that are units of services
}

// New returns a Collector without changes.
func New() *Collector {
	n := len(reloadRules)
	return &Collector{replaced: map[string]bool{}, reload: make([]int, n), services: make([]int, n)}
}

// Add records one change.
func (col *Collector) Add(c treediff.Change) {
	kind := classify(c)
	if i := reloadOf(c.Path); i >= 0 && (kind == reloadClass || kind == programClass) {
		col.reload[i]++
		if kind == programClass {
			col.services[i]++
		}
	}
	if c.Path == "usr" && c.New != nil && c.Old != nil && c.New.Mtime != c.Old.Mtime {
		col.verdict.Usr = time.Unix(c.New.Mtime.Sec, int64(c.New.Mtime.Nsec))
	}
	switch kind {
	case dataClass:
		col.verdict.Data++
	case reloadClass:
		col.verdict.Load++
	case bootClass:
		col.verdict.Boot++
	case programClass:
		col.verdict.Programs++
		col.verdict.Library = col.verdict.Library || c.New != nil && library(c.Path)
		if c.Old != nil || unitOf(c.Path) != "" { // a new unit file may override, or add to, an existing one
			col.replaced[c.Path] = true
		}
	}
}

// library reports whether a path is a shared library where the dynamic loader looks for it.
func library(p string) bool {
	p = strings.TrimPrefix(p, "usr/")
	name := path.Base(p)
	return (strings.HasPrefix(p, "lib/") || strings.HasPrefix(p, "lib64/") || strings.HasPrefix(p, "local/lib/")) &&
		(strings.HasSuffix(name, ".so") || strings.Contains(name, ".so."))
}

// Replaced returns the paths of programs and units that Find asks for, in no order.
func (col *Collector) Replaced() []string { return slices.Collect(maps.Keys(col.replaced)) }

// Verdict returns the meaning of all changes that were added, given what Find has found. It returns an error if Find
// cannot have found that.
func (col *Collector) Verdict(f *Findings) (Verdict, error) {
	if err := f.check(); err != nil {
		return Verdict{}, err
	}
	v := col.verdict
	var idle int
	v.Reload, idle = col.reloads(f.Readers)
	v.Data, v.Load = v.Data+idle, v.Load-idle
	v.Packages, v.Unread, v.Restart, v.Init = f.Packages, f.Unread, f.Restart, f.Init
	return v, nil
}

// VerdictWithout returns what the changes mean if the files cannot be looked at.
func (col *Collector) VerdictWithout(why string) Verdict {
	v := col.verdict
	all := make([]bool, len(reloadRules))
	for i := range all {
		all[i] = true
	}
	v.Reload, _ = col.reloads(all)
	v.Unknown = why
	return v
}
