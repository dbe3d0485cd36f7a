package cluster

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// item is one element of the document. It and its attributes have been checked against the vocabulary, and against
// nothing else.
type item struct {
	element  *element
	at       location
	values   []value
	children []*item
	text     []byte // without a line end directly after the start tag
	textAt   location
	counts   []int // of its children, by their index in the vocabulary
}

// value is one attribute.
type value struct {
	name string
	text string
	at   location // of the text
	bad  bool     // not of the attribute's kind, which has been reported
}

// get returns the attribute's value. ok is false if the attribute is absent or was reported as malformed.
func (it *item) get(name string) (v value, ok bool) {
	for _, v := range it.values {
		if v.name == name {
			return v, !v.bad
		}
	}
	return value{at: it.at}, false
}

// has reports whether the attribute is present, well-formed or not.
func (it *item) has(name string) bool {
	return slices.ContainsFunc(it.values, func(v value) bool { return v.name == name })
}

// all returns the children with one of these names.
func (it *item) all(names ...string) []*item {
	var found []*item
	for _, c := range it.children {
		if slices.Contains(names, c.element.name) {
			found = append(found, c)
		}
	}
	return found
}

// reader turns XML into items.
type reader struct {
	*report
	file     *file
	decoder  *xml.Decoder
	root     *item
	open     []*item // from the root to the innermost element; nil where an unknown element is skipped
	elements int
	regexps  map[string]*regexp.Regexp
}

// readDocument checks the structure of a document and returns its root element. It returns nil if the document cannot
// be examined further: the XML is malformed, or there is no root element.
func readDocument(r *report, f *file) *item {
	d := xml.NewDecoder(bytes.NewReader(f.data))
	d.CharsetReader = func(string, io.Reader) (io.Reader, error) {
		return nil,
			errors.New("the encoding must be UTF-8")
	}
	rd := &reader{report: r, file: f, decoder: d, regexps: map[string]*regexp.Regexp{}}
	if form := notXML(f.data); form != "" {
		r.add(location{f, 0}, "a description is XML, and this looks like %s", form).
			withHint("docs/quickstart.md has a first description; docs/reference/cluster.md lists the elements")
		return nil
	}
	for {
		start := int(d.InputOffset())
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			rd.syntaxError(err)
			return nil
		}
		if !rd.token(token, start) {
			return nil
		}
	}
	if rd.root == nil && len(r.found) == 0 {
		r.add(location{f, 0}, "the description is empty: a <cluster> element is missing")
	}
	return rd.root
}

// syntaxError reports an error of the XML decoder.
func (rd *reader) syntaxError(err error) {
	at := location{rd.file, int(rd.decoder.InputOffset())}
	var se *xml.SyntaxError
	if errors.As(err, &se) {
		rd.add(at, "malformed XML: %s", se.Msg)
		return
	}
	rd.add(at, "malformed XML: %v", err)
}

// token handles one token that begins at offset start. It returns false if the rest must not be read.
func (rd *reader) token(token xml.Token, start int) bool {
	switch t := token.(type) {
	case xml.StartElement:
		if rd.elements++; rd.elements > maxElements {
			rd.add(location{rd.file, start}, "more than %d elements", maxElements)
			return false
		}
		rd.start(t, start)
	case xml.EndElement:
		it := rd.open[len(rd.open)-1]
		rd.open = rd.open[:len(rd.open)-1]
		if it != nil {
			rd.end(it)
		}
	case xml.CharData:
		rd.text(t, start)
	case xml.Directive:
		rd.add(location{rd.file, start}, "document types and entities are not allowed")
		return false
	}
	return true
}

func (rd *reader) start(t xml.StartElement, start int) {
	at := location{rd.file, start}
	name := t.Name.Local
	if t.Name.Space != "" {
		name = t.Name.Space + ":" + name
	}
	e := rd.lookUp(name, at)
	if e == nil {
		rd.open = append(rd.open, nil)
		return
	}
	it := &item{element: e, at: at, counts: make([]int, len(e.children))}
	rd.attributes(it, t.Attr)
	if len(rd.open) == 0 {
		rd.root = it
	} else {
		parent := rd.open[len(rd.open)-1]
		parent.children = append(parent.children, it)
	}
	rd.open = append(rd.open, it)
}

// lookUp returns the vocabulary's entry for an element that starts at a location. It reports an element that is not in
// the vocabulary, and returns nil for it and for everything inside it.
func (rd *reader) lookUp(name string, at location) *element {
	if len(rd.open) == 0 {
		return rd.rootElement(name, at)
	}
	parent := rd.open[len(rd.open)-1]
	if parent == nil {
		return nil
	}
	names := make([]string, 0, len(parent.element.children))
	for i, c := range parent.element.children {
		if c.name == name {
			return rd.countChild(parent, i, at)
		}
		names = append(names, c.name)
	}
	rd.add(at, "unknown element <%s> in <%s>", shorten(name), parent.element.name).
		advise(func() string { return elementHint(name) }, name, slices.Values(names))
	return nil
}

func (rd *reader) rootElement(name string, at location) *element {
	root := vocabulary()
	switch {
	case rd.root != nil:
		rd.add(at, "a second root element <%s>", shorten(name))
	case name != root.name:
		rd.add(at, "the root element is <%s>, and must be <%s>", shorten(name), root.name)
	default:
		return root
	}
	return nil
}

// countChild counts another child of the parent's i-th kind and returns its entry. It returns nil, and reports it, if
// there are too many.
func (rd *reader) countChild(parent *item, i int, at location) *element {
	c := parent.element.children[i]
	parent.counts[i]++
	if parent.counts[i] > c.maxCount {
		if c.maxCount == 1 {
			rd.add(at, "a second <%s> in <%s>", c.name, parent.element.name)
		} else if parent.counts[i] == c.maxCount+1 {
			rd.add(at, "more than %d <%s> in <%s>", c.maxCount, c.name, parent.element.name)
		}
		return nil
	}
	return c
}

func (rd *reader) end(it *item) {
	for i, c := range it.element.children {
		if c.required && it.counts[i] == 0 {
			rd.add(it.at, "<%s> has no <%s>", it.element.name, c.name)
		}
	}
	if rest, ok := bytes.CutPrefix(it.text, []byte("\n")); ok {
		it.text = rest
		it.textAt = it.textAt.plus(1)
		if it.textAt.offset < len(rd.file.data) && rd.file.data[it.textAt.offset-1] == '\r' {
			it.textAt = it.textAt.plus(1)
		}
	}
}

func (rd *reader) text(t xml.CharData, start int) {
	if len(rd.open) > 0 {
		it := rd.open[len(rd.open)-1]
		if it == nil {
			return
		}
		if it.element.text {
			if it.text == nil {
				it.textAt = location{rd.file, start}
			}
			it.text = append(it.text, t...)
			return
		}
	}
	if blank := len(t) - len(bytes.TrimLeft(t, " \t\r\n")); blank < len(t) {
		rd.add(location{rd.file, start + blank}, "unexpected text: only elements are allowed here")
	}
}

// attributes checks the attributes of the start tag that the decoder has just read.
func (rd *reader) attributes(it *item, attrs []xml.Attr) {
	offsets := attributeOffsets(rd.file.data[it.at.offset:rd.decoder.InputOffset()])
	for i, a := range attrs {
		if isSchemaReference(it, a.Name) {
			continue
		}
		v := value{name: a.Name.Local, text: normalize(a.Value), at: it.at}
		nameAt := it.at
		if i < len(offsets) {
			nameAt, v.at = it.at.plus(offsets[i].name), it.at.plus(offsets[i].value)
		}
		if a.Name.Space != "" {
			v.name = a.Name.Space + ":" + v.name
		}
		rd.attribute(it, v, nameAt)
	}
	for _, a := range it.element.attributes {
		if a.required && !it.has(a.name) {
			rd.add(it.at, "<%s> has no attribute %s", it.element.name, a.name)
		}
	}
}

func (rd *reader) attribute(it *item, v value, nameAt location) {
	i := slices.IndexFunc(it.element.attributes, func(a attribute) bool { return a.name == v.name })
	switch {
	case i < 0:
		var names []string
		for _, a := range it.element.attributes {
			names = append(names, a.name)
		}
		rd.add(nameAt, "unknown attribute %s of <%s>", v.name, it.element.name).
			advise(func() string { return attributeHint(v.name, it.element.name) }, v.name, slices.Values(names))
	case it.has(v.name):
		rd.add(nameAt, "attribute %s of <%s> is given twice", v.name, it.element.name)
	default:
		v.bad = !rd.matches(it.element.attributes[i], v)
		it.values = append(it.values, v)
	}
}

// matches reports whether v has the form that its kind demands. If not, it adds a problem.
func (rd *reader) matches(a attribute, v value) bool {
	if a.kind.values != nil {
		if slices.Contains(a.kind.values, v.text) {
			return true
		}
		rd.add(v.at, "%s=%q: must be one of %s", a.name, shorten(v.text), strings.Join(a.kind.values, ", ")).
			suggest(v.text, slices.Values(a.kind.values))
		return false
	}
	re := rd.regexps[a.kind.regexp]
	if re == nil {
		re = regexp.MustCompile(`^(?:` + a.kind.regexp + `)$`)
		rd.regexps[a.kind.regexp] = re
	}
	if re.MatchString(v.text) {
		return true
	}
	finding := rd.add(v.at, "%s=%q: must be %s", a.name, shorten(v.text), a.kind.want)
	if hint := formHint(a, v.text); hint != "" {
		finding.withHint("%s", hint)
	}
	return false
}

// formHint says what to write in place of a value that does not have the form of its attribute; "" if that is not
// known.
func formHint(a attribute, text string) string {
	host, domain, dotted := strings.Cut(text, ".")
	switch {
	case strings.Contains(text, "$") && a.kind.expression():
		return "numbers are expressions in braces, such as {node} or {i:02}"
	case a.kind.name == kindHost().name && dotted && validHost(host):
		return fmt.Sprintf("without the domain: %s, and <cluster domain=%q>", host, domain)
	case a.kind.name == kindCard().name && strings.Contains(text, ":"):
		return "a second address of a card has no place here, but a VLAN on it has: vlan and on of <interface>"
	case a.name == "subnet" && strings.Contains(text, ":"):
		return "nodes boot by IPv4: write the IPv4 subnet here, and this one as subnet6"
	}
	return ""
}

// isSchemaReference reports whether the attribute name is one by which an editor finds the XSD: xmlns:xsi or
// xsi:noNamespaceSchemaLocation, on the root element.
func isSchemaReference(it *item, name xml.Name) bool {
	const xsi = "http://www.w3.org/2001/XMLSchema-instance"
	return it.element.name == "cluster" &&
		(name.Space == "xmlns" && name.Local == "xsi" || name.Space == xsi && name.Local == "noNamespaceSchemaLocation")
}

// normalize replaces line ends and tabs in an attribute's value by spaces, as XML 1.0, section 3.3.3 demands.
// encoding/xml does not do that.
func normalize(s string) string {
	if !strings.ContainsAny(s, "\t\r\n") {
		return s
	}
	return strings.NewReplacer("\t", " ", "\r", " ", "\n", " ").Replace(s)
}

// shorten returns s, cut to a length that keeps messages readable.
func shorten(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}

type attributeOffset struct{ name, value int }

// attributeOffsets finds the attributes in a start tag, because encoding/xml does not report their positions. The
// decoder has accepted the tag, so it is well-formed.
func attributeOffsets(tag []byte) []attributeOffset {
	var offsets []attributeOffset
	i := bytes.IndexAny(tag, " \t\r\n")
	for i >= 0 && i < len(tag) {
		i += len(tag[i:]) - len(bytes.TrimLeft(tag[i:], " \t\r\n/>"))
		equals := bytes.IndexByte(tag[i:], '=')
		if equals < 0 {
			break
		}
		open := bytes.IndexAny(tag[i+equals:], `"'`)
		if open < 0 {
			break
		}
		o := attributeOffset{name: i, value: i + equals + open + 1}
		offsets = append(offsets, o)
		length := bytes.IndexByte(tag[o.value:], tag[o.value-1])
		if length < 0 {
			break
		}
		i = o.value + length + 1
	}
	return offsets
}
