// Package textdiff tells in which lines two small texts differ, in the unified form that diff -u and git print and patch reads.
//
// It uses the greedy algorithm of E. Myers, "An O(ND) Difference Algorithm and Its Variations" (1986), whose cost grows with the number
// of differences; texts that differ in too many lines are told to differ in all. It does no I/O.
package textdiff

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	around = 3    // equal lines that are shown about a difference
	most   = 1000 // lines that may differ
)

// Text reports whether b is something to compare line by line.
func Text(b []byte) bool { return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 }

// Unified returns the differences from a to b under the given names, "" when there are none.
func Unified(from, to string, a, b []byte) string {
	if bytes.Equal(a, b) {
		return ""
	}
	x, y := lines(a), lines(b)
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s\n", from, to)
	for edits := compare(x, y); len(edits) > 0; {
		n := hunk(edits)
		write(&out, edits[:n], x, y)
		edits = edits[n:]
	}
	return out.String()
}

// lines splits a text; each line but perhaps the last ends in a newline.
func lines(b []byte) []string {
	list := strings.SplitAfter(string(b), "\n")
	if list[len(list)-1] == "" {
		list = list[:len(list)-1]
	}
	return list
}

// edit is one line that differs: line a of the old text goes, or line b of the new one comes. Both say where the other text is then.
type edit struct {
	gone bool
	a, b int
}

// compare returns the lines that differ, in order.
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

// myers finds the furthest point on each diagonal k = i-j that d differences reach, for one d after another, until one reaches the end.
func myers(x, y []string) []edit {
	limit := min(len(x)+len(y), most)
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
				return back(trace, len(x), len(y))
			}
		}
	}
	return everything(x, y)
}

// back follows the trace from the end; trace[d] is v before step d, from diagonal -d on.
func back(trace [][]int, i, j int) []edit {
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
		edits = append(edits, edit{gone: from < k, a: pi, b: pj})
		i, j = pi, pj
	}
	slices.Reverse(edits)
	return edits
}

func everything(x, y []string) []edit {
	var edits []edit
	for i := range x {
		edits = append(edits, edit{gone: true, a: i})
	}
	for j := range y {
		edits = append(edits, edit{a: len(x), b: j})
	}
	return edits
}

// hunk returns how many edits belong together: those with few equal lines between.
func hunk(edits []edit) int {
	n := 1
	for n < len(edits) && edits[n].a-edits[n-1].a <= 2*around+1 {
		n++
	}
	return n
}

func write(out *strings.Builder, edits []edit, x, y []string) {
	begin := min(around, edits[0].a)
	a, b := edits[0].a-begin, edits[0].b-begin
	end := edits[len(edits)-1]
	after, afterB := end.a, end.b
	if end.gone {
		after++
	} else {
		afterB++
	}
	tail := min(around, len(x)-after)
	fmt.Fprintf(out, "@@ -%s +%s @@\n", span(a, after+tail-a), span(b, afterB+tail-b))
	for _, e := range edits {
		for ; a < e.a; a++ {
			line(out, ' ', x[a])
		}
		if e.gone {
			line(out, '-', x[e.a])
			a++
		} else {
			line(out, '+', y[e.b])
		}
	}
	for ; a < after+tail; a++ {
		line(out, ' ', x[a])
	}
}

// span is a range of lines, which count from 1; one that is empty stands behind the line before it.
func span(at, n int) string {
	switch n {
	case 0:
		return fmt.Sprintf("%d,0", at)
	case 1:
		return fmt.Sprint(at + 1)
	}
	return fmt.Sprintf("%d,%d", at+1, n)
}

func line(out *strings.Builder, mark byte, text string) {
	out.WriteByte(mark)
	out.WriteString(text)
	if !strings.HasSuffix(text, "\n") {
		out.WriteString("\n\\ No newline at end of file\n")
	}
}
