package cluster

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// maxProblems bounds what is listed; nobody reads more.
const maxProblems = 1000

// Problem is one thing wrong with a description.
type Problem struct {
	File    string `json:"file"`
	Line    int    `json:"line"`   // from 1
	Column  int    `json:"column"` // from 1, in bytes
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // what to do about it, if we know
}

// String returns "file:line:col: message (hint)".
func (p Problem) String() string {
	s := fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
	if p.Hint != "" {
		s += " (" + p.Hint + ")"
	}
	return s
}

// Problems is the error that Parse returns: everything wrong with the description, by place, each once.
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
		fmt.Fprintf(&b, "\nand %d more problems", ps.More)
	}
	return b.String()
}

// place is a byte of one of the description's files.
type place struct {
	file   *file
	offset int
}

// file is one of the description's files, with what is needed to turn an offset into line and column.
type file struct {
	name  string
	data  []byte
	lines []int // offset of each line's first byte; made when the first problem is found
}

// at returns the line and column of an offset.
func (f *file) at(offset int) (line, column int) {
	if f.lines == nil {
		f.lines = []int{0}
		for i, c := range f.data {
			if c == '\n' {
				f.lines = append(f.lines, i+1)
			}
		}
	}
	i, exact := slices.BinarySearch(f.lines, offset)
	if !exact {
		i--
	}
	return i + 1, offset - f.lines[i] + 1
}

// String returns "file:line:col".
func (p place) String() string {
	line, column := p.file.at(p.offset)
	return fmt.Sprintf("%s:%d:%d", p.file.name, line, column)
}

// plus returns the place n bytes further on.
func (p place) plus(n int) place { return place{p.file, p.offset + n} }

// report collects problems. Problems of one kind at one place are one problem with a count: a bad expression in <nodes> is one mistake,
// however many nodes it spoils.
type report struct {
	found []*finding
	same  map[findingKey]*finding
	more  int
}

type findingKey struct {
	place place
	kind  string
}

type finding struct {
	place           place
	message, advice string
	repeated        int
}

// add notes a problem. The format is also its kind. The result takes a hint; it is nil when nobody would see that.
func (r *report) add(at place, format string, args ...any) *finding {
	key := findingKey{at, format}
	if f, ok := r.same[key]; ok {
		f.repeated++
		return nil
	}
	if len(r.found) >= maxProblems {
		r.more++
		return nil
	}
	f := &finding{place: at, message: fmt.Sprintf(format, args...)}
	if r.same == nil {
		r.same = map[findingKey]*finding{}
	}
	r.same[key] = f
	r.found = append(r.found, f)
	return f
}

// hint says what to do about the problem.
func (f *finding) hint(format string, args ...any) {
	if f != nil {
		f.advice = fmt.Sprintf(format, args...)
	}
}

// nearest hints at the name that comes closest to one that does not exist.
func (f *finding) nearest(name string, among iter.Seq[string]) {
	if f != nil {
		f.advice = didYouMean(name, among)
	}
}

// err returns what was found as *Problems, or nil.
func (r *report) err() error {
	if len(r.found) == 0 {
		return nil
	}
	ps := &Problems{More: r.more}
	for _, f := range r.found {
		line, column := f.place.file.at(f.place.offset)
		p := Problem{File: f.place.file.name, Line: line, Column: column, Message: f.message, Hint: f.advice}
		if f.repeated > 0 {
			p.Message += fmt.Sprintf(" (and %d more like it)", f.repeated)
		}
		ps.List = append(ps.List, p)
	}
	slices.SortStableFunc(ps.List, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Message, b.Message))
	})
	ps.List = slices.Compact(ps.List)
	return ps
}
