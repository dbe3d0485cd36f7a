package rules

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestDocumentsAreWrappedAndLinked(t *testing.T) {
	paths := []string{"README.md"}
	err := filepath.WalkDir(root+"/docs", func(path string, e fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			paths = append(paths, strings.TrimPrefix(path, root+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	enforce(t, "documents", func(*tree) (problems []problem) {
		for _, path := range paths {
			text, err := os.ReadFile(filepath.Join(root, path))
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range checkDocument(string(text), func(name string) bool {
				dir := filepath.Dir(path)
				if sourcePath.MatchString("`" + name + "`") {
					dir = ""
				}
				_, err := os.Stat(filepath.Join(root, dir, name))
				return err == nil
			}) {
				problems = append(problems, problem{pkg: path, text: path + ":" + p})
			}
		}
		return problems
	})
}

// maxDocument is the width of a paragraph. Code, tables and headings may be wider.
const maxDocument = 100

var link = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

// sourcePath matches the path of a package or a file of the repository in a text.
var sourcePath = regexp.MustCompile("`((?:internal|cmd|e2e|bench|dist|examples)/[A-Za-z0-9_./-]+)`")

// checkDocument reports lines of paragraphs that are too long, and links and paths to files that do not exist.
func checkDocument(text string, exists func(string) bool) (problems []string) {
	fenced := false
	for i, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
		}
		if fenced || strings.HasPrefix(line, "    ") {
			continue
		}
		n := utf8.RuneCountInString(line)
		if n > maxDocument && !strings.HasPrefix(line, "|") && !strings.HasPrefix(line, "#") && breakable(line) {
			problems = append(problems, fmt.Sprintf("%d: %d columns; %d at most", i+1, n, maxDocument))
		}
		for _, m := range link.FindAllStringSubmatch(line, -1) {
			if !strings.Contains(m[1], "://") && !exists(m[1]) {
				problems = append(problems, fmt.Sprintf("%d: %s does not exist", i+1, m[1]))
			}
		}
		for _, m := range sourcePath.FindAllStringSubmatch(line, -1) {
			if !exists(m[1]) {
				problems = append(problems, fmt.Sprintf("%d: %s does not exist", i+1, m[1]))
			}
		}
	}
	return problems
}

// breakable reports whether a line has a space at which it can be broken in time.
func breakable(line string) bool {
	line = strings.TrimLeft(line, " -*")
	at := strings.IndexByte(line, ' ')
	return at >= 0 && at < maxDocument
}

func TestLongParagraphsAndBrokenLinksAreFound(t *testing.T) {
	word := strings.Repeat("word ", 20)
	for name, tt := range map[string]struct {
		text string
		want int
	}{
		"a paragraph":              {word[:99], 0},
		"a long paragraph":         {word + "word", 1},
		"a long table":             {"| " + word + "word |", 0},
		"long code":                {"```\n" + word + "word\n```\n", 0},
		"a long word":              {"- " + strings.ReplaceAll(word+"word", " ", ""), 0},
		"a link":                   {"[a](there.md#b) and [c](https://example.org/)", 0},
		"a link to no file":        {"[a](gone.md)", 1},
		"a package":                {"see `internal/there`", 0},
		"a package that is gone":   {"see `internal/gone`", 1},
		"a link to no file, table": {"| [a](gone.md) | b |", 1},
	} {
		got := checkDocument(tt.text, func(name string) bool { return name == "there.md" || name == "internal/there" })
		if len(got) != tt.want {
			t.Errorf("%s: %q, want %d problems", name, got, tt.want)
		}
	}
}
