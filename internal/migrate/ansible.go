package migrate

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"dim/internal/migrate/describe"
)

// ansibleState is an inventory before variables of groups are given to hosts.
type ansibleState struct {
	hosts   map[string]*ansibleObject
	order   []string // of hosts
	groups  map[string]*ansibleObject
	listed  map[string]bool // hosts that are in an inventory, not only in host_vars
	steps   int             // parts of YAML that were visited
	ignored map[string]bool // variables that are not carried over
}

// ansibleObject is a host or a group.
type ansibleObject struct {
	at       describe.Place
	hosts    []string
	children []string
	files    map[string]ansibleValue // variables of host_vars and group_vars, which come before those of inventories
	inline   map[string]ansibleValue
}

// ansibleValue is the value of a variable.
type ansibleValue struct {
	body *yaml.Node
	at   describe.Place
}

// maxHosts is the number of hosts up to which an inventory is read, and maxSteps the number of parts of YAML. The parts
// that an alias stands for are counted each time.
const (
	maxHosts    = 100_000
	maxSteps    = 1_000_000
	maxHostName = 255 // bytes, with its ranges: each of the hosts has so many
)

var errTooManyHosts = fmt.Errorf("more than %d hosts", maxHosts)

func newAnsibleState() *ansibleState {
	return &ansibleState{
		hosts: map[string]*ansibleObject{}, groups: map[string]*ansibleObject{}, listed: map[string]bool{},
		ignored: map[string]bool{},
	}
}

func (r *reader) ansibleObject(list map[string]*ansibleObject, name string, line int) *ansibleObject {
	if list[name] == nil {
		list[name] = &ansibleObject{
			at: r.at(line), files: map[string]ansibleValue{}, inline: map[string]ansibleValue{},
		}
	}
	return list[name]
}

// ansibleHost returns a host, which is added if it is new.
func (r *reader) ansibleHost(name string, line int) *ansibleObject {
	if !r.ansibles.listed[name] {
		r.ansibles.listed[name] = true
		r.ansibles.order = append(r.ansibles.order, name)
	}
	return r.ansibleObject(r.ansibles.hosts, name, line)
}

var yamlKey = regexp.MustCompile(`^("[^"]+"|'[^']+'|[A-Za-z0-9_.-]+):(\s|$)`)

// ansible reads an inventory in INI or YAML, variables of host_vars and group_vars, or hosts.
func (r *reader) ansible(f File) error {
	text := strings.TrimPrefix(string(f.Data), "\ufeff")
	if kind, name := varsOf(f.Name); kind != "" {
		return r.ansibleVars(kind, name, f)
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line == "---" || line[0] == '{' || yamlKey.MatchString(line):
			return r.ansibleYAML(f)
		case isHostLine(line):
			return r.hostsOrEthers(f)
		default:
			return r.ansibleINI(text)
		}
	}
	return nil
}

// varsOf returns "host" or "group" and a name for a file of host_vars or group_vars: host_vars/NAME.yml, or any file in
// host_vars/NAME/.
func varsOf(file string) (kind, name string) {
	dir, base := path.Split(path.Clean(strings.ReplaceAll(file, `\`, "/")))
	name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(base, ".yml"), ".yaml"), ".json")
	for range 2 {
		dir = path.Clean(dir)
		switch path.Base(dir) {
		case "host_vars":
			return "host", name
		case "group_vars":
			return "group", name
		}
		name, dir = path.Base(dir), path.Dir(dir)
	}
	return "", ""
}

// ansibleVars reads the variables of a host or a group.
func (r *reader) ansibleVars(kind, name string, f File) error {
	root, err := r.ansibleRoot(f)
	if root == nil {
		return err
	}
	list := r.ansibles.groups
	if kind == "host" {
		list = r.ansibles.hosts // variables alone make no host
	}
	object := r.ansibleObject(list, name, root.Line)
	return r.ansibleSet(object.files, root, 0)
}

// ansibleRoot parses YAML, and returns its mapping, nil if there is nothing in it.
func (r *reader) ansibleRoot(f File) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(f.Data, &doc); err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name, err)
	}
	if len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].Value == "" {
		return nil, nil
	}
	switch doc.Content[0].Kind {
	case yaml.MappingNode:
		return doc.Content[0], nil
	case yaml.SequenceNode:
		r.leave(r.at(doc.Content[0].Line), "it is not an inventory but a list, such as a playbook", "the file")
		return nil, nil
	default:
		return nil, fmt.Errorf("read %s:%d: it is not a list of keys and values", f.Name, doc.Content[0].Line)
	}
}

// aliased returns what an alias stands for.
func aliased(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// ansibleSet sets the variables of a mapping. Those of "<<" come after the mapping's own.
func (r *reader) ansibleSet(to map[string]ansibleValue, n *yaml.Node, depth int) error {
	if r.ansibles.steps++; r.ansibles.steps > maxSteps || depth > 16 {
		return fmt.Errorf("read %s:%d: there is too much in it", r.file, n.Line)
	}
	var merged *yaml.Node
	each(aliased(n), func(key, v *yaml.Node) {
		r.ansibles.steps++
		if key.Value == "<<" {
			merged = v
			return
		}
		to[key.Value] = ansibleValue{aliased(v), r.at(key.Line)}
	})
	if merged == nil {
		return nil
	}
	more := map[string]ansibleValue{}
	if err := r.ansibleSet(more, merged, depth+1); err != nil {
		return err
	}
	for key, v := range more {
		if _, ok := to[key]; !ok {
			to[key] = v
		}
	}
	return nil
}

// ansibleYAML reads an inventory in YAML.
func (r *reader) ansibleYAML(f File) error {
	root, err := r.ansibleRoot(f)
	if root == nil {
		return err
	}
	each(root, func(key, v *yaml.Node) { err = cmp.Or(err, r.ansibleGroup(key.Value, key.Line, v, 0)) })
	return err
}

// ansibleGroup reads a group: its hosts, its children and its vars.
func (r *reader) ansibleGroup(name string, line int, n *yaml.Node, depth int) (err error) {
	if r.ansibles.steps++; r.ansibles.steps > maxSteps || depth > 32 {
		return fmt.Errorf("read %s:%d: there is too much in it", r.file, line)
	}
	g := r.ansibleObject(r.ansibles.groups, name, line)
	body := aliased(n)
	each(aliased(value(body, "hosts")), func(key, v *yaml.Node) {
		names, hostErr := expandHosts(key.Value)
		if hostErr != nil {
			err = cmp.Or(err, fmt.Errorf("read %s:%d: %w", r.file, key.Line, hostErr))
			return
		}
		for _, host := range names {
			if len(r.ansibles.order) >= maxHosts {
				err = cmp.Or(err, fmt.Errorf("read %s:%d: %w", r.file, key.Line, errTooManyHosts))
				return
			}
			g.hosts = append(g.hosts, host)
			err = cmp.Or(err, r.ansibleSet(r.ansibleHost(host, key.Line).inline, v, 0))
		}
	})
	each(aliased(value(body, "children")), func(key, v *yaml.Node) {
		g.children = append(g.children, key.Value)
		err = cmp.Or(err, r.ansibleGroup(key.Value, key.Line, v, depth+1))
	})
	if vars := value(body, "vars"); vars != nil {
		err = cmp.Or(err, r.ansibleSet(g.inline, vars, 0))
	}
	return err
}

// ansibleINI reads an inventory in INI.
func (r *reader) ansibleINI(text string) error {
	section, kind, n := "ungrouped", "", 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if name, isSection := strings.CutPrefix(line, "["); isSection && strings.Contains(name, "]") {
			name, _, _ = strings.Cut(name, "]")
			section, kind, _ = strings.Cut(strings.TrimSpace(name), ":")
			r.ansibleObject(r.ansibles.groups, section, n)
			continue
		}
		if err := r.ansibleLine(section, kind, line, n); err != nil {
			return fmt.Errorf("read %s:%d: %w", r.file, n, err)
		}
	}
	return nil
}

// ansibleLine reads a line of a section: [NAME], [NAME:children] or [NAME:vars].
func (r *reader) ansibleLine(section, kind, line string, n int) error {
	g := r.ansibleObject(r.ansibles.groups, section, n)
	if kind == "vars" {
		key, v, found := strings.Cut(line, "=")
		if !found {
			return fmt.Errorf("%.40q is not a line name=value", line)
		}
		r.ansibleInline(g, strings.TrimSpace(key), strings.Trim(strings.TrimSpace(v), `"'`), n)
		return nil
	}
	words, err := splitWords(line)
	if err != nil || len(words) == 0 {
		return err
	}
	switch kind {
	case "children":
		g.children = append(g.children, words[0])
		return nil
	case "":
	default:
		return fmt.Errorf("%q is not a kind of section: it may be vars or children", kind)
	}
	names, err := expandHosts(words[0])
	if err != nil {
		return err
	}
	for _, name := range names {
		if len(r.ansibles.order) >= maxHosts {
			return errTooManyHosts
		}
		g.hosts = append(g.hosts, name)
		host := r.ansibleHost(name, n)
		for _, word := range words[1:] {
			key, v, found := strings.Cut(word, "=")
			if !found {
				return fmt.Errorf("%.40q is not name=value", word)
			}
			r.ansibleInline(host, key, v, n)
		}
	}
	return nil
}

func (r *reader) ansibleInline(o *ansibleObject, key, v string, line int) {
	o.inline[key] = ansibleValue{&yaml.Node{Kind: yaml.ScalarNode, Value: v, Line: line}, r.at(line)}
}

// splitWords splits a line at spaces that are not in quotes. A word that begins with # ends the line.
func splitWords(line string) (words []string, err error) {
	for {
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' {
			return words, nil
		}
		var b strings.Builder
		for line != "" && line[0] != ' ' && line[0] != '\t' {
			c := line[0]
			line = line[1:]
			if c != '"' && c != '\'' {
				b.WriteByte(c)
				continue
			}
			quoted, rest, closed := strings.Cut(line, string(c))
			if !closed {
				return nil, errors.New("a quote is not closed")
			}
			b.WriteString(quoted)
			line = rest
		}
		words = append(words, b.String())
	}
}

var hostRange = regexp.MustCompile(`\[([0-9]{1,9}|[A-Za-z]):([0-9]{1,9}|[A-Za-z])(?::([0-9]{1,6}))?\]`)

// expandHosts expands the ranges in a name, such as n[01:64] or rack[a:f]n[1:9:2]. A port after the name is cut off.
func expandHosts(pattern string) (names []string, err error) {
	if len(pattern) > maxHostName {
		return nil, fmt.Errorf("%.40q… is longer than %d bytes", pattern, maxHostName)
	}
	names = []string{""}
	if i := strings.LastIndexByte(pattern, ':'); i > strings.LastIndexByte(pattern, ']') {
		if _, err := netip.ParseAddr(pattern); err != nil {
			pattern = pattern[:i]
		}
	}
	for {
		at := hostRange.FindStringSubmatchIndex(pattern)
		if at == nil {
			break
		}
		list := rangeOf(pattern[at[2]:at[3]], pattern[at[4]:at[5]], submatch(pattern, at[6], at[7]))
		if len(list) == 0 || len(list)*len(names) > maxHosts {
			return nil, fmt.Errorf("the range %s is empty or too large", pattern[at[0]:at[1]])
		}
		grown := make([]string, 0, len(list)*len(names))
		for _, name := range names {
			for _, element := range list {
				grown = append(grown, name+pattern[:at[0]]+element)
			}
		}
		names, pattern = grown, pattern[at[1]:]
	}
	if strings.ContainsAny(pattern, "[]") {
		return nil, fmt.Errorf("%.40q has a range that is not such as [01:64]", pattern)
	}
	for i := range names {
		names[i] += pattern
	}
	return names, nil
}

func submatch(text string, start, end int) string {
	if start < 0 {
		return ""
	}
	return text[start:end]
}

// rangeOf returns the numbers or letters of a range. Leading zeros of the first number are those of all.
func rangeOf(from, to, step string) (list []string) {
	by := max(wholeNumber(step), 1)
	if from[0] > '9' || to[0] > '9' {
		for c := int(from[0]); c <= int(to[0]) && from[0] > '9'; c += by {
			list = append(list, string(rune(c)))
		}
		return list
	}
	width := 0
	if from[0] == '0' {
		width = len(from)
	}
	first, last := wholeNumber(from), wholeNumber(to)
	if (last-first)/by >= maxHosts {
		return nil
	}
	for n := first; n <= last; n += by {
		list = append(list, fmt.Sprintf("%0*d", width, n))
	}
	return list
}

// ansibleParents returns the groups of each host, those that are nearest first; of groups as near, the last by name. It
// takes at most maxKeys of them.
func (r *reader) ansibleParents() map[string][]string {
	parents := map[string][]string{}
	names := slices.Sorted(maps.Keys(r.ansibles.groups))
	for _, name := range names {
		for _, child := range r.ansibles.groups[name].children {
			if len(parents[child]) < maxKeys {
				parents[child] = append(parents[child], name)
			}
		}
	}
	of := map[string][]string{}
	for _, name := range names {
		hosts := r.ansibles.groups[name].hosts
		if len(hosts) == 0 {
			continue
		}
		above := ancestors(name, parents)
		for _, host := range hosts {
			for _, g := range above {
				if len(of[host]) < maxKeys && !slices.Contains(of[host], g) {
					of[host] = append(of[host], g)
				}
			}
		}
	}
	depths := map[string]int{"all": 0}
	for _, list := range of {
		slices.SortFunc(list, func(a, b string) int {
			return cmp.Or(cmp.Compare(depthOf(b, parents, depths), depthOf(a, parents, depths)), cmp.Compare(b, a))
		})
	}
	return of
}

// ancestors returns a group and the groups that it is in, at most maxKeys.
func ancestors(name string, parents map[string][]string) (above []string) {
	seen := map[string]bool{}
	for list := []string{name}; len(list) > 0 && len(above) < maxKeys; list = list[1:] {
		if !seen[list[0]] {
			seen[list[0]] = true
			above = append(above, list[0])
			list = append(list, parents[list[0]]...)
		}
	}
	return above
}

// depthOf returns how far a group is from the group all, by the longest way. depths has those that are known; a group
// in itself is one of them while its depth is being found.
func depthOf(name string, parents map[string][]string, depths map[string]int) int {
	if d, ok := depths[name]; ok {
		return d
	}
	depths[name] = 1
	for _, p := range parents[name] {
		if len(depths) < maxHosts {
			depths[name] = max(depths[name], depthOf(p, parents, depths)+1)
		}
	}
	return depths[name]
}
