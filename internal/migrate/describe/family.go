package describe

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// family is the nodes whose names differ only in their numbers. literals has one element more than widths.
type family struct {
	literals []string
	widths   []int // to which a number is padded with zeros; 0: none
	decimal  bool  // the last hextets of all IPv6 addresses are read as decimal numbers
	members  []*member
}

// member is a node of a family.
type member struct {
	*Node
	numbers   []int
	values    []int64 // the addresses of its cards, then their IPv6 addresses
	signature string  // equal for nodes that one <nodes> element can have
}

// maxDigits is the number of digits above which digits are not taken as a number.
const maxDigits = 9

// splitName splits a name into its numbers and the texts around them.
func splitName(name string) (literals, numbers []string) {
	start := 0
	for i := 0; i < len(name); {
		end := i
		for end < len(name) && name[end] >= '0' && name[end] <= '9' {
			end++
		}
		if end > i && end-i <= maxDigits {
			literals, numbers = append(literals, name[start:i]), append(numbers, name[i:end])
			start = end
		}
		i = max(end, i+1)
	}
	return append(literals, name[start:]), numbers
}

// families groups nodes by the shapes of their names, in the order of their first nodes. The members of each are sorted
// by their numbers.
func families(nodes []*Node, signature func(*Node) string) []*family {
	padded := paddedWidths(nodes)
	byKey := map[string]*family{}
	var list []*family
	for _, n := range nodes {
		literals, texts := splitName(n.Name)
		m := &member{Node: n, signature: signature(n)}
		widths := make([]int, len(texts))
		for i, text := range texts {
			number, _ := strconv.Atoi(text)
			m.numbers = append(m.numbers, number)
			for _, w := range padded[shapeKey(literals, i)] {
				if w <= len(text) {
					widths[i] = max(widths[i], w)
				}
			}
		}
		key := strings.Join(literals, "\x00") + fmt.Sprint(widths)
		f := byKey[key]
		if f == nil {
			f = &family{literals: literals, widths: widths}
			byKey[key], list = f, append(list, f)
		}
		f.members = append(f.members, m)
	}
	for _, f := range list {
		f.setValues()
		slices.SortFunc(f.members, func(a, b *member) int { return slices.Compare(a.numbers, b.numbers) })
	}
	return list
}

func shapeKey(literals []string, dimension int) string {
	return strings.Join(literals, "\x00") + "/" + strconv.Itoa(dimension)
}

// paddedWidths returns the widths of numbers with leading zeros, for each position of each shape of a name.
func paddedWidths(nodes []*Node) map[string][]int {
	widths := map[string][]int{}
	for _, n := range nodes {
		literals, texts := splitName(n.Name)
		for i, text := range texts {
			if text[0] != '0' || len(text) == 1 {
				continue
			}
			if key := shapeKey(literals, i); !slices.Contains(widths[key], len(text)) {
				widths[key] = append(widths[key], len(text))
			}
		}
	}
	return widths
}

func addressValue(c Card) (v int64) {
	if !c.Address.Is4() {
		return 0
	}
	for _, octet := range c.Address.As4() {
		v = v<<8 | int64(octet)
	}
	return v
}

// box is members of a family in the order of their numbers. The coordinates of a member follow from its place by sizes,
// the last one fastest. If len(members) is less than the product of sizes, the last members are missing.
type box struct {
	family  *family
	members []*member
	sizes   []int
}

func (b *box) full() bool {
	n := 1
	for _, s := range b.sizes {
		n *= s
	}
	return n == len(b.members)
}

// stride returns the distance of neighbours in a dimension.
func (b *box) stride(dimension int) int {
	n := 1
	for _, s := range b.sizes[dimension+1:] {
		n *= s
	}
	return n
}

// boxes splits a family into boxes, the largest possible from left to right.
func (f *family) boxes() []*box {
	var list []*box
	for _, m := range f.members {
		list = append(list, &box{family: f, members: []*member{m}})
	}
	last := len(f.widths) - 1
	for d := last; d >= 0; d-- {
		step := make([]int, len(f.widths))
		step[d] = 1
		list = join(list, 1, func(*box) []int { return step })
	}
	if last == 0 { // runs of one length may be a rule, too: two numbers in one
		list = join(list, leastRun, func(b *box) []int { return []int{len(b.members)} })
	}
	slices.SortStableFunc(list, func(a, b *box) int { return cmp.Compare(len(b.members), len(a.members)) })
	return list
}

// leastRun is the number of members from which runs are taken for a rule: shorter ones are alike by chance.
const leastRun = 3

// join joins neighbouring boxes of at least least members that differ by constant differences. step returns the
// difference of the numbers. Two nodes alone are joined only if their addresses are neighbours: any two are on a line.
func join(list []*box, least int, step func(*box) []int) (joined []*box) {
	for i := 0; i < len(list); {
		first, n := list[i], 1
		members := slices.Clone(first.members)
		delta := []int64(nil)
		for first.full() && i+n < len(list) {
			before, next := list[i+n-1], list[i+n]
			if len(next.members) < least {
				break
			}
			if delta == nil {
				delta = differences(first.members[0], next.members[0])
			}
			if !follows(before, next, step(first), delta) {
				break
			}
			members = append(members, next.members...)
			n++
			if len(next.members) < len(first.members) {
				break
			}
		}
		if len(members) == 2 && n == 2 && slices.ContainsFunc(delta, func(d int64) bool { return d != 1 && d != 0 }) {
			n, members = 1, first.members
		}
		joined = append(joined, &box{first.family, members, append([]int{n}, first.sizes...)})
		i += n
	}
	return joined
}

func differences(a, b *member) []int64 {
	d := make([]int64, min(len(a.values), len(b.values)))
	for i := range d {
		d[i] = b.values[i] - a.values[i]
	}
	return d
}

// follows reports whether every member of next is that of before plus step and delta. next may have fewer members.
func follows(before, next *box, step []int, delta []int64) bool {
	if len(next.members) > len(before.members) {
		return false
	}
	for i, m := range next.members {
		p := before.members[i]
		if m.signature != p.signature || !slices.Equal(differences(p, m), delta) {
			return false
		}
		for d, number := range m.numbers {
			if number != p.numbers[d]+step[d] {
				return false
			}
		}
	}
	return true
}
