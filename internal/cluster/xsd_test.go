package cluster

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
)

// xsd returns the vocabulary as an XML Schema (docs/reference/cluster.xsd), for editors. A document is valid by it if
// the parser's first stage accepts it. The conditions that the builder checks cannot be expressed in it.
func xsd() []byte {
	w := &xsdWriter{}
	w.line(`<?xml version="1.0" encoding="UTF-8"?>`)
	w.line(`<!-- Generated from the parser's table of elements and attributes. -->`)
	w.open(`xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"`)
	root := vocabulary()
	w.line(`<xs:element name=%q type=%q/>`, root.name, root.name)
	w.complexType(root, root.name)
	w.kinds(root, map[string]bool{})
	w.close("xs:schema")
	return w.out.Bytes()
}

type xsdWriter struct {
	out   bytes.Buffer
	depth int
}

func (w *xsdWriter) line(format string, args ...any) {
	w.out.WriteString(strings.Repeat("  ", w.depth))
	fmt.Fprintf(&w.out, format, args...)
	w.out.WriteByte('\n')
}

func (w *xsdWriter) open(tag string) {
	w.line("<%s>", tag)
	w.depth++
}

func (w *xsdWriter) close(tag string) {
	w.depth--
	w.line("</%s>", tag)
}

func (w *xsdWriter) doc(text string) {
	w.line("<xs:annotation><xs:documentation>%s</xs:documentation></xs:annotation>",
		escape(strings.ReplaceAll(text, "`", "")))
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a Buffer does not fail
	return b.String()
}

// complexType writes the type of an element, and the types of its children. The name of a type is the path to the
// element, "cluster.image.file".
func (w *xsdWriter) complexType(e *element, name string) {
	w.open(fmt.Sprintf("xs:complexType name=%q", name))
	w.doc(e.doc)
	if e.text {
		w.open("xs:simpleContent")
		w.open(`xs:extension base="xs:string"`)
		w.attributes(e)
		w.close("xs:extension")
		w.close("xs:simpleContent")
	} else {
		w.content(e, name)
		w.attributes(e)
	}
	w.close("xs:complexType")
	for _, c := range e.children {
		w.complexType(c, name+"."+c.name)
	}
}

// content writes the children, which may stand in any order.
func (w *xsdWriter) content(e *element, name string) {
	if len(e.children) == 0 {
		return
	}
	var free, counted []*element
	for _, c := range e.children {
		if c.required || c.maxCount == 1 {
			counted = append(counted, c)
		} else {
			free = append(free, c)
		}
	}
	w.open("xs:sequence")
	w.sequence(free, counted, name)
	w.close("xs:sequence")
}

// sequence writes the children that may follow, as an automaton, because XML Schema 1.0 demands that each element
// determines its branch. The counted children must occur at least or at most once, and none of them has occurred yet.
// The sequence is: any number of free children, then one of the counted, then the same again without it. With n counted
// children there are n! branches; no element has more than two.
func (w *xsdWriter) sequence(free, counted []*element, parent string) {
	if len(free) > 0 {
		w.open(`xs:choice minOccurs="0" maxOccurs="unbounded"`)
		for _, c := range free {
			w.child(c, parent)
		}
		w.close("xs:choice")
	}
	if len(counted) == 0 {
		return
	}
	occurs := ` minOccurs="0"`
	if slices.ContainsFunc(counted, func(c *element) bool { return c.required }) {
		occurs = ""
	}
	w.open("xs:choice" + occurs)
	for i, c := range counted {
		w.open("xs:sequence")
		w.child(c, parent)
		rest := slices.Delete(slices.Clone(counted), i, i+1)
		if c.maxCount == 1 {
			w.sequence(free, rest, parent)
		} else {
			w.sequence(append(slices.Clone(free), c), rest, parent)
		}
		w.close("xs:sequence")
	}
	w.close("xs:choice")
}

func (w *xsdWriter) child(c *element, parent string) {
	w.line(`<xs:element name=%q type="%s.%s"/>`, c.name, parent, c.name)
}

func (w *xsdWriter) attributes(e *element) {
	for _, a := range e.attributes {
		use := ""
		if a.required {
			use = ` use="required"`
		}
		if a.kind.values == nil {
			w.open(fmt.Sprintf("xs:attribute name=%q type=%q%s", a.name, a.kind.name, use))
			w.doc(a.doc)
			w.close("xs:attribute")
			continue
		}
		w.open(fmt.Sprintf("xs:attribute name=%q%s", a.name, use))
		w.doc(a.doc)
		w.open("xs:simpleType")
		w.open(`xs:restriction base="xs:string"`)
		for _, v := range a.kind.values {
			w.line(`<xs:enumeration value="%s"/>`, escape(v))
		}
		w.close("xs:restriction")
		w.close("xs:simpleType")
		w.close("xs:attribute")
	}
}

// kinds writes a type for each kind of value, once.
func (w *xsdWriter) kinds(e *element, seen map[string]bool) {
	for _, a := range e.attributes {
		if a.kind.values != nil || seen[a.kind.name] {
			continue
		}
		seen[a.kind.name] = true
		w.open(fmt.Sprintf("xs:simpleType name=%q", a.kind.name))
		w.doc(a.kind.want)
		w.open(`xs:restriction base="xs:string"`)
		w.line(`<xs:pattern value="%s"/>`, escape(a.kind.regexp))
		w.close("xs:restriction")
		w.close("xs:simpleType")
	}
	for _, c := range e.children {
		w.kinds(c, seen)
	}
}
