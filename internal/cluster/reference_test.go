package cluster

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the reference page, the XSD and golden files")

const reference = "../../docs/reference"

// golden compares got with a file, or writes the file.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s is not up to date (run the test with -update, or make docs)\n%s", path, d)
	}
}

func TestXSDIsUpToDate(t *testing.T) { golden(t, filepath.Join(reference, "cluster.xsd"), xsd()) }

func TestReferencePageIsUpToDate(t *testing.T) {
	prose, err := os.ReadFile("testdata/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	var elements bytes.Buffer
	writeElement(&elements, vocabulary(), "")
	golden(t, filepath.Join(reference, "cluster.md"), bytes.Replace(prose, []byte("@ELEMENTS@\n"), elements.Bytes(), 1))
}

func writeElement(w *bytes.Buffer, e *element, parent string) {
	title := "`<" + e.name + ">`"
	if parent != "" {
		title += " in `<" + parent + ">`"
	}
	text := e.doc
	switch {
	case e.required:
		text += " At least one."
	case e.maxCount == 1:
		text += " At most one."
	}
	fmt.Fprintf(w, "### %s\n\n%s\n\n", title, wrap(text))
	if len(e.attributes) > 0 {
		w.WriteString("| attribute | value | default | |\n|---|---|---|---|\n")
	}
	for _, a := range e.attributes {
		value := a.kind.want
		if a.kind.values != nil {
			value = "`" + strings.Join(a.kind.values, "`, `") + "`"
		}
		byDefault := a.byDefault
		if a.required {
			byDefault = "*required*"
		}
		fmt.Fprintf(w, "| `%s` | %s | %s | %s |\n", a.name, value, byDefault, a.doc)
	}
	w.WriteString("\n")
	for _, c := range e.children {
		writeElement(w, c, e.name)
	}
}

// wrap breaks a paragraph into lines of at most 100 characters.
func wrap(text string) string {
	var lines []string
	var line string
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line+" "+word) > 100 {
			lines = append(lines, line)
			line = ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return strings.Join(append(lines, line), "\n")
}

// lint reports which documents xmllint finds valid by the XSD. It skips the test if there is no xmllint.
func lint(t *testing.T, documents [][]byte) []bool {
	t.Helper()
	tool, err := exec.LookPath("xmllint")
	if err != nil {
		t.Skip("xmllint (package libxml2-utils) is not installed")
	}
	dir := t.TempDir()
	args := []string{"--noout", "--nonet", "--schema", filepath.Join(dir, "xsd")}
	if err := os.WriteFile(filepath.Join(dir, "xsd"), xsd(), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, d := range documents {
		path := filepath.Join(dir, fmt.Sprint(i, ".xml"))
		if err := os.WriteFile(path, d, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	out, _ := exec.Command(tool, args...).CombinedOutput()
	if bytes.Contains(out, []byte("Schemas parser error")) {
		t.Fatalf("the XSD is wrong: %s", out)
	}
	ok := make([]bool, len(documents))
	for i := range documents {
		ok[i] = bytes.Contains(out, fmt.Appendf(nil, "%s validates\n", args[4+i]))
	}
	return ok
}

func TestXSDAgreesWithTheParser(t *testing.T) {
	var documents [][]byte
	for _, name := range []string{"small.xml", "marenostrum.xml"} {
		text, err := os.ReadFile(filepath.Join(examples, name))
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, text)
	}
	for _, tt := range mistakes() {
		if tt.name != "document type" && tt.name != "encoding" { // a schema says nothing of these
			documents = append(documents, []byte(strings.Replace(valid, tt.old, tt.new, 1)))
		}
	}
	seen := map[string]bool{}
	for _, e := range vocabulary().children {
		documents = append(documents, variations(e, seen)...)
	}
	accepted := 0
	for i, ok := range lint(t, documents) {
		r := &report{}
		readDocument(r, &file{name: "c.xml", data: documents[i]})
		if ok != (len(r.found) == 0) {
			t.Errorf("xmllint accepts: %v, parser: %v\n%s", ok, r.err(), documents[i])
		}
		if ok {
			accepted++
		}
	}
	t.Logf("%d documents, %d of them accepted by both", len(documents), accepted)
}

// variations puts values into attributes that some kinds accept and others do not. A kind is tried once, in the first
// attribute that has it.
func variations(e *element, seen map[string]bool) (documents [][]byte) {
	first := func(k kind) bool {
		name := k.name + strings.Join(k.values, " ")
		defer func() { seen[name] = true }()
		return !seen[name]
	}
	samples := []string{
		"", " ", "a", "A-b_c.d", "-a", "0", "07", "1234567890", "65535", "10.0.0.1", "10.0.0.1 10.0.0.2",
		" 10.0.0.1/24", "10.0.0.1/24", "1.2.3", "/", "/a b", "a/b", "0644", "0888", "1:2", "x{i:02}", "{(a-1)*6+b}%/",
		"yes", "off", "head", "head  image ", "dir:/x", "ssh://a@b", "ssh://a@b/", "rack1 blade2", "fstab", "a;b", "ä",
		"aa,bb", strings.Repeat("a", 64), strings.Repeat("a", 65), strings.Repeat("{", 257), "6.1.0-28+x~y",
	}
	for _, a := range e.attributes {
		if !first(a.kind) {
			continue
		}
		for _, s := range samples {
			documents = append(documents, minimal(e, a.name, s))
		}
	}
	for _, c := range e.children {
		for _, a := range c.attributes {
			if !first(a.kind) {
				continue
			}
			for _, s := range samples {
				documents = append(documents, fmt.Appendf(nil, "<cluster name=\"c\">%s<%s%s>%s</%s></cluster>",
					`<network name="n" subnet="1.2.3.4/5"/>`, e.name, required(e, ""), start(c, a.name, s), e.name))
			}
		}
	}
	return documents
}

func minimal(e *element, name, value string) []byte {
	var children strings.Builder
	for _, c := range e.children {
		if c.required {
			children.WriteString(start(c, "", ""))
		}
	}
	before := `<network name="n" subnet="1.2.3.4/5"/>`
	if e.name == "network" {
		before = ""
	}
	return fmt.Appendf(nil, "<cluster name=\"c\">%s<%s%s %s=\"%s\">%s</%s></cluster>",
		before, e.name, required(e, name), name, value, children.String(), e.name)
}

func start(e *element, name, value string) string {
	text := "<" + e.name + required(e, name)
	if name != "" {
		text += fmt.Sprintf(" %s=\"%s\"", name, value)
	}
	return text + "/>"
}

// required formats the attributes that an element must have, except one, with valid values.
func required(e *element, but string) string {
	fitting := map[string]string{
		"name": "n", "host-name": "n", "host-expression": "n", "subnet": "1.2.3.4/5", "level": "l", "number": "1",
		"roles": "head", "master": "dir:/", "address-expression": "1.2.3.4", "card": "eth0", "node-set": "n",
		"file-name": "f", "pattern": "/x", "path": "/x",
	}
	var b strings.Builder
	for _, a := range e.attributes {
		if !a.required || a.name == but {
			continue
		}
		value := fitting[a.kind.name]
		if a.kind.values != nil {
			value = a.kind.values[0]
		}
		fmt.Fprintf(&b, " %s=\"%s\"", a.name, value)
	}
	return b.String()
}
