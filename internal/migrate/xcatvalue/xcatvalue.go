// Package xcatvalue expands the regular expressions in the tables of xCAT: a value such as
//
//	|\D+(\d+).*$|172.20.(101+(($1-1)/84)).(($1-1)%84+1)|
//
// stands for another text for each node.
//
// # Format
//
// xCAT documents the values under "Groups and Regular Expressions in Tables":
//
//   - |REGEXP|TEXT|: in the node's name, the match of REGEXP is replaced by TEXT. Expressions in parentheses in TEXT
//     are evaluated with integers, as Perl does under "use integer". $1, $2, … are the groups of the match.
//   - |TEXT|: the same, and $1, $2, … are the numbers in the node's name, without leading zeros.
//   - /REGEXP/TEXT/: the match is replaced by TEXT as it is.
//
// Every other value is a text. A regular expression that only Perl has, such as one that looks ahead, is an error.
//
// It must not know what a table or a node is.
package xcatvalue

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// errTooLong is the error for a value, or its expansion, of more than 4096 bytes.
var errTooLong = errors.New("it is longer than 4096 bytes")

const maxLength = 4096

// IsExpression reports whether a value is more than a text.
func IsExpression(value string) bool {
	return len(value) > 2 && value[0] == '|' && value[len(value)-1] == '|' ||
		len(value) > 2 && value[0] == '/' && value[len(value)-1] == '/' && strings.Count(value, "/") == 3
}

// Expand returns what a value is for a node. The errors of values that cannot be expanded say why.
func Expand(value, node string) (string, error) {
	if !IsExpression(value) {
		return value, nil
	}
	if len(value) > maxLength || len(node) > maxLength {
		return "", errTooLong
	}
	pattern, text, found := strings.Cut(value[1:len(value)-1], value[:1])
	if !found {
		pattern, text = numbers(node), pattern
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return "", fmt.Errorf("%q is not a regular expression that can be read", pattern)
	}
	at := re.FindStringSubmatchIndex(node)
	if at == nil {
		return node, nil // as Perl's s/// does
	}
	m := match{node: node, at: at}
	if value[0] == '|' {
		if text, err = m.evaluate(text); err != nil {
			return "", err
		}
	}
	text = node[:at[0]] + m.groups(text) + node[at[1]:]
	if len(text) > maxLength {
		return "", errTooLong
	}
	return text, nil
}

// numbers returns the pattern that xCAT takes if a value has none: one group for each number in the name.
func numbers(node string) string {
	n := len(regexp.MustCompile(`[\D0]*(\d+)`).FindAllString(node, 64))
	return strings.Repeat(`[\D0]*(\d+)`, n) + ".*$"
}

// match is the match of a regular expression in the name of a node.
type match struct {
	node string
	at   []int // start and end of the match, and of each group; -1: the group is not in the match
}

// group returns the text of $n, "" if there is none.
func (m match) group(n int) string {
	if 2*n+1 >= len(m.at) || m.at[2*n] < 0 {
		return ""
	}
	return m.node[m.at[2*n]:m.at[2*n+1]]
}

// evaluate replaces the outermost parentheses of a text by what is in them.
func (m match) evaluate(text string) (string, error) {
	var b strings.Builder
	for text != "" {
		start := strings.IndexByte(text, '(')
		if start < 0 {
			break
		}
		b.WriteString(text[:start])
		p := parser{match: m, rest: text[start:]}
		v, err := p.parenthesis()
		if err != nil {
			return "", err
		}
		b.WriteString(v.String())
		if b.Len() > maxLength {
			return "", errTooLong
		}
		text = p.rest
	}
	return b.String() + text, nil
}

var groupPattern = regexp.MustCompile(`\$(?:[0-9]+|\{[0-9]+\})|\\[0-9]`)

// groups replaces $1, ${1} and \1 by the groups of the match.
func (m match) groups(text string) string {
	return groupPattern.ReplaceAllStringFunc(text, func(ref string) string {
		n := 0
		for _, c := range ref {
			if c >= '0' && c <= '9' {
				n = min(n*10+int(c-'0'), 1000)
			}
		}
		return m.group(n)
	})
}

// functions are those that xCAT offers in expressions.
func functions() map[string]func(args []value) (value, error) {
	return map[string]func(args []value) (value, error){
		"a2idx":   func(args []value) (value, error) { return letter(args, 'a'-1) },
		"a2zidx":  func(args []value) (value, error) { return letter(args, 'a') },
		"dim2idx": dimensions, "skip": skip, "ipadd": addToAddress, "sprintf": format,
	}
}

func letter(args []value, base int64) (value, error) {
	text := strings.ToLower(slices.Concat(args, []value{{}})[0].String())
	if text == "" {
		return value{}, errors.New("a2idx has no letter")
	}
	return number(int64(text[0]) - base), nil
}

// dimensions makes one index, counted from 1, of the indexes in several dimensions: an index, the size of the next
// dimension, an index, and so on.
func dimensions(args []value) (value, error) {
	n := int64(0)
	for i, a := range args {
		if i%2 == 0 {
			n += a.integer() - 1
		} else {
			n *= a.integer()
		}
	}
	return number(n + 1), nil
}

// skip returns an index less the indexes that are skipped before it: "3:2,6" are 3, 4 and 6. One that is itself skipped
// is -1.
func skip(args []value) (value, error) {
	if len(args) != 2 {
		return value{}, fmt.Errorf("skip has %d arguments instead of 2", len(args))
	}
	index := args[0].integer()
	result := index
	for _, part := range strings.Split(args[1].String(), ",") {
		first, many, found := strings.Cut(part, ":")
		start, count := text(first).integer(), int64(1)
		if found {
			count = text(many).integer()
		}
		switch {
		case index < start:
			return number(result), nil
		case index < start+count:
			return number(-1), nil
		}
		result -= count
	}
	return number(result), nil
}

// addToAddress adds to an IPv4 address, given as four numbers. Addresses at the start and at the end of the last number
// are skipped.
func addToAddress(args []value) (value, error) {
	var n [7]int64
	if len(args) < 5 || len(args) > len(n) {
		return value{}, fmt.Errorf("ipadd has %d arguments instead of 7", len(args))
	}
	for i, a := range args {
		n[i] = a.integer()
	}
	size := 256 - n[5] - n[6]
	if size <= 0 {
		return value{}, errors.New("ipadd skips all addresses")
	}
	offset := n[4]
	if n[3] >= n[5] {
		offset += n[3] - n[5]
	}
	return text(fmt.Sprintf("%d.%d.%d.%d", n[0], n[1], n[2]+offset/size, offset%size+n[5])), nil
}

var verb = regexp.MustCompile(`%(0?)([0-9]{0,2})([cdsxX%])`)

// format is Perl's sprintf for characters, numbers and texts.
func format(args []value) (value, error) {
	if len(args) == 0 {
		return value{}, errors.New("sprintf has no format")
	}
	layout, args := args[0].String(), args[1:]
	result := verb.ReplaceAllStringFunc(layout, func(v string) string {
		kind := v[len(v)-1]
		if kind == '%' || len(args) == 0 {
			return strings.Repeat("%", min(1, len(v)-1))
		}
		a := args[0]
		args = args[1:]
		switch kind {
		case 's':
			return fmt.Sprintf(v, a.String())
		case 'c':
			return string(rune(a.integer() & 0x7f))
		}
		return fmt.Sprintf(v, a.integer())
	})
	return text(result), nil
}
