// Package inventory reads lists of hardware addresses as people have them: tables from a spreadsheet, /etc/ethers,
// xCAT's mac table.
//
// # Format
//
// A list is a text in UTF-8. Its columns are separated by commas, semicolons, tabs or spaces; the first line decides.
// If the first line names the columns, columns with other names are ignored. Without such a line, each line has the
// hardware address and the name of the node in any column, and a column between the two, if there is one, is the
// interface. Lines that begin with # are comments, except a first line that names the columns, as xCAT writes it.
//
// A hardware address may be a list as in xCAT: MAC!NAME|MAC!NAME. A MAC whose name is *NOIP* is left out: its card has
// no address and no name.
//
// # What it must not know
//
// What a node is: its caller resolves names.
package inventory

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// maxProblems bounds the list of problems.
const maxProblems = 1000

// Field is a text and its place: the line, and the byte in the line, both from 1.
type Field struct {
	Text         string
	Line, Column int
}

// Row is the hardware address of one card. Its interface is empty if the list does not say which card it is.
type Row struct{ Node, Interface, MAC Field }

// Problem is one thing wrong with a list.
type Problem struct {
	Line, Column  int // from 1
	Message, Hint string
}

// Parse returns the rows of a list, and what is wrong with it. isNode reports whether a text names a node. MACs of rows
// are not parsed.
func Parse(data []byte, isNode func(string) bool) ([]Row, []Problem) {
	p := &parser{isNode: isNode}
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		p.add(Field{Line: 1, Column: 1}, "the file is in UTF-16", "save it as CSV in UTF-8")
		return nil, p.problems
	}
	p.read(data)
	return p.rows, p.problems
}

type parser struct {
	isNode   func(string) bool
	rows     []Row
	problems []Problem

	reader *csv.Reader
	fields []Field // of the line at hand
	spaces bool    // columns are separated by spaces
	begun  bool    // a line has been read that is no comment
	skip   int     // lines before those that reader reads
	shift  int     // bytes before the first line that reader reads

	columns *columns // as the first line names them; nil: it does not
}

// columns are the indexes of columns; -1: there is none.
type columns struct{ node, card, mac, disable, count int }

func (p *parser) add(at Field, message, hint string) {
	if len(p.problems) < maxProblems {
		p.problems = append(p.problems, Problem{at.Line, at.Column, message, hint})
	}
}

// read reads all lines.
func (p *parser) read(data []byte) {
	p.start(data)
	for first := true; ; {
		record, err := p.record()
		pe, malformed := errors.AsType[*csv.ParseError](err)
		switch {
		case err == io.EOF:
			return
		case malformed:
			p.add(p.place(pe.Line, pe.Column), pe.Err.Error(), "")
			first = false
		case len(record) == 0: // an empty line or a comment
		case first:
			first = false
			if !p.first(record) {
				return
			}
		default:
			p.row(record)
		}
	}
}

// start finds out how columns are separated, and makes the reader.
func (p *parser) start(data []byte) {
	if rest, ok := bytes.CutPrefix(data, []byte("\ufeff")); ok {
		data, p.shift = rest, len(data)-len(rest)
	}
	separator := byte(0)
	if line, rest, ok := bytes.Cut(data, []byte("\n")); ok && len(bytes.TrimSpace(line)) == 5 &&
		bytes.HasPrefix(line, []byte("sep=")) { // a spreadsheet program reads it
		separator, data, p.skip, p.shift = line[4], rest, 1, 0
	}
	if separator == 0 {
		separator = separatorOf(firstLine(data))
	}
	if p.spaces = separator == ' '; p.spaces {
		data = bytes.ReplaceAll(data, []byte("\t"), []byte(" "))
	}
	r := csv.NewReader(bytes.NewReader(data))
	r.FieldsPerRecord = -1
	r.ReuseRecord = true // its texts are kept, the slice is not
	r.TrimLeadingSpace = true
	r.LazyQuotes = p.spaces
	r.Comma = rune(separator)
	p.reader = r
	p.rows = make([]Row, 0, min(bytes.Count(data, []byte("\n"))+1, len(data)/shortestLine))
}

// shortestLine is fewer bytes than a line with a name and a hardware address has.
const shortestLine = 14

// firstLine returns the first line that is no comment, or is one that names the columns.
func firstLine(data []byte) string {
	for len(data) > 0 {
		var raw []byte
		raw, data, _ = bytes.Cut(data, []byte("\n"))
		line := strings.TrimSpace(string(raw))
		named := func(separator string) bool { return isNamedComment(strings.Split(line, separator)) }
		if line != "" && (line[0] != '#' || slices.ContainsFunc([]string{",", ";", "\t"}, named)) {
			return line
		}
	}
	return ""
}

// separatorOf returns what separates the columns of the first line: that with which a column is a hardware address, or
// names one. In a list that does not name its columns, tabs count as spaces.
func separatorOf(line string) byte {
	for _, separator := range []string{"\t", ";", ","} {
		for _, f := range strings.Split(line, separator) {
			f = strings.Trim(f, "\" ")
			if columnOf(f) == "mac" && f != line || separator != "\t" && hasMAC(f) && f != line {
				return separator[0]
			}
		}
	}
	if i := strings.IndexAny(line, "\t;,"); i >= 0 && !slices.ContainsFunc(strings.Fields(line), hasMAC) {
		return line[i]
	}
	return ' '
}

// isNamedComment reports whether the fields of a comment name the columns, as in xCAT: #node,interface,mac,comments.
func isNamedComment(fields []string) bool {
	return columnOf(fields[0]) != "" &&
		slices.ContainsFunc(fields, func(f string) bool { return columnOf(f) == "mac" })
}

// record returns the fields of the next line, until the next call; none if it is empty or a comment.
func (p *parser) record() ([]Field, error) {
	record, err := p.reader.Read()
	if err != nil {
		return nil, err
	}
	fields := p.fields[:0]
	for i, text := range record {
		fields = append(fields, p.place(p.reader.FieldPos(i)))
		fields[i].Text = strings.TrimSpace(text)
		if p.spaces && i > 0 && strings.HasPrefix(text, "#") {
			fields = fields[:i]
			break
		}
	}
	p.fields = fields
	if !slices.ContainsFunc(fields, func(f Field) bool { return f.Text != "" }) || p.begun && isComment(fields) {
		return nil, nil
	}
	if isComment(fields) && !isNamedComment(texts(fields)) {
		return nil, nil
	}
	p.begun = true
	return fields, nil
}

func isComment(fields []Field) bool { return strings.HasPrefix(fields[0].Text, "#") }

func texts(fields []Field) []string {
	list := make([]string, len(fields))
	for i, f := range fields {
		list[i] = f.Text
	}
	return list
}

// place converts a place in what the reader reads to one in the file.
func (p *parser) place(line, column int) Field {
	if line == 1 {
		column += p.shift
	}
	return Field{Line: line + p.skip, Column: column}
}

// isHeader reports whether fields name the columns.
func isHeader(fields []Field) bool {
	known := func(f Field) bool { return columnOf(f.Text) != "" }
	address := func(f Field) bool { return hasMAC(f.Text) }
	return slices.ContainsFunc(fields, known) && !slices.ContainsFunc(fields, address)
}

// columnOf returns what a column of that name has: node, interface, mac, disable, or "" for anything else.
func columnOf(name string) string {
	name = strings.NewReplacer(" ", "", "_", "", "-", "", "#", "").Replace(strings.ToLower(name))
	switch name {
	case "node", "name", "nodename", "host", "hostname":
		return "node"
	case "interface", "iface", "nic", "card", "device", "netdev":
		return "interface"
	case "mac", "macaddress", "macaddr", "hwaddr", "hwaddress", "hardwareaddress", "ethernet", "ethernetaddress",
		"physicaladdress":
		return "mac"
	case "disable":
		return "disable"
	}
	return ""
}

const columnsHint = "the first line may name the columns: node,interface,mac"

// first handles the first line. It reports whether the lines after it can be read.
func (p *parser) first(fields []Field) bool {
	if isHeader(fields) {
		return p.header(fields)
	}
	if !slices.ContainsFunc(fields, func(f Field) bool { return hasMAC(f.Text) }) {
		p.add(fields[0], "the first line has no hardware address and does not name the columns", columnsHint)
		return false
	}
	p.row(fields)
	return true
}

// header finds the columns by their names.
func (p *parser) header(fields []Field) bool {
	c := &columns{-1, -1, -1, -1, len(fields)}
	ok := true
	named := map[string]*int{"node": &c.node, "interface": &c.card, "mac": &c.mac, "disable": &c.disable}
	for i, f := range fields {
		at := named[columnOf(f.Text)]
		switch {
		case at == nil:
		case *at >= 0:
			p.add(f, fmt.Sprintf("columns %q and %q mean the same", fields[*at].Text, f.Text), "rename one of them")
			ok = false
		default:
			*at = i
		}
	}
	for _, name := range []string{"node", "mac"} {
		if *named[name] < 0 {
			p.add(fields[0], fmt.Sprintf("the column %q is missing", name), columnsHint)
			ok = false
		}
	}
	p.columns = c
	return ok
}

// row handles a line that names a node.
func (p *parser) row(fields []Field) {
	if p.columns == nil {
		p.unnamed(fields)
		return
	}
	c := p.columns
	if len(fields) <= max(c.node, c.mac) {
		p.add(fields[0], fmt.Sprintf("%d columns, and the first line has %d", len(fields), c.count), "")
		return
	}
	r := Row{Node: fields[c.node], MAC: fields[c.mac]}
	if c.card >= 0 && c.card < len(fields) {
		r.Interface = fields[c.card]
	}
	disabled := c.disable >= 0 && c.disable < len(fields) &&
		slices.Contains([]string{"1", "yes"}, strings.ToLower(fields[c.disable].Text))
	if r.MAC.Text == "" || disabled {
		return
	}
	p.cards(r)
}

// unnamed handles a line of a list whose columns have no names.
func (p *parser) unnamed(fields []Field) {
	mac := slices.IndexFunc(fields, func(f Field) bool { return hasMAC(f.Text) })
	node := slices.IndexFunc(fields, func(f Field) bool { return p.isNode(f.Text) })
	if node < 0 {
		node = slices.IndexFunc(fields, func(f Field) bool { return f.Text != "" && !hasMAC(f.Text) })
	}
	switch {
	case mac < 0:
		wrong := slices.IndexFunc(fields, func(f Field) bool { return f.Text != "" && !p.isNode(f.Text) })
		if wrong < 0 {
			p.add(fields[0], "the line has no hardware address", columnsHint)
			return
		}
		p.add(fields[wrong], fmt.Sprintf("the line has no hardware address: %q is none", shorten(fields[wrong].Text)),
			"write six bytes, such as 52:54:00:4d:00:01")
		return
	case node < 0:
		p.add(fields[mac], "the line names no node", columnsHint)
		return
	}
	r := Row{Node: fields[node], MAC: fields[mac]}
	if mac == node+2 {
		r.Interface = fields[node+1]
	}
	p.cards(r)
}

// cards adds a row for each hardware address of a line.
func (p *parser) cards(r Row) {
	if r.Node.Text == "" {
		p.add(r.MAC, "the line names no node", "")
		return
	}
	if !strings.ContainsAny(r.MAC.Text, "!|") {
		p.rows = append(p.rows, r)
		return
	}
	for i, entry := range strings.Split(r.MAC.Text, "|") {
		text, name, _ := strings.Cut(strings.TrimSpace(entry), "!")
		named := name != ""
		one := r
		one.MAC.Text = strings.TrimSpace(text)
		switch {
		case text == "" && !named || name == "*NOIP*":
			continue
		case named && name != r.Node.Text:
			one.Node, one.Interface = r.MAC, Field{}
			one.Node.Text = name
		case !named && i > 0:
			p.add(r.MAC, fmt.Sprintf("%q does not say which card it is", shorten(entry)),
				fmt.Sprintf("write %s!%s-CARD", shorten(text), shorten(r.Node.Text)))
			continue
		}
		p.rows = append(p.rows, one)
	}
}

// hasMAC reports whether a text is a hardware address, or begins with one as a list in xCAT.
func hasMAC(text string) bool {
	if i := strings.IndexAny(text, "!|"); i >= 0 {
		text = text[:i]
	}
	_, ok := ParseMAC(text)
	return ok
}

// shorten bounds what a message quotes.
func shorten(text string) string {
	if len(text) > 60 {
		return text[:60] + "…"
	}
	return text
}
