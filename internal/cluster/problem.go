package cluster

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"

	"dim/internal/quantity"
)

// maxProblems bounds the list; nobody reads more.
const maxProblems = 1000

// Problem is one thing wrong with a description.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // from 1
	Column  int    `json:"column"` // from 1, in bytes
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // what to do about it, if known

	Severity Severity `json:"severity"`
}

// Severity is how bad a problem is.
type Severity string

// A description with errors is refused. One with warnings is valid, but probably not what is meant.
const (
	severityError Severity = "error"
	Warning       Severity = "warning"
)

// String returns "file:line:col: message (hint)", with "warning: " before the message of a warning.
func (p Problem) String() string {
	message := p.Message
	if p.Severity == Warning {
		message = "warning: " + message
	}
	s := fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, message)
	if p.Hint != "" {
		s += " (" + p.Hint + ")"
	}
	return s
}

// Problems is the error that Parse returns: everything wrong with the description, each problem once, sorted by
// position.
type Problems struct {
	List []Problem
	More int // problems beyond those listed
}

// Error returns one line for each problem.
func (ps *Problems) Error() string {
	var b strings.Builder
	for i, p := range ps.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
	}
	if ps.More > 0 {
		b.WriteString("\nand " + quantity.Plural(ps.More, "more problem"))
	}
	return b.String()
}

// location is the position of a byte in one of the description's files.
type location struct {
	file   *file
	offset int
}

// file is one of the description's files, with what is needed to turn an offset into line and column.
type file struct {
	name  string
	data  []byte
	lines []int // offset of each line's first byte; made when it is first needed
}

// lineStarts returns the offset of each line's first byte.
func (f *file) lineStarts() []int {
	if f.lines == nil {
		f.lines = []int{0}
		for i, c := range f.data {
			if c == '\n' {
				f.lines = append(f.lines, i+1)
			}
		}
	}
	return f.lines
}

// lineAndColumn returns the line and column of an offset, both from 1.
func (f *file) lineAndColumn(offset int) (line, column int) {
	starts := f.lineStarts()
	i, exact := slices.BinarySearch(starts, offset)
	if !exact {
		i--
	}
	return i + 1, offset - starts[i] + 1
}

// locate returns the location of a line and column, both from 1. A line that does not exist gives the start of the
// file.
func (f *file) locate(line, column int) location {
	starts := f.lineStarts()
	if line < 1 || line > len(starts) {
		return location{f, 0}
	}
	return location{f, min(starts[line-1]+max(column-1, 0), len(f.data))}
}

// String returns "file:line:col".
func (p location) String() string {
	line, column := p.file.lineAndColumn(p.offset)
	return fmt.Sprintf("%s:%d:%d", p.file.name, line, column)
}

// plus returns the location n bytes further on.
func (p location) plus(n int) location { return location{p.file, p.offset + n} }

// report collects problems. Problems of one kind at one location become one problem with a count: a bad expression in
// <nodes> is one mistake, however many nodes it affects.
type report struct {
	found []*finding
	same  map[findingKey]*finding
	more  int
}

type findingKey struct {
	at   location
	kind string
}

type finding struct {
	at       location
	message  string
	hint     string
	repeated int // how often it was found again
}

// add records a problem. The format is also its kind. The caller may add a hint to the result, which is nil if the
// problem is a repetition or will not be listed.
func (r *report) add(at location, format string, args ...any) *finding {
	key := findingKey{at, format}
	if f, ok := r.same[key]; ok {
		f.repeated++
		return nil
	}
	if len(r.found) >= maxProblems {
		r.more++
		return nil
	}
	f := &finding{at: at, message: fmt.Sprintf(format, args...)}
	if r.same == nil {
		r.same = map[findingKey]*finding{}
	}
	r.same[key] = f
	r.found = append(r.found, f)
	return f
}

// withHint adds a hint: what to do about the problem.
func (f *finding) withHint(format string, args ...any) {
	if f != nil {
		f.hint = fmt.Sprintf(format, args...)
	}
}

// suggest adds a hint that names the candidate closest to a name that does not exist.
func (f *finding) suggest(name string, candidates iter.Seq[string]) {
	if f != nil {
		f.hint = suggestion(name, candidates)
	}
}

// advise adds the hint that a function returns; if it is empty, suggest does it, unless candidates is nil. The function
// is not called for a problem that is not listed.
func (f *finding) advise(hint func() string, name string, candidates iter.Seq[string]) {
	if f == nil {
		return
	}
	if f.hint = hint(); f.hint == "" && candidates != nil {
		f.suggest(name, candidates)
	}
}

// err returns the problems as *Problems, or nil if there are none.
func (r *report) err() error {
	if len(r.found) == 0 {
		return nil
	}
	return &Problems{More: r.more, List: r.list(severityError)}
}

// list returns the problems, each once, sorted by position.
func (r *report) list(severity Severity) []Problem {
	list := make([]Problem, 0, len(r.found))
	for _, f := range r.found {
		line, column := f.at.file.lineAndColumn(f.at.offset)
		p := Problem{
			File: f.at.file.name, Line: line, Column: column, Message: f.message, Hint: f.hint, Severity: severity,
		}
		if f.repeated > 0 {
			p.Message += fmt.Sprintf(" (and %s more of the same kind)", quantity.Count(f.repeated))
		}
		list = append(list, p)
	}
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(list)
}
