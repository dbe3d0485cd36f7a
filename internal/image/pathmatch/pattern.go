// Package pathmatch matches paths against the patterns of the exclude, keep and shared rules.
//
// It must not know what the rules are for.
package pathmatch

import (
	"fmt"
	"path"
	"strings"
)

// Pattern is an absolute path with wildcards.
//
// '*', '?' and '[a-z]' match within one path component as in path.Match. A component "**"
// matches any number of components, and at least one if it is the last. A pattern covers the paths that it matches
// and all paths below them: "/usr" covers /usr and what is in it, "/tmp/*" covers what is in /tmp but not /tmp.
type Pattern struct {
	text  string
	parts []string
}

// Parse parses an absolute pattern.
func Parse(s string) (Pattern, error) {
	if !strings.HasPrefix(s, "/") || len(s) < 2 {
		return Pattern{}, fmt.Errorf("parse pattern %q: want an absolute path such as /usr or /var/log/**", s)
	}
	parts := strings.Split(s[1:], "/")
	for _, part := range parts {
		if part == "" || part == "." || part == ".." {
			return Pattern{}, fmt.Errorf("parse pattern %q: empty, \".\" and \"..\" components match nothing", s)
		}
		if _, err := path.Match(part, ""); err != nil {
			return Pattern{}, fmt.Errorf("parse pattern %q: %v in %q", s, err, part)
		}
	}
	return Pattern{text: s, parts: parts}, nil
}

// String returns the pattern as it was parsed.
func (p Pattern) String() string { return p.text }

// covers reports whether p matches name, which is slash-separated, from the root, without a leading slash, or a
// directory above it.
func (p Pattern) covers(name string) bool {
	return name != "" && coverNames(p.parts, strings.Split(name, "/"))
}

func coverNames(parts, names []string) bool {
	for i, part := range parts {
		if part == "**" {
			rest := parts[i+1:]
			if len(rest) == 0 {
				return len(names) > i
			}
			for skip := i; skip < len(names); skip++ {
				if coverNames(rest, names[skip:]) {
					return true
				}
			}
			return false
		}
		if i >= len(names) {
			return false
		}
		if ok, _ := path.Match(part, names[i]); !ok {
			return false
		}
	}
	return true
}

// List has the patterns of one rule.
type List []Pattern

// Cover reports whether a pattern covers name.
func (l List) Cover(name string) bool {
	for _, p := range l {
		if p.covers(name) {
			return true
		}
	}
	return false
}
