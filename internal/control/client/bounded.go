package client

import (
	"fmt"
	"io"
)

// Bounds of a line that another server answers, which may be in the wrong hands. What a list has in two bytes may take
// hundreds in memory.
const (
	// maxLine bounds its bytes. A thousand nodes take half a megabyte.
	maxLine = 16 << 20
	// maxElements bounds the elements of all lists in it, and maxMembers the members of all objects.
	maxElements = 200_000
	maxMembers  = 2_000_000
	// maxDepth bounds the lists and objects around a value.
	maxDepth = 64
)

// lines is a body whose lines, of one JSON value each, are bounded.
type lines struct {
	io.ReadCloser
	line line
}

// Read implements io.Reader.
func (l *lines) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	for _, c := range p[:n] {
		if lerr := l.line.add(c); lerr != nil {
			return 0, lerr
		}
	}
	return n, err
}

// line is the beginning of a line, as far as it was read. Text that is no JSON is counted in some way, and refused by
// who decodes it.
type line struct {
	length, elements, members int
	open                      []byte // the brackets that are open
	text, escaped             bool   // in a text; after a backslash in it
}

// add adds a byte. The error is that the line exceeds a bound.
func (l *line) add(c byte) error {
	if c == '\n' {
		*l = line{open: l.open[:0]}
		return nil
	}
	if l.length++; l.length > maxLine {
		return fmt.Errorf("a line of the answer has more than %d MiB", maxLine>>20)
	}
	if l.text {
		l.text = l.escaped || c != '"'
		l.escaped = !l.escaped && c == '\\'
		return nil
	}
	return l.addOutside(c)
}

// addOutside adds a byte that is not in a text.
func (l *line) addOutside(c byte) error {
	switch c {
	case '"':
		l.text = true
	case '[', '{':
		if len(l.open) == maxDepth {
			return fmt.Errorf("a line of the answer has more than %d levels", maxDepth)
		}
		l.open = append(l.open, c)
		return l.count()
	case ']', '}':
		l.open = l.open[:max(0, len(l.open)-1)]
	case ',':
		return l.count()
	}
	return nil
}

// count counts an element of the innermost list, or a member of the innermost object. An empty one counts, too.
func (l *line) count() error {
	if len(l.open) > 0 && l.open[len(l.open)-1] == '[' {
		if l.elements++; l.elements > maxElements {
			return fmt.Errorf("a line of the answer has more than %d elements of lists", maxElements)
		}
		return nil
	}
	if l.members++; l.members > maxMembers {
		return fmt.Errorf("a line of the answer has more than %d members of objects", maxMembers)
	}
	return nil
}
