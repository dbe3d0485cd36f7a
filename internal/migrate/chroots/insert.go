package chroots

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"
)

// XML returns the <image> element of a root, indented by two spaces.
func (r *Root) XML() string {
	var b strings.Builder
	fmt.Fprintf(&b, "  <image name=\"%s\" arch=\"%s\" master=\"%s\"", escape(r.Name), cmp.Or(r.Arch, "amd64"),
		escape("dir:"+r.Path))
	if len(r.Excludes) == 0 {
		return b.String() + "/>\n"
	}
	b.WriteString(">\n")
	for _, pattern := range r.Excludes {
		b.WriteString(excludeElement(pattern))
	}
	return b.String() + "  </image>\n"
}

func excludeElement(pattern string) string {
	return "    <exclude path=\"" + escape(pattern) + "\"/>\n"
}

func escape(text string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(text)) // a buffer takes everything
	return b.String()
}

// element is an <image> of a description, and where it stands.
type element struct {
	name, master  string
	start, inside int // of its start tag, and after it
	end           int // of its end tag, after the spaces before it; that of <image/> is inside
	excludes      []string
}

// edit replaces bytes of a description.
type edit struct {
	at, until int
	text      string
}

// Insert adds roots to a description. A root whose directory is the master of images there adds its exclude rules to
// them; every other one becomes a new <image> before the end of the description. All other bytes remain.
func Insert(description []byte, roots []Root) ([]byte, error) {
	images, end, err := scan(description)
	if err != nil {
		return nil, err
	}
	var edits []edit
	added := ""
	for _, r := range roots {
		known := false
		for _, im := range images {
			switch {
			case im.master == "dir:"+r.Path:
				known = true
				edits = append(edits, im.add(&r, description)...)
			case im.name == r.Name:
				return nil, fmt.Errorf("image %s has another master, %s", im.name, im.master)
			}
		}
		if !known {
			added += r.XML()
		}
	}
	edits = append(edits, edit{end, end, added})
	slices.SortStableFunc(edits, func(a, b edit) int { return cmp.Compare(b.at, a.at) })
	for _, e := range edits {
		description = slices.Concat(description[:e.at], []byte(e.text), description[e.until:])
	}
	return description, nil
}

// add returns the edit that adds the exclude rules of a root which an element lacks.
func (im *element) add(r *Root, description []byte) []edit {
	text := ""
	for _, pattern := range r.Excludes {
		if !slices.Contains(im.excludes, pattern) {
			text += excludeElement(pattern)
		}
	}
	switch {
	case text == "":
		return nil
	case im.inside == im.end: // <image/>
		slash := im.start + bytes.LastIndexByte(description[im.start:im.inside], '/')
		return []edit{{slash, im.inside, ">\n" + text + "  </image>"}}
	}
	return []edit{{im.inside, im.inside, "\n" + strings.TrimSuffix(text, "\n")}}
}

// scan finds the images of a description, and the start of its end tag.
func scan(description []byte) (images []element, end int, err error) {
	d := xml.NewDecoder(bytes.NewReader(description))
	var open []string
	for {
		start := int(d.InputOffset())
		token, err := d.Token()
		if err != nil && len(open) == 0 && end > 0 {
			return images, end, nil
		}
		if err != nil {
			return nil, 0, err
		}
		switch t := token.(type) {
		case xml.StartElement:
			open = append(open, t.Name.Local)
			if len(open) == 2 && t.Name.Local == "image" {
				im := element{name: attribute(t, "name"), master: attribute(t, "master"), start: start}
				im.inside = int(d.InputOffset())
				images = append(images, im)
			}
			if len(open) == 3 && t.Name.Local == "exclude" && open[1] == "image" {
				im := &images[len(images)-1]
				im.excludes = append(im.excludes, attribute(t, "path"))
			}
		case xml.EndElement:
			switch {
			case len(open) == 1:
				end = start
			case len(open) == 2 && t.Name.Local == "image":
				images[len(images)-1].end = start
			}
			open = open[:len(open)-1]
		}
	}
}

func attribute(t xml.StartElement, name string) string {
	for _, a := range t.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}
