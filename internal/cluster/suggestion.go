package cluster

import (
	"fmt"
	"iter"
)

// suggestion returns a hint that names the candidate closest to a name that does not exist, or "" if none is close.
func suggestion(name string, candidates iter.Seq[string]) string {
	best, bestDistance := "", 1+len(name)/3
	for candidate := range candidates {
		if d := distance(name, candidate, bestDistance); d <= bestDistance && (d < bestDistance || best == "") {
			best, bestDistance = candidate, d
		}
	}
	if best == "" || len(name) > 64 {
		return ""
	}
	return fmt.Sprintf("did you mean %q?", best)
}

// distance returns the number of insertions, deletions, substitutions and swaps of neighbours that turn a into b
// (optimal string alignment), ignoring case. It returns more than limit if the lengths alone differ by more than limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit || len(a) > 64 {
		return limit + 1
	}
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		previous2, previous, row := rows[(i-1)%3], rows[i%3], rows[(i+1)%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if lower(a[i-1]) == lower(b[j-1]) {
				cost = 0
			}
			row[j] = min(previous[j]+1, row[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], previous2[j-2]+1)
			}
		}
	}
	return rows[(len(a)+1)%3][len(b)]
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
