package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
)

// maxSteps bounds the writes of one rendering, and so its loops: {{range 1000000000000}} would run for hours.
const maxSteps = 2_000_000

// Rendered is one node file's content for one node.
type Rendered struct {
	Content []byte

	// Common: the template does not use the node or its servers, so that the content is the same for every node of
	// the image.
	Common bool
}

// Render executes the file's template for a node of an image. The result depends on the arguments alone, so that all
// servers render the same bytes from the same description.
func (f *File) Render(c *Cluster, im *Image, n *Node) (Rendered, error) {
	tmpl := f.parsed
	if tmpl == nil {
		var err error
		if tmpl, err = parseTemplate(f.Template); err != nil {
			return Rendered{}, fmt.Errorf("render /%s: %v: %v", f.Path, f.Where, err)
		}
	}
	d := &templateData{Cluster: c, Image: im, node: n}
	out := &limitedBuffer{}
	if err := tmpl.Execute(out, d); err != nil {
		return Rendered{}, fmt.Errorf("render /%s for node %s: %v: %w", f.Path, n.Name, f.Where, err)
	}
	return Rendered{Content: out.text.Bytes(), Common: !d.usesNode}, nil
}

// templateData is the dot of a template. Node and Server are methods so that their use is noticed.
type templateData struct {
	Cluster *Cluster
	Image   *Image

	node     *Node
	usesNode bool
}

// Node returns the node for which the file is rendered.
func (d *templateData) Node() *Node {
	d.usesNode = true
	return d.node
}

// Server returns the node's first image server.
func (d *templateData) Server() (*Server, error) {
	d.usesNode = true
	if len(d.node.Servers) == 0 {
		return nil, fmt.Errorf("node %s has no server", d.node.Name)
	}
	return d.node.Servers[0], nil
}

// limitedBuffer is a buffer of at most maxRendered bytes that accepts at most maxSteps writes.
type limitedBuffer struct {
	text  bytes.Buffer
	steps int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.steps++; b.steps > maxSteps {
		return 0, errors.New("the template runs for too long")
	}
	if b.text.Len()+len(p) > maxRendered {
		return 0, fmt.Errorf("the file is larger than %d bytes", maxRendered)
	}
	return b.text.Write(p)
}

// templateFunctions are the functions that templates may call in addition to those of text/template. The text that a
// function works on is its last argument, for use in pipelines.
func templateFunctions() template.FuncMap {
	arithmetic := func(op byte) func(a, b int) (int, error) {
		return func(a, b int) (int, error) {
			v, reason := operate(op, int64(a), int64(b))
			if reason != "" {
				return 0, fmt.Errorf("%d %c %d %s", a, op, b, reason)
			}
			return int(v), nil
		}
	}
	return template.FuncMap{
		"add":     arithmetic('+'),
		"sub":     arithmetic('-'),
		"mul":     arithmetic('*'),
		"div":     arithmetic('/'),
		"mod":     arithmetic('%'),
		"lower":   strings.ToLower,
		"upper":   strings.ToUpper,
		"trim":    strings.TrimSpace,
		"split":   func(separator, s string) []string { return strings.Split(s, separator) },
		"replace": func(old, with, s string) string { return strings.ReplaceAll(s, old, with) },
		"join":    joinAny,
		"nodes":   func(c *Cluster, set string) ([]*Node, error) { return c.Select(set) },
		"fold":    Fold,
		"netmask": netmask,
	}
}

// joinAny joins a list of strings or addresses.
func joinAny(separator string, list any) (string, error) {
	switch l := list.(type) {
	case []string:
		return strings.Join(l, separator), nil
	case []netip.Addr:
		texts := make([]string, len(l))
		for i, a := range l {
			texts[i] = a.String()
		}
		return strings.Join(texts, separator), nil
	}
	return "", fmt.Errorf("join: want a list of texts or addresses, not %T", list)
}

// netmask returns the mask of an IPv4 subnet, "255.255.0.0".
func netmask(p netip.Prefix) string {
	m := ^uint32(0)
	if p.Bits() < 32 {
		m = ^(m >> max(p.Bits(), 0))
	}
	return netip.AddrFrom4([4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)}).String()
}

// parseTemplate parses a template and inserts an empty text into every loop and definition. Each execution of that text
// is a write, so limitedBuffer ends a template that runs for too long. text/template itself has no limit.
func parseTemplate(text string) (*template.Template, error) {
	tmpl, err := template.New("").Option("missingkey=error").Funcs(templateFunctions()).Parse(text)
	if err != nil {
		return nil, err
	}
	step := &parse.TextNode{NodeType: parse.NodeText, Text: []byte{}}
	for _, t := range tmpl.Templates() {
		if t.Tree != nil && t.Root != nil {
			addSteps(t.Root, step)
			t.Root.Nodes = append([]parse.Node{step}, t.Root.Nodes...)
		}
	}
	return tmpl, nil
}

// addSteps inserts step at the beginning of every loop's body.
func addSteps(list *parse.ListNode, step parse.Node) {
	if list == nil {
		return
	}
	for _, n := range list.Nodes {
		switch n := n.(type) {
		case *parse.RangeNode:
			addSteps(n.List, step)
			addSteps(n.ElseList, step)
			n.List.Nodes = append([]parse.Node{step}, n.List.Nodes...)
		case *parse.IfNode:
			addSteps(n.List, step)
			addSteps(n.ElseList, step)
		case *parse.WithNode:
			addSteps(n.List, step)
			addSteps(n.ElseList, step)
		}
	}
}

// checkTemplates renders every image's files for the first node that boots the image, or else for any node. Wrong
// fields and functions are then found before a node needs the file.
func (b *builder) checkTemplates() {
	if len(b.found) > 0 || len(b.cluster.Nodes) == 0 {
		return // what is missing in the cluster would cause errors in correct templates
	}
	first := map[*Image]*Node{}
	for _, n := range b.cluster.Nodes {
		setFirst(first, n.Image, n)
	}
	for _, im := range b.cluster.Images {
		n := first[im]
		if n == nil {
			n = b.cluster.Nodes[0]
		}
		for _, f := range im.Files {
			if _, err := f.Render(b.cluster, im, n); err != nil {
				b.templateProblem(f, errors.Unwrap(err))
			}
		}
	}
}

// templateProblem reports an error of text/template at its position in the description. Such errors read
// "template: :LINE:COLUMN: …" or "template: :LINE: …", with lines from 1 and columns from 0.
func (b *builder) templateProblem(f *File, err error) {
	line, column := 1, 0
	message := strings.TrimPrefix(err.Error(), "template: :")
	for _, n := range []*int{&line, &column} {
		number, rest, ok := strings.Cut(message, ":")
		v, convErr := strconv.Atoi(number)
		if !ok || convErr != nil {
			break
		}
		*n, message = v, rest
	}
	message = strings.TrimSpace(message)
	message = strings.ReplaceAll(message, `executing "" at `, "")
	message = strings.ReplaceAll(message, "*cluster.templateData", "the template's data")
	b.add(templateLocation(f, line, column), "template of /%s: %s", f.Path, message)
}

// templateLocation returns the location of a line and column of the template in the file that contains it.
func templateLocation(f *File, line, column int) location {
	at := f.at
	for range line - 1 {
		n := bytes.IndexByte(at.file.data[at.offset:], '\n')
		if n < 0 {
			break
		}
		at = at.plus(n + 1)
	}
	at.offset = min(at.offset+column, len(at.file.data))
	return at
}
