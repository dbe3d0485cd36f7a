package verdict

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strings"
)

// unitDirs are systemd's directories of units, in order of priority (systemd.unit(5)).
var unitDirs = []string{
	"etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system",
}

// busDir is the directory of services that D-Bus starts on demand.
const busDir = "usr/share/dbus-1/system-services"

// unit is a service that keeps running.
type unit struct {
	name     string // "ssh.service", "getty@tty1.service"
	file     string // its path, with links resolved
	programs []string
}

// base returns the name of the unit's file. For an instance, that is the name of the template.
func (u unit) base() string { return baseOf(u.name) }

func baseOf(name string) string {
	if before, after, ok := strings.Cut(name, "@"); ok {
		return before + "@" + path.Ext(after)
	}
	return name
}

// unitOf returns the service whose unit file or drop-in is at a path, or "".
func unitOf(p string) string {
	for _, dir := range unitDirs {
		rest, ok := strings.CutPrefix(p, dir+"/")
		if !ok {
			continue
		}
		name, part, more := strings.Cut(rest, "/")
		if dropIn, ok := strings.CutSuffix(name, ".d"); ok && more && strings.HasSuffix(part, ".conf") {
			name, more = dropIn, false
		}
		if !more && strings.HasSuffix(name, ".service") {
			return baseOf(name)
		}
	}
	return ""
}

// services returns the services that a machine with this root starts and that keep running, in order of name: those
// that are wanted by a target, a socket, a timer or a path, and those that D-Bus starts.
func (t tree) services() []unit {
	wanted := map[string]bool{}
	for _, dir := range unitDirs {
		for _, name := range t.names(dir) {
			if ext := path.Ext(name); ext != ".wants" && ext != ".requires" {
				continue
			}
			for _, link := range t.names(dir + "/" + name) {
				wanted[strings.TrimSuffix(link, path.Ext(link))+".service"] = true
			}
		}
	}
	for _, name := range t.names(busDir) {
		for line := range strings.Lines(t.text(busDir+"/"+name, maxUnit)) {
			if unit, ok := strings.CutPrefix(strings.TrimSpace(line), "SystemdService="); ok {
				wanted[unit] = true // often an alias, which exists if the service is enabled
			}
		}
	}
	byName := map[string]unit{} // a name and its alias are one service
	for name := range wanted {
		if u, ok := t.unit(name); ok && validUnit(u.name) {
			byName[u.name] = u
		}
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b unit) int { return cmp.Compare(a.name, b.name) })
}

// unit reads a unit. ok is false if there is no file, if it is masked, and if it is of type oneshot.
func (t tree) unit(name string) (u unit, ok bool) {
	for _, dir := range unitDirs {
		for _, file := range slices.Compact([]string{name, baseOf(name)}) {
			real, _, exists := t.resolve(dir + "/" + file)
			if !exists {
				continue
			}
			u = unit{name: path.Base(real), file: real}
			if strings.Contains(name, "@") {
				u.name = name
			}
			kind := ""
			for line := range strings.Lines(t.text(real, maxUnit)) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				switch strings.TrimSpace(key) {
				case "Type":
					kind = strings.TrimSpace(value)
				case "ExecStart":
					if p := program(value); p != "" {
						u.programs = append(u.programs, p)
					}
				}
			}
			return u, kind != "oneshot" && len(u.programs) > 0
		}
	}
	return unit{}, false
}

// program returns the path of the program that a command line in a unit starts.
func program(line string) string {
	word, _, _ := strings.Cut(strings.TrimLeft(strings.TrimSpace(line), "@-:+!|"), " ")
	word = strings.Trim(word, `"'`)
	if word == "" || path.IsAbs(word) {
		return strings.TrimPrefix(word, "/")
	}
	return "usr/bin/" + word
}
