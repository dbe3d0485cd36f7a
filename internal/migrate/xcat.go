package migrate

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strings"

	"dim/internal/migrate/describe"
)

// xcatState is what is known of an xCAT cluster before groups and regular expressions are applied to nodes. Attributes
// have the names that lsdef prints.
type xcatState struct {
	nodes    xcatObjects // nodes and groups
	isNode   map[string]bool
	networks xcatObjects
	images   xcatObjects
	site     map[string]xcatCell
	reasons  map[string]string // for attributes that are not carried over
	noted    map[string]bool   // attributes and types that have a note
	passive  []xcatCell        // nodes that xCAT does not boot
}

func newXCATState() *xcatState {
	return &xcatState{
		isNode: map[string]bool{}, site: map[string]xcatCell{}, noted: map[string]bool{}, reasons: xcatAttributes(),
	}
}

// xcatObjects are objects of one type, in the order of the files.
type xcatObjects struct {
	byName map[string]map[string]xcatCell
	order  []string
}

// xcatCell is a value and its place.
type xcatCell struct {
	text string
	at   describe.Place
}

// object returns the attributes of an object. One that is new has its place as the attribute "".
func (o *xcatObjects) object(name string, at describe.Place) map[string]xcatCell {
	if o.byName == nil {
		o.byName = map[string]map[string]xcatCell{}
	}
	if o.byName[name] == nil {
		o.byName[name], o.order = map[string]xcatCell{"": {name, at}}, append(o.order, name)
	}
	return o.byName[name]
}

// xcat reads a table as tabdump prints it, stanzas as lsdef -z prints them, or hosts.
func (r *reader) xcat(f File) error {
	text := strings.TrimPrefix(string(f.Data), "\ufeff")
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(trimmed, "#") && strings.Contains(trimmed, ","):
			return r.xcatTable(text)
		case trimmed == "" || trimmed[0] == '#':
		case strings.HasSuffix(trimmed, ":") && line[0] == trimmed[0]:
			return r.xcatStanzas(text)
		case isHostLine(trimmed):
			return r.hostsOrEthers(f)
		default:
			return fmt.Errorf("read %s: it is neither a table of tabdump, which begins with a header such as "+
				"#node,ip, nor stanzas of lsdef -z", f.Name)
		}
	}
	return nil
}

// xcatTable reads a table.
func (r *reader) xcatTable(text string) error {
	c := csv.NewReader(strings.NewReader(text))
	c.FieldsPerRecord, c.LazyQuotes = -1, true
	var header []string
	for {
		row, err := c.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", r.file, err)
		}
		line, _ := c.FieldPos(0)
		switch {
		case header == nil && strings.HasPrefix(row[0], "#") && len(row) > 1:
			header = row
			header[0] = strings.TrimPrefix(header[0], "#")
			if reason := xcatTableReason(header); reason != "" {
				r.note(line, "the table is not carried over: %s", reason)
				return nil
			}
		case header == nil || row[0] == "" || row[0][0] == '#':
		default:
			r.xcatRow(header, row, line)
		}
	}
}

// xcatRow reads one row of a table.
func (r *reader) xcatRow(header, row []string, line int) {
	row = row[:min(len(row), len(header))]
	for i, text := range row {
		if header[i] == "disable" && text != "" && text != "0" && !strings.EqualFold(text, "no") {
			return
		}
	}
	name, at := row[0], r.at(line)
	var objects *xcatObjects
	switch header[0] {
	case "key":
		if len(row) > 1 {
			r.xcats.site[name] = xcatCell{row[1], at}
		}
		return
	case "netname":
		objects = &r.xcats.networks
	case "imagename":
		objects = &r.xcats.images
	default:
		objects = &r.xcats.nodes
		if header[1] == "groups" {
			r.xcats.isNode[name] = true
		}
	}
	objects.object(name, at)
	for i, text := range row {
		if i > 0 && text != "" && header[i] != "comments" && header[i] != "disable" {
			r.xcatAttribute(objects, name, header[i], xcatCell{text, at})
		}
	}
}

// xcatStanzas reads what lsdef -z prints.
func (r *reader) xcatStanzas(text string) error {
	objects, name, n := (*xcatObjects)(nil), "", 0
	for line := range strings.Lines(text) {
		n++
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || trimmed[0] == '#' {
			continue
		}
		if strings.HasSuffix(trimmed, ":") && line[0] == trimmed[0] {
			objects, name = nil, strings.TrimSuffix(trimmed, ":")
			continue
		}
		attribute, value, found := strings.Cut(trimmed, "=")
		if name == "" || !found {
			return fmt.Errorf("read %s:%d: it is not a line attribute=value", r.file, n)
		}
		attribute, value = strings.TrimSpace(attribute), strings.Trim(strings.TrimSpace(value), `"`)
		switch {
		case attribute == "objtype":
			objects = r.xcatObjectsOf(value, name, n)
		case name == "clustersite":
			r.xcats.site[attribute] = xcatCell{value, r.at(n)}
		case objects != nil && value != "":
			r.xcatAttribute(objects, name, attribute, xcatCell{value, r.at(n)})
		}
	}
	return nil
}

// xcatObjectsOf returns the objects of a type, nil if they are not carried over.
func (r *reader) xcatObjectsOf(kind, name string, line int) (objects *xcatObjects) {
	switch kind {
	case "node", "group":
		objects = &r.xcats.nodes
		r.xcats.isNode[name] = r.xcats.isNode[name] || kind == "node"
	case "network":
		objects = &r.xcats.networks
	case "osimage":
		objects = &r.xcats.images
	case "site":
		return nil
	default:
		if !r.xcats.noted["type "+kind] {
			r.xcats.noted["type "+kind] = true
			r.note(line, "objects of type %s are not carried over: there is nothing like them here", kind)
		}
		return nil
	}
	objects.object(name, r.at(line))
	return objects
}

// xcatAttribute sets an attribute of an object, or notes once that it is not carried over. The first value is kept, as
// in a table with two rows for one node.
func (r *reader) xcatAttribute(objects *xcatObjects, name, attribute string, c xcatCell) {
	attribute, nic, ofNIC := strings.Cut(attribute, ".")
	reason, known := r.xcats.reasons[attribute]
	if !known {
		reason = "there is nothing like it here"
	}
	if reason != "" {
		if reason != xcatSilent && !r.xcats.noted[attribute] {
			r.xcats.noted[attribute] = true
			r.site.Note(c.at, "%s of %s is not carried over, nor of others: %s", attribute, name, reason)
		}
		return
	}
	object := objects.object(name, c.at)
	had := object[attribute]
	switch {
	case ofNIC && had.text != "": // nicips.ib0=… is nicips=ib0!… in the table
		object[attribute] = xcatCell{had.text + "," + nic + "!" + c.text, had.at}
	case ofNIC:
		object[attribute] = xcatCell{nic + "!" + c.text, c.at}
	case had.text == "":
		object[attribute] = c
	}
}
