package migrate

import (
	"errors"
	"regexp"
	"strings"
)

// shellWords reads words of the shell, as far as they are texts, quotes and variables.
type shellWords struct {
	lookup func(name string) string
	depth  int
}

var errComputed = errors.New("it is computed by a command: write its value")

// variable is $name or ${name}, with [index] and :-default.
var variable = regexp.MustCompile(`^\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*(?:\[\d{1,6}\])?)(:?[-=])?)`)

// word reads a word at the start of a text, and returns what follows it.
func (w *shellWords) word(text string) (value, rest string, err error) {
	return w.until(text, " \t;)\r\n&|<>")
}

// until reads up to one of the bytes in end that is not in quotes.
func (w *shellWords) until(text, end string) (value, rest string, err error) {
	var b strings.Builder
	for text != "" && strings.IndexByte(end, text[0]) < 0 {
		c := text[0]
		switch {
		case c == '\'':
			quoted, after, closed := strings.Cut(text[1:], "'")
			if !closed {
				return "", "", errors.New("a quote is not closed")
			}
			b.WriteString(quoted)
			text = after
		case c == '"':
			quoted, after, err := w.until(text[1:], `"`)
			if err == nil && after == "" {
				err = errors.New("a quote is not closed")
			}
			if err != nil {
				return "", "", err
			}
			b.WriteString(quoted)
			text = after[1:]
		case c == '\\' && len(text) > 1:
			b.WriteByte(text[1])
			text = text[2:]
		case c == '`':
			return "", "", errComputed
		case c == '$':
			var part string
			if part, text, err = w.variable(text); err != nil {
				return "", "", err
			}
			b.WriteString(part)
		default:
			b.WriteByte(c)
			text = text[1:]
		}
		if b.Len() > maxVariable {
			return "", "", errors.New("it is longer than 4096 bytes")
		}
	}
	return b.String(), text, nil
}

// variable reads a variable at the start of a text.
func (w *shellWords) variable(text string) (value, rest string, err error) {
	m := variable.FindStringSubmatch(text)
	if m == nil {
		return "", "", errComputed
	}
	rest = text[len(m[0]):]
	if m[1] != "" {
		return w.lookup(m[1]), rest, nil
	}
	value = w.lookup(m[2])
	if m[3] != "" {
		if w.depth++; w.depth > 16 {
			return "", "", errors.New("there are more than 16 defaults within defaults")
		}
		defer func() { w.depth-- }()
		fallback, after, err := w.until(rest, "}")
		if err != nil {
			return "", "", err
		}
		if rest = after; value == "" {
			value = fallback
		}
	}
	rest, closed := strings.CutPrefix(rest, "}")
	if !closed {
		return "", "", errComputed
	}
	return value, rest, nil
}
