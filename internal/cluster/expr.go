package cluster

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// pattern is a text with expressions in braces, such as "s{rack:02}c{chassis}" or
// "10.128.{(rack-1)*6+chassis}.{blade}".
//
//	part       = literal | "{" sum [ ":" format ] "}"
//	sum        = product { ("+" | "-") product }
//	product    = operand { ("*" | "/" | "%") operand }
//	operand    = number | variable | "(" sum ")"
//	format     = [ "0" width ] [ "x" ]
//
// Numbers are int64. Overflow, division by zero and a negative result are errors.
type pattern []part

// part is an expression, or a literal if expr is nil.
type part struct {
	literal string
	expr    *expr
	offset  int // of the expression in the text
	width   int // to which the number is padded with zeros
	hex     bool
}

// expr is a number (op 0), a variable (op 'v') or an operation on two others.
type expr struct {
	op          byte
	number      int64
	variable    int // its index among the variables
	left, right *expr
}

// expressionError is a mistake in a pattern, or an error in its evaluation.
type expressionError struct {
	offset       int // in the text
	reason, hint string
}

// parsePattern parses a pattern. variables are the names of the variables, in the order of the values for expand.
func parsePattern(text string, variables []string) (pattern, *expressionError) {
	if len(text) > maxExpression {
		return nil, &expressionError{reason: fmt.Sprintf("longer than %d bytes", maxExpression)}
	}
	var p pattern
	for pos := 0; pos < len(text); {
		n := strings.IndexAny(text[pos:], "{}")
		if n < 0 {
			return append(p, part{literal: text[pos:]}), nil
		}
		if n > 0 {
			p = append(p, part{literal: text[pos : pos+n]})
			pos += n
		}
		if text[pos] == '}' {
			return nil, &expressionError{offset: pos, reason: "\"}\" without \"{\""}
		}
		end := strings.IndexByte(text[pos:], '}')
		if end < 0 {
			return nil, &expressionError{offset: pos, reason: "\"{\" without \"}\""}
		}
		field, err := parseField(text[pos+1:pos+end], variables)
		if err != nil {
			err.offset += pos + 1
			return nil, err
		}
		field.offset = pos
		p = append(p, field)
		pos += end + 1
	}
	return p, nil
}

// parseField parses the text between a pair of braces.
func parseField(text string, variables []string) (part, *expressionError) {
	sum, format, formatted := strings.Cut(text, ":")
	ps := &exprParser{text: sum, variables: variables}
	e, err := ps.sum()
	if err == nil && ps.peek() != 0 {
		err = ps.errorf("unexpected %q in the expression", ps.text[ps.pos])
	}
	if err != nil {
		return part{}, err
	}
	f := part{expr: e}
	if !formatted {
		return f, nil
	}
	digits := strings.TrimSuffix(format, "x")
	f.hex = digits != format
	if width := strings.TrimPrefix(digits, "0"); digits != "" {
		n, convErr := strconv.ParseUint(width, 10, 8)
		if convErr != nil || width == digits || n < 1 || n > 20 {
			return part{}, &expressionError{
				offset: len(sum) + 1, reason: fmt.Sprintf("bad format %q", format),
				hint: "formats are 02 (two digits, padded with zeros), x (hexadecimal) and 02x",
			}
		}
		f.width = int(n)
	} else if !f.hex {
		return part{}, &expressionError{offset: len(sum), reason: "a format is missing after \":\""}
	}
	return f, nil
}

type exprParser struct {
	text      string
	pos       int
	variables []string
}

func (p *exprParser) errorf(format string, args ...any) *expressionError {
	return &expressionError{offset: p.pos, reason: fmt.Sprintf(format, args...)}
}

// peek skips spaces and returns the next byte, 0 at the end.
func (p *exprParser) peek() byte {
	for p.pos < len(p.text) && p.text[p.pos] == ' ' {
		p.pos++
	}
	if p.pos == len(p.text) {
		return 0
	}
	return p.text[p.pos]
}

func (p *exprParser) sum() (*expr, *expressionError) { return p.chain("+-", p.product) }

func (p *exprParser) product() (*expr, *expressionError) { return p.chain("*/%", p.operand) }

// chain parses operands that are joined by any of the operators, left-associatively.
func (p *exprParser) chain(operators string, operand func() (*expr, *expressionError)) (*expr, *expressionError) {
	left, err := operand()
	if err != nil {
		return nil, err
	}
	for {
		op := p.peek()
		if op == 0 || strings.IndexByte(operators, op) < 0 {
			return left, nil
		}
		p.pos++
		right, err := operand()
		if err != nil {
			return nil, err
		}
		left = &expr{op: op, left: left, right: right}
	}
}

func (p *exprParser) operand() (*expr, *expressionError) {
	c := p.peek()
	switch {
	case c == '(':
		p.pos++
		e, err := p.sum()
		if err != nil {
			return nil, err
		}
		if p.peek() != ')' {
			return nil, p.errorf("\")\" is missing")
		}
		p.pos++
		return e, nil
	case c >= '0' && c <= '9':
		start := p.pos
		for p.pos < len(p.text) && p.text[p.pos] >= '0' && p.text[p.pos] <= '9' {
			p.pos++
		}
		n, err := strconv.ParseInt(p.text[start:p.pos], 10, 64)
		if err != nil {
			p.pos = start
			return nil, p.errorf("number too large")
		}
		return &expr{number: n}, nil
	case isLetter(c):
		return p.variable()
	case c == 0:
		return nil, p.errorf("a number or a variable is missing in the expression")
	}
	return nil, p.errorf("unexpected %q in the expression", c)
}

func (p *exprParser) variable() (*expr, *expressionError) {
	start := p.pos
	for p.pos < len(p.text) && isLetter(p.text[p.pos]) {
		p.pos++
	}
	name := p.text[start:p.pos]
	i := slices.Index(p.variables, name)
	if i < 0 {
		p.pos = start
		err := p.errorf("%q is not defined here", name)
		err.hint = suggestion(name, slices.Values(p.variables))
		if err.hint == "" {
			err.hint = "the variables are " + strings.Join(p.variables, ", ")
		}
		return nil, err
	}
	return &expr{op: 'v', variable: i}, nil
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// expand appends to b the text of p for the values of the variables.
func (p pattern) expand(b []byte, values []int64) ([]byte, *expressionError) {
	for i := range p {
		f := &p[i]
		if f.expr == nil {
			b = append(b, f.literal...)
			continue
		}
		v, reason := f.expr.eval(values)
		if reason == "" && v < 0 {
			reason = fmt.Sprintf("is negative: %d", v)
		}
		if reason != "" {
			return b, &expressionError{offset: f.offset, reason: reason}
		}
		b = f.format(b, v)
	}
	return b, nil
}

func (f *part) format(b []byte, v int64) []byte {
	base := 10
	if f.hex {
		base = 16
	}
	var digits [20]byte
	text := strconv.AppendInt(digits[:0], v, base)
	for range f.width - len(text) {
		b = append(b, '0')
	}
	return append(b, text...)
}

// eval returns the value of e, or the reason why it has none, as the predicate of a sentence.
func (e *expr) eval(values []int64) (v int64, reason string) {
	switch e.op {
	case 0:
		return e.number, ""
	case 'v':
		return values[e.variable], ""
	}
	a, reason := e.left.eval(values)
	if reason != "" {
		return 0, reason
	}
	b, reason := e.right.eval(values)
	if reason != "" {
		return 0, reason
	}
	return operate(e.op, a, b)
}

// operate is checked arithmetic. Division rounds towards zero.
func operate(op byte, a, b int64) (v int64, reason string) {
	const overflow = "overflows"
	switch op {
	case '+':
		if v = a + b; (v > a) != (b > 0) {
			return 0, overflow
		}
	case '-':
		if v = a - b; (v < a) != (b > 0) {
			return 0, overflow
		}
	case '*':
		if v = a * b; a != 0 && (v/a != b || a == -1 && b == math.MinInt64) {
			return 0, overflow
		}
	default:
		if b == 0 {
			return 0, "divides by zero"
		}
		if a == math.MinInt64 && b == -1 {
			return 0, overflow
		}
		if op == '%' {
			return a % b, ""
		}
		return a / b, ""
	}
	return v, ""
}

// fields splits text at spaces outside of braces. It returns the pieces and their offsets.
func fields(text string) (pieces []string, offsets []int) {
	start, depth := -1, 0
	for i := 0; i <= len(text); i++ {
		if i == len(text) || text[i] == ' ' && depth <= 0 {
			if start >= 0 {
				pieces, offsets = append(pieces, text[start:i]), append(offsets, start)
			}
			start = -1
			continue
		}
		if start < 0 {
			start = i
		}
		switch text[i] {
		case '{':
			depth++
		case '}':
			depth--
		}
	}
	return pieces, offsets
}
