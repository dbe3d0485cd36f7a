package verdict

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strings"
)

// unitDirs are where systemd looks for units; an earlier one comes first (systemd.unit(5)).
var unitDirs = []string{"etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}

// busDir is where D-Bus looks for services that it starts when they are asked for.
const busDir = "usr/share/dbus-1/system-services"

// unit is a service that a machine starts, and that stays.
type unit struct {
	name     string // "ssh.service", "getty@tty1.service"
	file     string // its path, without links
	programs []string
}

// base is the name of the unit's file: that of a template for an instance of it.
func (u unit) base() string { return baseOf(u.name) }

func baseOf(name string) string {
	if before, after, ok := strings.Cut(name, "@"); ok {
		return before + "@" + path.Ext(after)
	}
	return name
}

// unitOf returns the service that a path is a unit file of, or a part of one; "" when it is neither.
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

// started returns the services that a machine with this root starts and that do not end by themselves, in order of name: those that a
// target, a socket, a timer or a path wants, and those that D-Bus starts.
func (t tree) started() []unit {
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
				wanted[unit] = true // often an alias, which is there when the service is enabled
			}
		}
	}
	byName := map[string]unit{} // a name and its alias are one service
	for name := range wanted {
		if u, ok := t.unit(name); ok {
			byName[u.name] = u
		}
	}
	return slices.SortedFunc(maps.Values(byName), func(a, b unit) int { return cmp.Compare(a.name, b.name) })
}

// unit reads a unit. It is none when there is no file, when it is masked, and when it runs only once.
func (t tree) unit(name string) (unit, bool) {
	for _, dir := range unitDirs {
		for _, file := range slices.Compact([]string{name, baseOf(name)}) {
			real, _, ok := t.resolve(dir + "/" + file)
			if !ok {
				continue
			}
			u := unit{name: path.Base(real), file: real}
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

// program returns the path of the program that a command line of a unit starts.
func program(line string) string {
	word, _, _ := strings.Cut(strings.TrimLeft(strings.TrimSpace(line), "@-:+!|"), " ")
	word = strings.Trim(word, `"'`)
	if word == "" || path.IsAbs(word) {
		return strings.TrimPrefix(word, "/")
	}
	return "usr/bin/" + word
}
