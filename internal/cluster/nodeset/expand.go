// Package nodeset reads and writes sets of names in ClusterShell's syntax: n[01-04,07], s[1-2]c[1-6], n[1-9/2], @group;
// "," or a space unites, "!" takes away, "&" intersects, "^" keeps what only one side has. Operators have no precedence: they are
// applied from left to right.
//
// Every expansion is bounded, so that a set from a stranger cannot eat memory. The package must not know what a node is: what a group or
// a name stands for is asked of its caller.
package nodeset

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// DefaultLimit is how many names an expansion may produce when Options say nothing.
const DefaultLimit = 1_000_000

// maxDigits keeps every number in a range well within an int64.
const maxDigits = 9

// Options say what names mean, and bound the work. The zero value knows no groups.
type Options struct {
	// Limit bounds the names that are produced on the way, duplicates included. 0: DefaultLimit.
	Limit int

	// Left, if not nil, bounds the work of several expansions together: each takes from it what it costs, about one for
	// each name or number that it looks at. It does not end below 0 by more than one expansion's cost.
	Left *int

	// Group returns the members of @name; "*" stands for everything. Nil: there are no groups.
	Group func(name string) ([]string, error)

	// Name returns what a name stands for, when it is not simply itself. Nil, or ok false: it is itself.
	Name func(name string) (members []string, ok bool)
}

// SyntaxError tells what is wrong with a node set, and at which byte.
type SyntaxError struct {
	Text   string
	Offset int
	Reason string
}

// Error returns one line.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("parse node set %q: at byte %d: %s", e.Text, e.Offset+1, e.Reason)
}

// Expand returns the names in the set, each once, in natural order (n2 before n10). The error is a *SyntaxError.
func Expand(text string, o Options) ([]string, error) {
	if o.Limit <= 0 {
		o.Limit = DefaultLimit
	}
	p := &parser{text: text, options: o, left: o.Limit}
	if o.Left != nil {
		defer func() { *o.Left -= p.work }()
	}
	set, err := p.expression()
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	slices.SortFunc(names, Compare)
	return names, nil
}

type set map[string]struct{}

type parser struct {
	text    string
	pos     int
	options Options
	left    int // names that may still be produced
	work    int
}

func (p *parser) errorf(at int, format string, args ...any) error {
	return &SyntaxError{Text: p.text, Offset: at, Reason: fmt.Sprintf(format, args...)}
}

// expression evaluates operand { operator operand }.
func (p *parser) expression() (set, error) {
	p.space()
	if p.pos == len(p.text) {
		return set{}, nil
	}
	left := set{}
	operator := byte(',')
	for {
		right, err := p.operand()
		if err != nil {
			return nil, err
		}
		left = combine(left, operator, right)
		spaced := p.space()
		if p.pos == len(p.text) {
			return left, nil
		}
		switch c := p.text[p.pos]; {
		case isOperator(c):
			operator = c
			p.pos++
			p.space()
		case spaced:
			operator = ','
		default:
			return nil, p.errorf(p.pos, "unexpected %q", c)
		}
	}
}

func isOperator(c byte) bool { return c == ',' || c == '!' || c == '&' || c == '^' }

// space skips white space and reports whether there was any.
func (p *parser) space() bool {
	start := p.pos
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.pos]) >= 0 {
		p.pos++
	}
	return p.pos > start
}

func combine(left set, operator byte, names []string) set {
	switch operator {
	case '!':
		for _, n := range names {
			delete(left, n)
		}
	case '&':
		both := set{}
		for _, n := range names {
			if _, ok := left[n]; ok {
				both[n] = struct{}{}
			}
		}
		return both
	case '^':
		right := set{}
		for _, n := range names {
			right[n] = struct{}{}
		}
		for n := range right {
			if _, ok := left[n]; ok {
				delete(left, n)
			} else {
				left[n] = struct{}{}
			}
		}
	default:
		for _, n := range names {
			left[n] = struct{}{}
		}
	}
	return left
}

// operand reads one pattern, such as @cell or n[1-4]b[1-2], and returns what it stands for; a name may come twice.
func (p *parser) operand() ([]string, error) {
	start := p.pos
	group := p.pos < len(p.text) && p.text[p.pos] == '@'
	if group {
		p.pos++
	}
	dims, err := p.pattern(group)
	if err != nil {
		return nil, err
	}
	if len(dims) == 0 {
		return nil, p.errorf(start, "a name is missing")
	}
	total := 1
	for _, d := range dims {
		total *= len(d) // at most left*left: no overflow
		if total > p.left {
			return nil, p.errorf(start, "more than %d names", p.options.Limit)
		}
	}
	p.left -= total
	p.work += total
	return p.resolve(start, group, product(dims, total))
}

// pattern reads literals and bracketed ranges up to the next operator; each is one list of alternatives.
func (p *parser) pattern(group bool) ([][]string, error) {
	var dims [][]string
	bracketed := false
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		switch {
		case isOperator(c) || strings.IndexByte(" \t\r\n", c) >= 0:
			return dims, nil
		case c == '[':
			if bracketed {
				return nil, p.errorf(p.pos, "a range directly after a range: there must be something between them")
			}
			values, err := p.ranges()
			if err != nil {
				return nil, err
			}
			dims = append(dims, values)
			bracketed = true
		default:
			literal, err := p.literal(group)
			if err != nil {
				return nil, err
			}
			dims = append(dims, []string{literal})
			bracketed = false
		}
	}
	return dims, nil
}

func (p *parser) literal(group bool) (string, error) {
	start := p.pos
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		if !nameByte(c) && !(group && c == '*') {
			break
		}
		p.pos++
	}
	if p.pos > start {
		return p.text[start:p.pos], nil
	}
	switch c := p.text[p.pos]; c {
	case ']':
		return "", p.errorf(p.pos, "\"]\" without \"[\"")
	case '*', '?':
		return "", p.errorf(p.pos, "wild cards are not supported; all nodes are @*")
	default:
		return "", p.errorf(p.pos, "unexpected %q", c)
	}
}

func nameByte(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
}

// ranges reads "[1-4,07,10-20/5]".
func (p *parser) ranges() ([]string, error) {
	open := p.pos
	end := strings.IndexByte(p.text[open:], ']')
	if end < 0 {
		return nil, p.errorf(open, "\"[\" without \"]\"")
	}
	end += open
	p.pos++
	var values []string
	for _, part := range strings.Split(p.text[p.pos:end], ",") {
		r, err := parseRange(part)
		if err != nil {
			return nil, p.errorf(p.pos, "%v", err)
		}
		if len(values)+r.count() > p.left {
			return nil, p.errorf(p.pos, "more than %d names", p.options.Limit)
		}
		values = r.append(values)
		p.work += r.count()
		p.pos += len(part) + 1
	}
	p.pos = end + 1
	return values, nil
}

// span is "lo-hi/step"; numbers are padded with zeros to width.
type span struct{ lo, hi, step, width int }

func parseRange(s string) (span, error) {
	bounds, step, stepped := strings.Cut(s, "/")
	lo, hi, isRange := strings.Cut(bounds, "-")
	if !isRange {
		hi = lo
	}
	r := span{step: 1}
	var err error
	if r.lo, err = number(lo); err != nil {
		return r, err
	}
	if r.hi, err = number(hi); err != nil {
		return r, err
	}
	if stepped {
		if r.step, err = number(step); err != nil {
			return r, err
		}
	}
	switch {
	case r.step == 0:
		return r, fmt.Errorf("range %q has step 0", s)
	case r.hi < r.lo:
		return r, fmt.Errorf("range %q runs backwards", s)
	}
	if padded(lo) || padded(hi) {
		if len(lo) != len(hi) {
			return r, fmt.Errorf("range %q: %q and %q are padded to different widths", s, lo, hi)
		}
		r.width = len(lo)
	}
	return r, nil
}

func number(s string) (int, error) {
	if len(s) > maxDigits {
		return 0, fmt.Errorf("number %q has more than %d digits", s, maxDigits)
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, fmt.Errorf("%q is not a number", s)
		}
	}
	if s == "" {
		return 0, fmt.Errorf("a number is missing")
	}
	return strconv.Atoi(s)
}

func padded(s string) bool { return len(s) > 1 && s[0] == '0' }

func (r span) count() int { return (r.hi-r.lo)/r.step + 1 }

func (r span) append(to []string) []string {
	for v := r.lo; v <= r.hi; v += r.step {
		to = append(to, pad(v, r.width))
	}
	return to
}

func pad(v, width int) string {
	s := strconv.Itoa(v)
	if len(s) < width {
		s = strings.Repeat("0", width-len(s)) + s
	}
	return s
}

// product joins one alternative of each dimension in every way, the last dimension running fastest.
func product(dims [][]string, total int) []string {
	names := make([]string, 0, total)
	pick := make([]int, len(dims))
	for range total {
		var b strings.Builder
		for d, values := range dims {
			b.WriteString(values[pick[d]])
		}
		names = append(names, b.String())
		for d := len(dims) - 1; d >= 0; d-- {
			if pick[d]++; pick[d] < len(dims[d]) {
				break
			}
			pick[d] = 0
		}
	}
	return names
}

// resolve replaces groups, and names that stand for others, by their members.
func (p *parser) resolve(at int, group bool, names []string) ([]string, error) {
	if !group && p.options.Name == nil {
		return names, nil
	}
	resolved := make([]string, 0, len(names))
	for _, name := range names {
		members, err := p.members(group, name)
		if err != nil {
			return nil, p.errorf(at, "%v", err)
		}
		if len(members) > p.left {
			return nil, p.errorf(at, "more than %d names", p.options.Limit)
		}
		p.left -= max(len(members)-1, 0) // the name itself is counted already
		p.work += len(members)
		resolved = append(resolved, members...)
	}
	return resolved, nil
}

func (p *parser) members(group bool, name string) ([]string, error) {
	if !group {
		if members, ok := p.options.Name(name); ok {
			return members, nil
		}
		return []string{name}, nil
	}
	if p.options.Group == nil {
		return nil, fmt.Errorf("group %q is not defined", name)
	}
	return p.options.Group(name)
}

// Compare orders names naturally: runs of digits count as numbers, so n2 comes before n10.
func Compare(a, b string) int {
	x, y := a, b
	for x != "" && y != "" {
		dx, dy := digits(x), digits(y)
		if dx == 0 || dy == 0 {
			if x[0] != y[0] {
				return cmp.Compare(x[0], y[0])
			}
			x, y = x[1:], y[1:]
			continue
		}
		nx, ny := strings.TrimLeft(x[:dx], "0"), strings.TrimLeft(y[:dy], "0")
		if c := cmp.Or(cmp.Compare(len(nx), len(ny)), strings.Compare(nx, ny), cmp.Compare(dx, dy)); c != 0 {
			return c
		}
		x, y = x[dx:], y[dy:]
	}
	return cmp.Compare(len(x), len(y))
}

// digits returns the length of the run of digits that s begins with.
func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
