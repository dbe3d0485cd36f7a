package pathmatch

import (
	"path"
	"strings"
)

// Matcher matches the names in one directory against a List. A walk that enters directories with it only compares
// patterns that can match there. The zero Matcher matches nothing. A Matcher is immutable.
type Matcher struct{ live []progress }

// progress is a pattern whose parts before next match the path of the directory.
type progress struct {
	parts []string
	next  int
}

// Matcher returns a Matcher for the root directory.
func (l List) Matcher() Matcher {
	var m Matcher
	for _, p := range l {
		m.live = appendProgress(m.live, progress{parts: p.parts})
	}
	return m
}

// appendProgress appends p. If p continues with "**", which may match no component, it also appends what follows that.
func appendProgress(list []progress, p progress) []progress {
	list = append(list, p)
	if p.parts[p.next] == "**" && p.next+1 < len(p.parts) {
		list = appendProgress(list, progress{p.parts, p.next + 1})
	}
	return list
}

// Idle reports whether no name in or below the directory of m can be covered.
func (m Matcher) Idle() bool { return len(m.live) == 0 }

// Everything reports whether all names in the directory of m are covered.
func (m Matcher) Everything() bool {
	for _, p := range m.live {
		if part := p.parts[p.next]; p.next+1 == len(p.parts) && (part == "*" || part == "**") {
			return true
		}
	}
	return false
}

// Covers reports whether a pattern covers name in the directory of m.
func (m Matcher) Covers(name string) bool {
	for _, p := range m.live {
		if p.next+1 == len(p.parts) && matches(p.parts[p.next], name) {
			return true
		}
	}
	return false
}

// Enter returns the Matcher for the directory name in the directory of m. It does not account for patterns that cover
// name itself: a walk does not enter such a directory.
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

// unique removes duplicates, which "**" causes.
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
