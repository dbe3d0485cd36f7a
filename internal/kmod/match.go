package kmod

import (
	"iter"
	"strings"
)

// match reports whether text matches an alias pattern with `*`, `?` and `[a-z]`, as fnmatch(3) without flags: wildcards
// match slashes. A pattern with an unclosed bracket matches nothing.
func match(pattern, text string) bool {
	p, t := 0, 0
	star, mark := -1, 0 // where to resume if the rest does not match
	for t < len(text) {
		if p < len(pattern) && pattern[p] == '*' {
			star, mark = p, t
			p++
			continue
		}
		if n := matchOne(pattern[p:], text[t]); n > 0 {
			p, t = p+n, t+1
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		p, t = star+1, mark
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchOne returns the number of bytes of the pattern that match the byte c, 0 if none do.
func matchOne(pattern string, c byte) int {
	switch {
	case pattern == "":
		return 0
	case pattern[0] == '?':
		return 1
	case pattern[0] != '[':
		if pattern[0] == c {
			return 1
		}
		return 0
	}
	end := strings.IndexByte(pattern, ']')
	if end < 0 {
		return 0
	}
	set := pattern[1:end]
	not := strings.HasPrefix(set, "!") || strings.HasPrefix(set, "^")
	if not {
		set = set[1:]
	}
	if inSet(set, c) != not {
		return end + 1
	}
	return 0
}

func inSet(set string, c byte) bool {
	for i := 0; i < len(set); i++ {
		if i+2 < len(set) && set[i+1] == '-' {
			if set[i] <= c && c <= set[i+2] {
				return true
			}
			i += 2
			continue
		}
		if set[i] == c {
			return true
		}
	}
	return false
}

// aliasClass returns an alias up to its colon, "" if a wildcard comes first. Because of it a PCI device need not be
// compared with thousands of USB patterns.
func aliasClass(s string) string {
	i := strings.IndexAny(s, ":*?[")
	if i < 0 || s[i] != ':' {
		return ""
	}
	return s[:i]
}

// underscored replaces dashes by underscores, except in brackets, where a dash is a range.
func underscored(s string) string {
	if !strings.Contains(s, "-") {
		return s
	}
	b, in := []byte(s), false
	for i, c := range b {
		switch {
		case c == '[':
			in = true
		case c == ']':
			in = false
		case c == '-' && !in:
			b[i] = '_'
		}
	}
	return string(b)
}

// lines yields the lines of a table without comments and empty lines. It joins a line that ends in a backslash with the
// next.
func lines(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		joined := ""
		for line := range strings.Lines(text) {
			line = strings.TrimRight(line, "\r\n")
			if strings.HasSuffix(line, `\`) {
				joined += strings.TrimSuffix(line, `\`) + " "
				continue
			}
			line, joined = strings.TrimSpace(joined+line), ""
			if line == "" || line[0] == '#' {
				continue
			}
			if !yield(line) {
				return
			}
		}
	}
}
