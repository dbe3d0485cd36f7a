package image

import (
	"fmt"
	"path"
	"strings"
)

// Pattern matches paths, for the exclude, keep and shared rules.
//
// A pattern is absolute. '*', '?' and '[a-z]' match within one path component as in path.Match; "**" as a whole component
// matches any number of components, at least one when it stands last. A pattern covers what it matches and
// everything below: "/usr" covers /usr itself and all in it, "/tmp/*" all in /tmp but not /tmp.
type Pattern struct {
	text  string
	parts []string
}

// ParsePattern parses an absolute pattern.
func ParsePattern(s string) (Pattern, error) {
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

// Covers reports whether p matches name (slash-separated, from the root, no leading slash) or a directory above it.
func (p Pattern) Covers(name string) bool {
	return name != "" && covers(p.parts, strings.Split(name, "/"))
}

func covers(parts, names []string) bool {
	for i, part := range parts {
		if part == "**" {
			rest := parts[i+1:]
			if len(rest) == 0 {
				return len(names) > i
			}
			for skip := i; skip < len(names); skip++ {
				if covers(rest, names[skip:]) {
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

// Patterns is a list of rules of one kind.
type Patterns []Pattern

// Cover reports whether any pattern covers name.
func (ps Patterns) Cover(name string) bool {
	for _, p := range ps {
		if p.Covers(name) {
			return true
		}
	}
	return false
}
