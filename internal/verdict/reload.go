package verdict

import (
	"slices"
	"strings"
)

// Reload is a command that makes changes take effect on a machine that runs.
type Reload struct {
	Command string // such as "systemctl daemon-reload"
	Paths   int    // number of changed paths that it makes effective
}

// DaemonReload is the command of a Reload by which systemd reads its units again.
const DaemonReload = "systemctl daemon-reload"

// UnitDir reports whether systemd looks for its units, or for links between them, in a directory, given without a
// leading slash.
func UnitDir(dir string) bool {
	return slices.ContainsFunc(unitDirs, func(at string) bool { return dir == at || strings.HasPrefix(dir, at+"/") })
}

// reloadRule says which paths are read again by a command.
type reloadRule struct {
	command string
	program string // the path of what reads them; without it nothing has to be done
	paths   []string
}

// reloadRules are the configurations that a daemon reads at its start, or a program once at boot. A path that ends in a
// slash stands for all below it. Units have a rule of their own.
var reloadRules = []reloadRule{
	{command: DaemonReload, program: "usr/lib/systemd/systemd"},
	{"systemctl reload dbus", "usr/bin/dbus-daemon", []string{"etc/dbus-1/", "usr/share/dbus-1/"}},
	{"udevadm control --reload", "usr/bin/udevadm",
		[]string{"etc/udev/rules.d/", "usr/lib/udev/rules.d/", "lib/udev/rules.d/"}},
	{"systemctl restart systemd-sysctl", "usr/lib/systemd/systemd-sysctl",
		[]string{"etc/sysctl.conf", "etc/sysctl.d/", "usr/lib/sysctl.d/", "lib/sysctl.d/"}},
	{"systemd-tmpfiles --create", "usr/bin/systemd-tmpfiles",
		[]string{"etc/tmpfiles.d/", "usr/lib/tmpfiles.d/", "lib/tmpfiles.d/"}},
	{"systemctl restart systemd-modules-load", "usr/lib/systemd/systemd-modules-load",
		[]string{"etc/modules", "etc/modules-load.d/", "usr/lib/modules-load.d/", "lib/modules-load.d/"}},
	{"systemctl restart systemd-binfmt", "usr/lib/systemd/systemd-binfmt",
		[]string{"etc/binfmt.d/", "usr/lib/binfmt.d/", "lib/binfmt.d/"}},
	{"systemctl reload apparmor", "usr/sbin/apparmor_parser", []string{"etc/apparmor.d/"}},
}

// reloadOf returns the index of the rule of reloadRules for a path; -1: none.
func reloadOf(p string) int {
	if unitFile(p) {
		return 0
	}
	return slices.IndexFunc(reloadRules, func(r reloadRule) bool {
		return slices.ContainsFunc(r.paths, func(at string) bool {
			return p == at || strings.HasSuffix(at, "/") && strings.HasPrefix(p, at)
		})
	})
}

// unitEndings are the types of units, and the directories of links to them.
var unitEndings = []string{
	".service", ".socket", ".target", ".timer", ".mount", ".automount", ".swap", ".path", ".slice", ".scope", ".device",
}

// unitFile reports whether a path is a unit of the system's manager, a drop-in of one, or a link by which another unit
// wants one.
func unitFile(p string) bool {
	for _, dir := range unitDirs {
		rest, ok := strings.CutPrefix(p, dir+"/")
		if !ok {
			continue
		}
		name, part, below := strings.Cut(rest, "/")
		ends := func(name string) bool {
			return slices.ContainsFunc(unitEndings, func(e string) bool { return strings.HasSuffix(name, e) })
		}
		if !below {
			return ends(name)
		}
		if dropIn, ok := strings.CutSuffix(name, ".d"); ok {
			return ends(dropIn) && strings.HasSuffix(part, ".conf")
		}
		return strings.HasSuffix(name, ".wants") || strings.HasSuffix(name, ".requires")
	}
	return false
}

// readers reports for each of reloadRules whether a version has what reads its paths.
func readers(t tree) []bool {
	list := make([]bool, len(reloadRules))
	for i, r := range reloadRules {
		for _, p := range []string{r.program, strings.TrimPrefix(r.program, "usr/")} {
			if _, _, ok := t.resolve(p); ok {
				list[i] = true
			}
		}
	}
	return list
}

// reloads returns what has to be done on a machine with the old version, and how many paths of the counts need nothing,
// because what would read them is not there.
func (col *Collector) reloads(readers []bool) (list []Reload, idle int) {
	for i, r := range reloadRules {
		switch n := col.reload[i]; {
		case n == 0:
		case readers[i]:
			list = append(list, Reload{r.command, n})
		default:
			idle += n - col.services[i]
		}
	}
	return list, idle
}
