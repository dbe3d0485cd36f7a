package xcatvalue

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// value is a text or a number. Perl takes the one for the other as it is needed.
type value struct {
	text    string
	n       int64
	numeric bool
}

func number(n int64) value { return value{n: n, numeric: true} }

func text(t string) value { return value{text: t} }

func (v value) String() string {
	if v.numeric {
		return strconv.FormatInt(v.n, 10)
	}
	return v.text
}

// integer returns the number at the start of a text, or 0.
func (v value) integer() int64 {
	if v.numeric {
		return v.n
	}
	t := strings.TrimLeft(v.text, " \t")
	end := 0
	for end < len(t) && (t[end] >= '0' && t[end] <= '9' || end == 0 && (t[0] == '-' || t[0] == '+')) {
		end++
	}
	n, _ := strconv.ParseInt(t[:end], 10, 64)
	return n
}

// maxDepth is the number of parentheses within parentheses up to which an expression is read.
const maxDepth = 64

// parser evaluates one expression.
type parser struct {
	match
	rest  string
	depth int
}

func (p *parser) space() { p.rest = strings.TrimLeft(p.rest, " \t") }

// take takes a text from the start of the rest, if it is there.
func (p *parser) take(token string) bool {
	p.space()
	if !strings.HasPrefix(p.rest, token) {
		return false
	}
	p.rest = p.rest[len(token):]
	return true
}

// span takes the bytes at the start of the rest for which ok holds.
func (p *parser) span(ok func(c byte) bool) string {
	end := 0
	for end < len(p.rest) && ok(p.rest[end]) {
		end++
	}
	taken := p.rest[:end]
	p.rest = p.rest[end:]
	return taken
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isWord(c byte) bool { return isDigit(c) || c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' }

// parenthesis evaluates an expression in parentheses.
func (p *parser) parenthesis() (value, error) {
	list, err := p.list()
	switch {
	case err != nil:
		return value{}, err
	case len(list) != 1:
		return value{}, errors.New("there is no expression between ( and )")
	}
	return list[0], nil
}

// list evaluates expressions in parentheses, with commas between them.
func (p *parser) list() (list []value, err error) {
	if !p.take("(") {
		return nil, fmt.Errorf("%.20q: a parenthesis is missing", p.rest)
	}
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("more than %d parentheses within parentheses", maxDepth)
	}
	defer func() { p.depth-- }()
	for !p.take(")") {
		if p.rest == "" {
			return nil, errors.New("a parenthesis is not closed")
		}
		if len(list) > 0 && !p.take(",") {
			return nil, fmt.Errorf("%.20q is not understood in an expression", p.rest)
		}
		v, err := p.sum()
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

func (p *parser) sum() (value, error) {
	v, err := p.product()
	for err == nil {
		var other value
		switch {
		case p.take("+"):
			other, err = p.product()
			v = number(v.integer() + other.integer())
		case p.take("-"):
			other, err = p.product()
			v = number(v.integer() - other.integer())
		default:
			return v, nil
		}
	}
	return v, err
}

func (p *parser) product() (value, error) {
	v, err := p.operand()
	for err == nil {
		operator := ""
		for _, o := range []string{"*", "/", "%"} {
			if operator == "" && p.take(o) {
				operator = o
			}
		}
		if operator == "" {
			return v, nil
		}
		var other value
		if other, err = p.operand(); err == nil {
			v, err = multiply(v.integer(), operator, other.integer())
		}
	}
	return v, err
}

func multiply(a int64, operator string, b int64) (value, error) {
	switch {
	case operator == "*":
		return number(a * b), nil
	case b == 0:
		return value{}, errors.New("a division by zero")
	case operator == "/":
		return number(a / b), nil
	}
	return number(a % b), nil
}

func (p *parser) operand() (value, error) {
	if p.space(); p.rest == "" {
		return value{}, errors.New("a parenthesis is not closed")
	}
	switch c := p.rest[0]; {
	case c == '(':
		return p.parenthesis()
	case c == '-', c == '+':
		return p.signed()
	case c == '$':
		p.rest = p.rest[1:]
		n, err := strconv.Atoi(p.span(isDigit))
		if err != nil || n > 99 {
			return value{}, errors.New("a variable is not a group such as $1")
		}
		return text(p.group(n)), nil
	case c == '"', c == '\'':
		t, rest, closed := strings.Cut(p.rest[1:], string(c))
		if !closed {
			return value{}, errors.New("a quote is not closed")
		}
		p.rest = rest
		return text(t), nil
	case isDigit(c):
		n, err := strconv.ParseInt(p.span(isDigit), 0, 64) // a leading zero means octal, in Perl, too
		if err != nil {
			return value{}, errors.New("a number in it is not one of Perl")
		}
		return number(n), nil
	case isWord(c):
		return p.call()
	}
	return value{}, fmt.Errorf("%.20q is not understood in an expression", p.rest)
}

func (p *parser) signed() (value, error) {
	negative := p.rest[0] == '-'
	p.rest = p.rest[1:]
	if p.depth++; p.depth > maxDepth {
		return value{}, fmt.Errorf("more than %d signs", maxDepth)
	}
	defer func() { p.depth-- }()
	v, err := p.operand()
	if negative {
		v = number(-v.integer())
	}
	return v, err
}

// call evaluates a call of a function.
func (p *parser) call() (value, error) {
	name := p.span(isWord)
	f := functions()[name]
	if f == nil {
		return value{}, fmt.Errorf("%s is not a function that can be evaluated", name)
	}
	args, err := p.list()
	if err != nil {
		return value{}, err
	}
	return f(args)
}
