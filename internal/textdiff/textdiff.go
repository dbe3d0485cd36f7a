// Package textdiff compares two small texts by lines. Its output has the unified format of diff -u, git and patch.
//
// It uses the greedy algorithm of E. Myers, "An O(ND) Difference Algorithm and Its Variations" (1986). The cost grows
// with the number of differences, so texts that differ in too many lines are treated as entirely different. The package
// does no I/O.
package textdiff

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	contextLines = 3    // equal lines that are shown before and after a difference
	maxEdits     = 1000 // lines that may differ
)

// Text reports whether b is text, which can be compared by lines.
func Text(b []byte) bool { return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 }

// Unified returns the differences from a to b, "" if there are none. from and to are the names of the texts.
func Unified(from, to string, a, b []byte) string {
	if bytes.Equal(a, b) {
		return ""
	}
	x, y := lines(a), lines(b)
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s\n", from, to)
	for edits := compare(x, y); len(edits) > 0; {
		n := hunkLength(edits)
		writeHunk(&out, edits[:n], x, y)
		edits = edits[n:]
	}
	return out.String()
}

// lines splits a text into lines. Each line ends in a newline, except perhaps the last one.
func lines(b []byte) []string {
	list := strings.SplitAfter(string(b), "\n")
	if list[len(list)-1] == "" {
		list = list[:len(list)-1]
	}
	return list
}

// edit is one line that differs. Either line a of the old text is deleted, or line b of the new one is inserted; the
// other number is the position in the other text.
type edit struct {
	deleted bool
	a, b    int
}

// compare returns the lines that differ, in order. It skips the common beginning and end.
func compare(x, y []string) []edit {
	first := 0
	for first < len(x) && first < len(y) && x[first] == y[first] {
		first++
	}
	last := 0
	for last < len(x)-first && last < len(y)-first && x[len(x)-1-last] == y[len(y)-1-last] {
		last++
	}
	edits := myers(x[first:len(x)-last], y[first:len(y)-last])
	for i := range edits {
		edits[i].a += first
		edits[i].b += first
	}
	return edits
}

// myers finds for d = 0, 1, 2, … the furthest point that d edits reach on each diagonal k = i-j, until d edits reach
// the end.
func myers(x, y []string) []edit {
	limit := min(len(x)+len(y), maxEdits)
	v := make([]int, 2*limit+3)
	mid := limit + 1
	var trace [][]int
	for d := 0; d <= limit; d++ {
		trace = append(trace, append([]int(nil), v[mid-d:mid+d+1]...))
		for k := -d; k <= d; k += 2 {
			i := v[mid+k-1] + 1
			if k == -d || k != d && v[mid+k-1] < v[mid+k+1] {
				i = v[mid+k+1]
			}
			for i < len(x) && i-k < len(y) && x[i] == y[i-k] {
				i++
			}
			v[mid+k] = i
			if i >= len(x) && i-k >= len(y) {
				return backtrack(trace, len(x), len(y))
			}
		}
	}
	return replaceAll(x, y)
}

// backtrack follows the trace from the end and returns the edits. trace[d] is v before step d, from diagonal -d on.
func backtrack(trace [][]int, i, j int) []edit {
	var edits []edit
	for d := len(trace) - 1; d > 0; d-- {
		at := func(k int) int {
			if k < -d || k > d {
				return -1
			}
			return trace[d][k+d]
		}
		k := i - j
		from := k - 1
		if k == -d || k != d && at(k-1) < at(k+1) {
			from = k + 1
		}
		pi := at(from)
		pj := pi - from
		edits = append(edits, edit{deleted: from < k, a: pi, b: pj})
		i, j = pi, pj
	}
	slices.Reverse(edits)
	return edits
}

// replaceAll deletes all of x and inserts all of y.
func replaceAll(x, y []string) []edit {
	var edits []edit
	for i := range x {
		edits = append(edits, edit{deleted: true, a: i})
	}
	for j := range y {
		edits = append(edits, edit{a: len(x), b: j})
	}
	return edits
}

// hunkLength returns the number of edits in the next hunk: those with few equal lines between them.
func hunkLength(edits []edit) int {
	n := 1
	for n < len(edits) && edits[n].a-edits[n-1].a <= 2*contextLines+1 {
		n++
	}
	return n
}

// writeHunk writes one hunk.
func writeHunk(out *strings.Builder, edits []edit, x, y []string) {
	begin := min(contextLines, edits[0].a)
	a, b := edits[0].a-begin, edits[0].b-begin
	end := edits[len(edits)-1]
	after, afterB := end.a, end.b
	if end.deleted {
		after++
	} else {
		afterB++
	}
	tail := min(contextLines, len(x)-after)
	fmt.Fprintf(out, "@@ -%s +%s @@\n", span(a, after+tail-a), span(b, afterB+tail-b))
	for _, e := range edits {
		for ; a < e.a; a++ {
			writeLine(out, ' ', x[a])
		}
		if e.deleted {
			writeLine(out, '-', x[e.a])
			a++
		} else {
			writeLine(out, '+', y[e.b])
		}
	}
	for ; a < after+tail; a++ {
		writeLine(out, ' ', x[a])
	}
}

// span formats a range of n lines, which count from 1. An empty range has the number of the line before it.
func span(at, n int) string {
	switch n {
	case 0:
		return fmt.Sprintf("%d,0", at)
	case 1:
		return fmt.Sprint(at + 1)
	}
	return fmt.Sprintf("%d,%d", at+1, n)
}

// writeLine writes one line with its mark.
func writeLine(out *strings.Builder, mark byte, text string) {
	out.WriteByte(mark)
	out.WriteString(text)
	if !strings.HasSuffix(text, "\n") {
		out.WriteString("\n\\ No newline at end of file\n")
	}
}
