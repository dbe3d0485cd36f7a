// Package nodeset reads and writes sets of names in ClusterShell's syntax: n[01-04,07], s[1-2]c[1-6], n[1-9/2], @group.
// The operators are
//
//   - "," or a space: union;
//   - "!": difference;
//   - "&": intersection;
//   - "^": symmetric difference.
//
// They have no precedence and are applied from left to right.
//
// # Differences from ClusterShell
//
//   - n2[8-12] is refused. It may mean n28 to n212, as in ClusterShell, or n28, n29, n210, n211 and n212.
//   - n1[9,10] is n19 and n110. ClusterShell 1.9 reads n[19-110].
//   - A name may have ranges on both sides of a number: n[1-2]5[6-7].
//   - White space between names is a union. In ClusterShell it belongs to a name.
//   - Names consist of ASCII letters, digits, "-", "_" and ".". Numbers have at most nine digits and are not negative.
//
// Every expansion is bounded, so that an untrusted set cannot exhaust memory. The package must not know what a node is:
// its caller resolves groups and names.
package nodeset

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// defaultLimit is the number of names that an expansion may produce if Options.Limit is 0.
const defaultLimit = 1_000_000

// maxDigits keeps every number in a range well within an int64.
const maxDigits = 9

// Options resolve names and bound the work. The zero value has no groups.
type Options struct {
	// Limit bounds the names that an expansion produces, including intermediate results and duplicates. 0: a million.
	Limit int

	// Budget, if not nil, accounts for the work of several expansions. Each subtracts its cost, about one for each name
	// or number that it handles. The caller stops when the budget is used up.
	Budget *int

	// Group returns the members of @name; "*" means all names. Nil: there are no groups.
	Group func(name string) ([]string, error)

	// Name returns the members of a name that stands for a set. Nil, or ok false: the name stands for itself.
	Name func(name string) (members []string, ok bool)
}

// SyntaxError describes what is wrong with a node set, and at which byte.
type SyntaxError struct {
	Text   string
	Offset int // of the byte
	Reason string
	Cause  error // the error of Options.Group; nil: the text itself is wrong
}

// Error returns one line, with the position in characters, from 1.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("node set %q: at character %d: %s",
		e.Text, utf8.RuneCountInString(e.Text[:e.Offset])+1, e.Reason)
}

// Expand returns the names in the set, each once, in natural order (n2 before n10). The error is a *SyntaxError.
func Expand(text string, o Options) ([]string, error) {
	if o.Limit <= 0 {
		o.Limit = defaultLimit
	}
	p := &parser{text: text, options: o, left: o.Limit}
	if o.Budget != nil {
		defer func() { *o.Budget -= p.work }()
	}
	set, err := p.expression()
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	slices.SortFunc(names, compareNames)
	return names, nil
}

type set map[string]struct{}

type parser struct {
	text    string
	pos     int
	options Options
	left    int // names that may still be produced
	work    int // see Options.Budget
}

func (p *parser) errorf(at int, format string, args ...any) error {
	return &SyntaxError{Text: p.text, Offset: at, Reason: fmt.Sprintf(format, args...)}
}

// expression parses and evaluates operand { operator operand }.
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
			return nil, p.unexpected()
		}
	}
}

// unexpected is the error of a character that cannot stand at the position.
func (p *parser) unexpected() error {
	r, _ := utf8.DecodeRuneInString(p.text[p.pos:])
	return p.errorf(p.pos, "unexpected %q", r)
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

// combine applies an operator. It may change left.
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

// operand parses one pattern, such as @cell or n[1-4]b[1-2], and returns the names that it stands for. A name may occur
// more than once.
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

// pattern parses literals and bracketed ranges up to the next operator. Each of them is one list of alternatives.
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
				return nil, p.errorf(p.pos,
					"a range directly after a range: there must be a name or a separator between them")
			}
			values, err := p.ranges(dims)
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
		return "", p.unexpected()
	}
}

func nameByte(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
}

// ranges parses "[1-4,07,10-20/5]". before is what stands in front of it.
func (p *parser) ranges(before [][]string) ([]string, error) {
	open := p.pos
	prefix := ""
	if len(before) > 0 {
		prefix = before[len(before)-1][0] // a literal: there are no two ranges side by side
	}
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
		if err := r.checkAfter(prefix); err != nil {
			return nil, p.errorf(p.pos, "%v", err)
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
	bounds, step, stepped := strings.Cut(strings.TrimSpace(s), "/")
	if strings.HasPrefix(bounds, "-") {
		return span{}, fmt.Errorf("range %q begins with a minus sign: numbers are not negative", s)
	}
	lo, hi, isRange := strings.Cut(bounds, "-")
	lo, hi, step = strings.TrimSpace(lo), strings.TrimSpace(hi), strings.TrimSpace(step)
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

// checkAfter refuses a range whose numbers have several widths behind a prefix that ends with a digit, because it may
// have two meanings.
func (r span) checkAfter(prefix string) error {
	lo, hi := pad(r.lo, r.width), pad(r.hi, r.width)
	name := strings.TrimRight(prefix, "0123456789")
	number := prefix[len(name):]
	if number == "" || r.step > 1 || len(lo) == len(hi) {
		return nil
	}
	var parts []string // each of numbers of one width
	for at := r.lo; at <= r.hi; {
		last := r.hi
		if width := len(strconv.Itoa(at)); width < len(hi) {
			last, _ = strconv.Atoi(strings.Repeat("9", width))
		}
		part := strconv.Itoa(at)
		if last > at {
			part += "-" + strconv.Itoa(last)
		}
		parts = append(parts, part)
		at = last + 1
	}
	meant := fmt.Sprintf("%s[%s]", prefix, strings.Join(parts, ","))
	if !padded(number + lo) {
		meant += fmt.Sprintf(" or %s[%[2]s%[3]s-%[2]s%[4]s]", name, number, lo, hi)
	}
	return fmt.Errorf("range %s-%s after a digit may have two meanings: write %s", lo, hi, meant)
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

// pad formats v with leading zeros.
func pad(v, width int) string {
	s := strconv.Itoa(v)
	if len(s) < width {
		s = strings.Repeat("0", width-len(s)) + s
	}
	return s
}

// product returns all combinations of one alternative of each dimension. The last dimension varies fastest.
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

// resolve replaces groups, and names that stand for sets, by their members.
func (p *parser) resolve(at int, group bool, names []string) ([]string, error) {
	if !group && p.options.Name == nil {
		return names, nil
	}
	resolved := make([]string, 0, len(names))
	for _, name := range names {
		members, err := p.members(group, name)
		if err != nil {
			return nil, &SyntaxError{Text: p.text, Offset: at, Reason: err.Error(), Cause: err}
		}
		if len(members) > p.left {
			return nil, p.errorf(at, "more than %d names", p.options.Limit)
		}
		p.left -= max(len(members)-1, 0) // the name itself has been counted
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

// compareNames orders names naturally: runs of digits are compared as numbers, so that n2 comes before n10.
func compareNames(a, b string) int {
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

// digits returns the number of digits at the beginning of s.
func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
