package image

import (
	"path"
	"strings"
)

// Matcher asks Patterns about one path component at a time, so that a walk pays in each directory only for the
// patterns that can still match there. Its zero value matches nothing. It is immutable.
type Matcher struct{ live []progress }

// progress is a pattern of which the parts before next have matched.
type progress struct {
	parts []string
	next  int
}

// Matcher returns a Matcher that stands at the root.
func (ps Patterns) Matcher() Matcher {
	var m Matcher
	for _, p := range ps {
		m.live = appendProgress(m.live, progress{parts: p.parts})
	}
	return m
}

// appendProgress adds p and, as "**" may match no component, what stands behind it.
func appendProgress(list []progress, p progress) []progress {
	list = append(list, p)
	if p.parts[p.next] == "**" && p.next+1 < len(p.parts) {
		list = appendProgress(list, progress{p.parts, p.next + 1})
	}
	return list
}

// Idle reports that nothing at or below the place of m can be covered.
func (m Matcher) Idle() bool { return len(m.live) == 0 }

// Everything reports that whatever is in the directory at the place of m is covered.
func (m Matcher) Everything() bool {
	for _, p := range m.live {
		if part := p.parts[p.next]; p.next+1 == len(p.parts) && (part == "*" || part == "**") {
			return true
		}
	}
	return false
}

// Covers reports whether the patterns cover name in the directory at the place of m.
func (m Matcher) Covers(name string) bool {
	for _, p := range m.live {
		if p.next+1 == len(p.parts) && matches(p.parts[p.next], name) {
			return true
		}
	}
	return false
}

// Enter returns the Matcher that stands in the directory called name. What Covers that name is not told by it.
func (m Matcher) Enter(name string) Matcher {
	var to Matcher
	for _, p := range m.live {
		switch part := p.parts[p.next]; {
		case part == "**" && p.next+1 < len(p.parts):
			to.live = appendProgress(to.live, p)
		case p.next+1 < len(p.parts) && matches(part, name):
			to.live = appendProgress(to.live, progress{p.parts, p.next + 1})
		}
	}
	return to.unique()
}

func (m Matcher) unique() Matcher {
	kept := m.live[:0]
next:
	for _, p := range m.live {
		for _, q := range kept {
			if &p.parts[0] == &q.parts[0] && p.next == q.next {
				continue next
			}
		}
		kept = append(kept, p)
	}
	return Matcher{live: kept}
}

func matches(part, name string) bool {
	if part == "**" {
		return true
	}
	if !strings.ContainsAny(part, `*?[\`) {
		return part == name
	}
	ok, _ := path.Match(part, name)
	return ok
}
