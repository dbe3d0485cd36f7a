package nodeset

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Fold returns a short node set for names, such as "head,n[01-04,07],s[1-2]c[1-6]". Expand returns the names again.
// Names that Expand cannot parse are written as they are.
func Fold(names []string) string { return fold(names, (*family).merge) }

// FoldLast is Fold, but folds numbers at the end of names only: "s1c[1-6],s2c[1-6],n1-ib,n2-ib". Other programs read
// that, such as Slurm's scontrol (22.05), which reads no set in which something follows a bracket and no further
// bracket ends the name.
func FoldLast(names []string) string {
	return fold(names, func(f *family) {
		if last := len(f.literals) - 1; last > 0 && f.literals[last] == "" {
			f.boxes = mergeAlong(f.boxes, last-1)
		}
	})
}

// fold folds names of each family after merge has joined its boxes.
func fold(names []string, merge func(*family)) string {
	families := map[string]*family{}
	var order []*family
	for _, name := range names {
		literals, numbers := split(name)
		shape := strings.Join(literals, "\x00") + "/" + strconv.Itoa(len(numbers))
		f := families[shape]
		if f == nil {
			f = &family{literals: literals, seen: set{}}
			families[shape] = f
			order = append(order, f)
		}
		f.add(name, numbers)
	}
	slices.SortFunc(order, func(a, b *family) int { return slices.Compare(a.literals, b.literals) })
	var parts []string
	for _, f := range order {
		merge(f)
		parts = append(parts, f.fold()...)
	}
	return strings.Join(parts, ",")
}

// family is a set of names that differ only in their numbers. literals has one element more than the names have
// numbers.
type family struct {
	literals []string
	boxes    []box
	seen     set
}

// box is the product of lists of numbers, one list for each dimension.
type box [][]string

func (f *family) add(name string, numbers []string) {
	if _, ok := f.seen[name]; ok {
		return
	}
	f.seen[name] = struct{}{}
	b := make(box, len(numbers))
	for i, n := range numbers {
		b[i] = []string{n}
	}
	f.boxes = append(f.boxes, b)
}

// split splits a name into its numbers and the literals before, between and after them. A run of digits that is too
// long for a number is part of a literal.
func split(name string) (literals, numbers []string) {
	start := 0
	for i := 0; i < len(name); {
		d := digits(name[i:])
		if d > 0 && d <= maxDigits {
			literals = append(literals, name[start:i])
			numbers = append(numbers, name[i:i+d])
			start = i + d
		}
		i += max(d, 1)
	}
	return append(literals, name[start:]), numbers
}

func (f *family) fold() []string {
	texts := make([]string, 0, len(f.boxes))
	slices.SortFunc(f.boxes, func(a, b box) int {
		return slices.CompareFunc(a, b, func(x, y []string) int { return compareNumbers(x[0], y[0]) })
	})
	for _, b := range f.boxes {
		var text strings.Builder
		for d, numbers := range b {
			text.WriteString(f.literals[d])
			text.WriteString(foldNumbers(numbers))
		}
		text.WriteString(f.literals[len(b)])
		texts = append(texts, text.String())
	}
	return texts
}

// merge joins boxes that differ in one dimension only, the last dimension first, until nothing changes. Boxes never
// overlap, so that joining is appending. The result is short, but not always the shortest.
func (f *family) merge() {
	for before := -1; before != len(f.boxes); {
		before = len(f.boxes)
		for d := len(f.literals) - 2; d >= 0; d-- {
			f.boxes = mergeAlong(f.boxes, d)
		}
	}
}

func mergeAlong(boxes []box, d int) []box {
	at := map[string]int{}
	var merged []box
	for _, b := range boxes {
		key := b.without(d)
		i, ok := at[key]
		if !ok {
			at[key] = len(merged)
			merged = append(merged, b)
			continue
		}
		merged[i][d] = append(merged[i][d], b[d]...)
	}
	for _, b := range merged {
		slices.SortFunc(b[d], compareNumbers)
	}
	return merged
}

// without returns a key of all dimensions but d.
func (b box) without(d int) string {
	var key strings.Builder
	for i, numbers := range b {
		if i != d {
			key.WriteString(strings.Join(numbers, ","))
		}
		key.WriteByte(';')
	}
	return key.String()
}

func compareNumbers(a, b string) int {
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

// foldNumbers formats sorted numbers as "7" or "[01-04,07]".
func foldNumbers(numbers []string) string {
	if len(numbers) == 1 {
		return numbers[0]
	}
	var b strings.Builder
	for i := 0; i < len(numbers); {
		last := i
		for last+1 < len(numbers) && follows(numbers[i], numbers[last], numbers[last+1]) {
			last++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(numbers[i])
		if last > i {
			b.WriteString("-" + numbers[last])
		}
		i = last + 1
	}
	return "[" + b.String() + "]"
}

// follows reports whether next comes directly after last in a range that begins with first. The ends of a padded range
// have the same width.
func follows(first, last, next string) bool {
	if padded(first) && len(first) != len(next) || padded(next) && len(next) != len(first) {
		return false
	}
	a, errA := strconv.Atoi(last)
	b, errB := strconv.Atoi(next)
	return errA == nil && errB == nil && b == a+1
}
