// Package kmod reads the tables of a kernel's modules, which depmod(8) and modprobe.d(5) describe: the file of a
// module, its dependencies, its hardware. The builder of the initramfs chooses modules by them, and dim-init loads
// modules by them.
//
// The tables are the distribution's own text files: modules.dep, modules.alias, modules.softdep, modules.builtin and
// modprobe's configuration. Prune writes the same formats.
//
// Parsing never fails. Like modprobe it ignores lines that it does not understand: tables come from many distributions,
// and an odd line must not cost a boot.
//
// # Concurrency
//
// An Index does not change, and may be used by any number of goroutines.
//
// # What it must not know
//
// Files, images and initramfs.
package kmod

import (
	"path"
	"slices"
	"strings"
)

// Tables is the text of one kernel's tables. Missing ones are empty.
type Tables struct {
	Dep     string // modules.dep
	Alias   string // modules.alias
	Softdep string // modules.softdep
	Builtin string // modules.builtin
	Conf    string // the files of modprobe.d, one after the other in modprobe's order
}

// Index has the modules of one kernel. The names of modules that it returns are in canonical form.
type Index struct {
	modules map[string]*module
	order   []string // as in modules.dep
	builtin map[string]bool
	aliases map[string][]alias // by aliasClass, in order of appearance
	softs   []softdep
	options map[string][]string
	banned  map[string]bool
}

type module struct {
	path string
	deps []string // names, to be loaded in reverse order
}

type alias struct{ pattern, name string }

type softdep struct {
	name      string
	pre, post []string
}

// canonical returns the canonical name of a module, from the path of its file or from a name with dashes.
func canonical(s string) string {
	s = path.Base(s)
	if i := strings.Index(s, ".ko"); i > 0 {
		s = s[:i]
	}
	return strings.ReplaceAll(s, "-", "_")
}

// Parse reads tables.
func Parse(t Tables) *Index {
	ix := &Index{
		modules: make(map[string]*module),
		builtin: make(map[string]bool),
		aliases: make(map[string][]alias),
		options: make(map[string][]string),
		banned:  make(map[string]bool),
	}
	for line := range lines(t.Dep) {
		ix.parseDep(line)
	}
	for line := range lines(t.Builtin) {
		ix.builtin[canonical(line)] = true
	}
	// The configuration comes first: an administrator's alias precedes the module's own.
	for _, text := range []string{t.Conf, t.Softdep, t.Alias} {
		for line := range lines(text) {
			ix.parseConf(line)
		}
	}
	return ix
}

func (ix *Index) parseDep(line string) {
	file, deps, ok := strings.Cut(line, ":")
	name := canonical(file)
	if !ok || name == "" || ix.modules[name] != nil {
		return
	}
	m := &module{path: file}
	for _, d := range strings.Fields(deps) {
		m.deps = append(m.deps, canonical(d))
	}
	ix.modules[name] = m
	ix.order = append(ix.order, name)
}

// parseConf reads a line of modprobe.d(5), modules.alias or modules.softdep.
func (ix *Index) parseConf(line string) {
	f := strings.Fields(line)
	if len(f) < 2 {
		return
	}
	switch word, name := f[0], canonical(f[1]); {
	case word == "alias" && len(f) == 3:
		class := aliasClass(f[1])
		ix.aliases[class] = append(ix.aliases[class], alias{pattern: underscored(f[1]), name: canonical(f[2])})
	case word == "blacklist":
		ix.banned[name] = true
	case word == "options" && len(f) > 2:
		ix.options[name] = append(ix.options[name], f[2:]...)
	case word == "softdep":
		ix.softs = append(ix.softs, parseSoftdep(name, f[2:]))
	case word == "install" && len(f) > 2 && (path.Base(f[2]) == "false" || path.Base(f[2]) == "true"):
		// The usual way to disable a module. An initramfs cannot run other commands of `install`.
		ix.banned[name] = true
	}
}

func parseSoftdep(name string, words []string) softdep {
	s := softdep{name: name}
	post := false
	for _, w := range words {
		switch {
		case w == "pre:":
			post = false
		case w == "post:":
			post = true
		case post:
			s.post = append(s.post, w)
		default:
			s.pre = append(s.pre, w)
		}
	}
	return s
}

// Names returns all modules in the order of modules.dep.
func (ix *Index) Names() []string { return slices.Clone(ix.order) }

// Path returns the path of a module's file, relative to the kernel's directory of modules.
func (ix *Index) Path(name string) (string, bool) {
	m, ok := ix.modules[canonical(name)]
	if !ok {
		return "", false
	}
	return m.path, true
}

// Builtin reports whether a module is built into the kernel.
func (ix *Index) Builtin(name string) bool { return ix.builtin[canonical(name)] }

// Options returns the options of a module in the configuration.
func (ix *Index) Options(name string) []string { return ix.options[canonical(name)] }

// Lookup returns the modules of a name or an alias. As with modprobe, an alias (such as a device's modalias) does not
// find modules that the configuration blacklists, but a name does.
func (ix *Index) Lookup(nameOrAlias string) []string {
	if n := canonical(nameOrAlias); ix.modules[n] != nil {
		return []string{n}
	}
	if ix.Builtin(nameOrAlias) {
		return nil
	}
	var found []string
	text := underscored(nameOrAlias)
	for _, class := range []string{aliasClass(nameOrAlias), ""} {
		for _, a := range ix.aliases[class] {
			usable := ix.modules[a.name] != nil && !ix.banned[a.name] && !slices.Contains(found, a.name)
			if usable && match(a.pattern, text) {
				found = append(found, a.name)
			}
		}
		if class == "" {
			break
		}
	}
	return found
}

// LoadOrder returns the modules to load for a module, in order: its soft dependencies before it, its dependencies,
// itself, its soft dependencies after it. Soft dependencies that do not exist are ignored.
func (ix *Index) LoadOrder(name string) []string {
	var out []string
	ix.visit(canonical(name), make(map[string]bool), &out)
	return out
}

func (ix *Index) visit(name string, seen map[string]bool, out *[]string) {
	m := ix.modules[name]
	if m == nil || seen[name] {
		return
	}
	seen[name] = true
	ix.visitSoft(name, seen, out, func(s softdep) []string { return s.pre })
	for _, d := range slices.Backward(m.deps) {
		ix.visit(d, seen, out)
	}
	*out = append(*out, name)
	ix.visitSoft(name, seen, out, func(s softdep) []string { return s.post })
}

func (ix *Index) visitSoft(name string, seen map[string]bool, out *[]string, of func(softdep) []string) {
	for _, s := range ix.softs {
		if s.name != name {
			continue
		}
		for _, want := range of(s) {
			for _, n := range ix.Lookup(want) {
				ix.visit(n, seen, out)
			}
		}
	}
}

// Prune returns the tables of the modules in keep, without the suffixes of compressed files. An Index of these tables
// gives the same answers for these modules.
func (ix *Index) Prune(keep map[string]bool) Tables {
	var dep, soft, conf strings.Builder
	for _, name := range ix.order {
		if !keep[name] {
			continue
		}
		m := ix.modules[name]
		dep.WriteString(Plain(m.path) + ":")
		for _, d := range m.deps {
			if dm := ix.modules[d]; dm != nil {
				dep.WriteString(" " + Plain(dm.path))
			}
		}
		dep.WriteByte('\n')
		if o := ix.options[name]; len(o) > 0 {
			conf.WriteString("options " + name + " " + strings.Join(o, " ") + "\n")
		}
		if ix.banned[name] {
			conf.WriteString("blacklist " + name + "\n")
		}
	}
	for _, s := range ix.softs {
		if !keep[s.name] {
			continue
		}
		soft.WriteString("softdep " + s.name + " pre: " + strings.Join(s.pre, " "))
		soft.WriteString(" post: " + strings.Join(s.post, " ") + "\n")
	}
	return Tables{Dep: dep.String(), Alias: ix.pruneAliases(keep), Softdep: soft.String(), Conf: conf.String()}
}

func (ix *Index) pruneAliases(keep map[string]bool) string {
	classes := make([]string, 0, len(ix.aliases))
	for c := range ix.aliases {
		classes = append(classes, c)
	}
	slices.Sort(classes)
	var b strings.Builder
	for _, c := range classes {
		for _, a := range ix.aliases[c] {
			if keep[a.name] {
				b.WriteString("alias " + a.pattern + " " + a.name + "\n")
			}
		}
	}
	return b.String()
}

// Plain removes the suffix of a compressed module from its path: kernel/x.ko.xz becomes kernel/x.ko.
func Plain(file string) string {
	if i := strings.LastIndex(file, ".ko."); i > 0 {
		return file[:i+len(".ko")]
	}
	return file
}
