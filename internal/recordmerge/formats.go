package recordmerge

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// shape is what a format means.
type shape struct {
	parse   func(b []byte) ([]record, error)
	end     string // follows each record
	repeats bool   // records with one key are one record

	join     func(old, own, new []byte) (text []byte, ok bool) // merges a record that both have changed
	describe func(text []byte) string                          // tells two states of a record apart, without secrets
	ranges   func(r record) []span                             // the numbers that a record gives to its name
	unit     string                                            // what these numbers are
}

func shapeOf(f Format) (shape, bool) {
	switch f {
	case LineKey:
		return shape{parse: lines(keyOfLine), end: "\n", repeats: true}, true
	case Passwd:
		return shape{
			parse: lines(account(7, 2, 3)), end: "\n", ranges: number, unit: "uid", describe: numbered("uid"),
		}, true
	case Group:
		return shape{
			parse: lines(account(4, 2)), end: "\n", ranges: number, unit: "gid", describe: numbered("gid"),
			join: joinFields(3),
		}, true
	case Shadow:
		return shape{parse: lines(account(9)), end: "\n"}, true
	case GShadow:
		return shape{parse: lines(account(4)), end: "\n", join: joinFields(2, 3)}, true
	case SubID:
		return shape{parse: lines(account(3, 1, 2)), end: "\n", repeats: true, ranges: idRanges, unit: "range"}, true
	case Dpkg:
		return shape{parse: stanzas, end: "\n\n", repeats: true, describe: packageVersion}, true
	case StatOverride:
		return shape{parse: lines(keyOfStatOverride), end: "\n"}, true
	case Diversions:
		return shape{parse: diversions, end: "\n"}, true
	}
	return shape{}, false
}

// comment begins the keys of comments and empty lines. It cannot begin another key.
const comment = "\x00"

func isComment(key string) bool { return strings.HasPrefix(key, comment) }

// lines returns a parser of files with one record a line. key returns the key of a line. A comment or an empty line is
// known by its text.
func lines(key func(line []byte) (string, error)) func([]byte) ([]record, error) {
	return func(b []byte) ([]record, error) {
		var list []record
		for n := 0; len(b) > 0 && n <= maxRecords; n++ {
			var line []byte
			if line, b, _ = bytes.Cut(b, []byte("\n")); len(line) > maxLine {
				return nil, fmt.Errorf("line %d is too long", n+1)
			}
			if bytes.IndexByte(line, 0) >= 0 {
				return nil, fmt.Errorf("line %d contains a zero byte", n+1)
			}
			if text := bytes.TrimLeft(line, " \t"); len(text) == 0 || text[0] == '#' {
				list = append(list, record{comment + string(line), line})
				continue
			}
			k, err := key(line)
			if err != nil {
				return nil, fmt.Errorf("line %d %w", n+1, err)
			}
			list = append(list, record{k, line})
		}
		return list, nil
	}
}

// splitLines returns the lines of b without their ends. The last one need not have an end.
func splitLines(b []byte) [][]byte {
	if len(b) == 0 {
		return nil
	}
	return bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
}

func keyOfLine(line []byte) (string, error) {
	key := bytes.TrimLeft(line, " \t")
	if i := bytes.IndexAny(key, ":= \t"); i >= 0 {
		key = key[:i]
	}
	if len(key) == 0 {
		return "", errors.New("has no key")
	}
	return string(key), nil
}

// account returns what reads the names of lines with so many fields, separated by colons. The fields with the given
// positions are numbers. Lines of NIS, which begin with a plus or minus sign, may have fewer and empty ones.
func account(fields int, numbers ...int) func(line []byte) (string, error) {
	return func(line []byte) (string, error) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		if line[0] == '+' || line[0] == '-' {
			return string(name), nil
		}
		if n := bytes.Count(line, []byte(":")) + 1; n != fields {
			return "", fmt.Errorf("has %d fields, not %d", n, fields)
		}
		if len(name) == 0 {
			return "", errors.New("has no name")
		}
		for _, i := range numbers {
			if _, err := strconv.ParseUint(field(line, i), 10, 32); err != nil {
				return "", fmt.Errorf("has no number in field %d", i+1)
			}
		}
		return string(name), nil
	}
}

// field returns the field i of a line, from 0; "" if there is none.
func field(line []byte, i int) string {
	rest := line
	for ; i > 0; i-- {
		_, after, ok := bytes.Cut(rest, []byte(":"))
		if !ok {
			return ""
		}
		rest = after
	}
	f, _, _ := bytes.Cut(rest, []byte(":"))
	return string(f)
}

// number returns the UID of a line of passwd, or the GID of one of group.
func number(r record) []span {
	n, err := strconv.ParseUint(field(r.text, 2), 10, 32)
	if err != nil || isComment(r.key) || r.key[0] == '+' || r.key[0] == '-' {
		return nil
	}
	return []span{{n, n + 1, r.key}}
}

func numbered(unit string) func([]byte) string {
	return func(text []byte) string { return unit + " " + field(text, 2) }
}

// idRanges returns the ranges of the lines of subuid or subgid that have one name.
func idRanges(r record) []span {
	if isComment(r.key) {
		return nil
	}
	var list []span
	for _, line := range splitLines(r.text) {
		from, err := strconv.ParseUint(field(line, 1), 10, 32)
		count, err2 := strconv.ParseUint(field(line, 2), 10, 32)
		if err == nil && err2 == nil && count > 0 {
			list = append(list, span{from, from + count, r.key})
		}
	}
	return list
}

// joinFields returns what merges a line that both have changed, if they have changed it alike but for the fields at
// the given positions, which are lists separated by commas. These are merged as sets.
func joinFields(sets ...int) func(old, own, new []byte) ([]byte, bool) {
	return func(old, own, new []byte) ([]byte, bool) {
		was, mine, next := bytes.Split(old, []byte(":")), bytes.Split(own, []byte(":")), bytes.Split(new, []byte(":"))
		if len(mine) != len(next) || old != nil && len(was) != len(next) {
			return nil, false // a line of NIS
		}
		for i := range next {
			var before []byte
			if old != nil {
				before = was[i]
			}
			switch {
			case slices.Contains(sets, i):
				next[i] = joinSets(before, mine[i], next[i])
			case bytes.Equal(mine[i], next[i]), old != nil && bytes.Equal(mine[i], before):
			case old != nil && bytes.Equal(next[i], before):
				next[i] = mine[i]
			default:
				return nil, false
			}
		}
		return bytes.Join(next, []byte(":")), true
	}
}

// joinSets merges three lists. The result has the order of the new one, and then what the node has added.
func joinSets(old, own, new []byte) []byte {
	if bytes.Equal(own, old) || bytes.Equal(own, new) {
		return new
	}
	if bytes.Equal(new, old) {
		return own
	}
	was, mine, next := members(old), members(own), members(new)
	var list [][]byte
	for _, m := range bytes.Split(new, []byte(",")) {
		if next[string(m)] && (mine[string(m)] || !was[string(m)]) {
			list = append(list, m)
			delete(next, string(m)) // once
			was[string(m)] = true   // and not again below
		}
	}
	for _, m := range bytes.Split(own, []byte(",")) {
		if len(m) > 0 && !was[string(m)] {
			list = append(list, m)
			was[string(m)] = true
		}
	}
	return bytes.Join(list, []byte(","))
}

func members(list []byte) map[string]bool {
	set := make(map[string]bool)
	for _, m := range bytes.Split(list, []byte(",")) {
		if len(m) > 0 {
			set[string(m)] = true
		}
	}
	return set
}

// stanzas reads a file of stanzas, which are separated by empty lines. The key is the package. Architectures of one
// package are one record: dpkg demands that they have one version.
func stanzas(b []byte) ([]record, error) {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return nil, fmt.Errorf("line %d contains a zero byte", bytes.Count(b[:i], []byte("\n"))+1)
	}
	var list []record
	for n := 1; len(b) > 0 && len(list) <= maxRecords; {
		if b[0] == '\n' {
			b, n = b[1:], n+1
			continue
		}
		text, rest, _ := bytes.Cut(b, []byte("\n\n"))
		text = bytes.TrimSuffix(text, []byte("\n")) // at the end of the file
		key, err := stanzaKey(text, n)
		if err != nil {
			return nil, err
		}
		list = append(list, record{key, text})
		b, n = rest, n+bytes.Count(text, []byte("\n"))+2
	}
	return list, nil
}

// stanzaKey returns the package of a stanza, which begins at line n.
func stanzaKey(text []byte, n int) (key string, err error) {
	first := n
	if text[0] == ' ' || text[0] == '\t' {
		return "", fmt.Errorf("line %d continues nothing", n)
	}
	for ; len(text) > 0; n++ {
		var line []byte
		line, text, _ = bytes.Cut(text, []byte("\n"))
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		switch {
		case !ok:
			return "", fmt.Errorf("line %d is no field", n)
		case !bytes.EqualFold(name, []byte("Package")):
		case key != "":
			return "", fmt.Errorf("line %d names a second package", n)
		default:
			key = string(bytes.TrimSpace(value))
		}
	}
	if key == "" {
		return "", fmt.Errorf("the stanza at line %d names no package", first)
	}
	return key, nil
}

// packageVersion returns the version and the state in a stanza.
func packageVersion(text []byte) string {
	version, state := "no version", ""
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch strings.ToLower(string(name)) {
		case "version":
			version = shown(string(bytes.TrimSpace(value)))
		case "status":
			words := bytes.Fields(value)
			if n := len(words); n > 0 && string(words[n-1]) != "installed" {
				state = " (" + shown(string(words[n-1])) + ")"
			}
		}
	}
	return version + state
}

func keyOfStatOverride(line []byte) (string, error) {
	fields := bytes.SplitN(line, []byte(" "), 4)
	if len(fields) != 4 || len(fields[3]) == 0 {
		return "", errors.New("does not have an owner, a group, a mode and a path")
	}
	return string(fields[3]), nil
}

// diversions reads triples of lines: a path, the path that it is diverted to, a package or a colon.
func diversions(b []byte) ([]record, error) {
	if bytes.Count(b, []byte("\n")) > 3*maxRecords {
		return nil, errManyRecords
	}
	all := splitLines(b)
	if len(all)%3 != 0 {
		return nil, fmt.Errorf("has %d lines, not three for each diversion", len(all))
	}
	var list []record
	for i := 0; i < len(all); i += 3 {
		part := all[i : i+3]
		text := bytes.Join(part, []byte("\n"))
		if len(part[0]) == 0 || len(part[1]) == 0 || len(part[2]) == 0 || bytes.IndexByte(text, 0) >= 0 {
			return nil, fmt.Errorf("the diversion at line %d is incomplete", i+1)
		}
		list = append(list, record{string(part[0]), text})
	}
	return list, nil
}
