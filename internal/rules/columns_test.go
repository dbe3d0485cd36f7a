package rules

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"unicode/utf8"
)

func TestLinesAreShort(t *testing.T) {
	s := load(t)
	enforce(t, "columns", func(*tree) (problems []problem) {
		for _, f := range s.files {
			text, err := os.ReadFile(s.fset.Position(f.ast.Pos()).Filename)
			if err != nil {
				t.Fatal(err)
			}
			problems = append(problems, longLines(f.pkg, f.path, text)...)
		}
		return problems
	})
}

// What fits a window beside another one. A tab counts as four columns.
const (
	maxColumns = 120
	tab        = 4
)

func longLines(pkg, path string, text []byte) (problems []problem) {
	n := 0
	for line := range bytes.Lines(text) {
		n++
		line = bytes.TrimRight(line, "\n")
		width := utf8.RuneCount(line) + (tab-1)*bytes.Count(line, []byte("\t"))
		if width > maxColumns {
			problems = append(problems,
				problem{pkg: pkg, text: fmt.Sprintf("%s:%d: %d columns; %d at most", path, n, width, maxColumns)})
		}
	}
	return problems
}
