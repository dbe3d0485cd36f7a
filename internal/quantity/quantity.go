// Package quantity writes numbers and sizes as people read them. All output and all messages use the same form:
// docs/reference/output.md. JSON has plain numbers.
//
// # What it must not know
//
// Any other package of this project.
package quantity

import (
	"fmt"
	"strconv"
)

// Count returns a number in groups of three digits: "90,000".
func Count[T ~int | ~int64 | ~uint64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	if n > 0 {
		s = strconv.FormatUint(uint64(n), 10)
	}
	first := 1
	if n < 0 {
		first = 2
	}
	for i := len(s) - 3; i >= first; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Size returns a number of bytes in powers of 1024: "1.9 GiB".
func Size(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, units := float64(n), "KMGTPE"
	i := -1
	for v >= 1023.95 && i+1 < len(units) || i < 0 {
		v /= 1024
		i++
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}

// Plural returns "1 node", "4,000 nodes".
func Plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return Count(n) + " " + what + "s"
}
