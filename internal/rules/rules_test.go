// Package rules has the tests that check the architecture and the style of docs/style.md: imports, restricted
// functions, state, sizes, names and comments. It has only tests.
//
// Every exception is in a table of this package, with its reason.
package rules

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const root = "../.."

// file is one parsed source file.
type file struct {
	path string // from the root of the repository
	pkg  string // the directory it is in: "internal/store"
	test bool
	ast  *ast.File
}

// source is the source of this repository.
type source struct {
	fset  *token.FileSet
	files []*file
}

// load returns all Go files of the repository, except test data and directories that begin with "_" or ".".
func load(t *testing.T) *source {
	t.Helper()
	s, err := parseAll()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// parseAll parses the repository once for all tests.
var parseAll = sync.OnceValues(func() (*source, error) {
	s := &source{fset: token.NewFileSet()}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := e.Name()
		if e.IsDir() && path != root &&
			(name == "testdata" || name == "bin" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
			return fs.SkipDir
		}
		if e.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		a, err := parser.ParseFile(s.fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		s.files = append(s.files, &file{rel, filepath.Dir(rel), strings.HasSuffix(name, "_test.go"), a})
		return err
	})
	return s, err
})

// rule reports the violations in one file.
type rule func(f *file, report func(at ast.Node, format string, args ...any))

// check applies a rule to every file and reports all violations as errors.
func check(t *testing.T, r rule) {
	t.Helper()
	s := load(t)
	for _, f := range s.files {
		r(f, func(at ast.Node, format string, args ...any) {
			pos := s.fset.Position(at.Pos())
			t.Errorf("%s:%d: %s", f.path, pos.Line, fmt.Sprintf(format, args...))
		})
	}
}

// TestRulesFindViolations applies each rule to source that breaks it.
func TestRulesFindViolations(t *testing.T) {
	for _, tt := range []struct {
		name, pkg, text string
		rule            rule
		want            int // problems
	}{
		{"a protocol imports an image", "internal/nfs", `import "dim/internal/image"`, checkImports, 1},
		{"a protocol imports a deed", "internal/nfs", `import "dim/internal/replica"`, checkImports, 1},
		{"a protocol imports vfs and RPC", "internal/nfs",
			"import \"dim/internal/vfs\"\nimport \"dim/internal/oncrpc\"", checkImports, 0},
		{"a deed imports a deed", "internal/capture", `import "dim/internal/boot"`, checkImports, 1},
		{"a store imports a deed", "internal/store", `import "dim/internal/capture"`, checkImports, 1},
		{"a word imports a library", "internal/image", `import "golang.org/x/sys/unix"`, checkImports, 1},
		{"a library prints", "internal/store", "import \"fmt\"\nfunc f() { fmt.Println() }", checkUses, 1},
		{"a program prints", "cmd/dim", "import \"fmt\"\nfunc f() { fmt.Println() }", checkUses, 0},
		{"a library listens", "internal/nfs", "import n \"net\"\nfunc f() { n.Listen(``, ``) }", checkUses, 1},
		{"a library takes a listener", "internal/nfs", "import \"net\"\nfunc f(net.Listener) {}", checkUses, 0},
		{"a library exits", "internal/nfs", "import \"os\"\nfunc f() { os.Exit(1) }", checkUses, 1},
		{"an init", "internal/store", "func init() {}", checkState(nil), 1},
		{"a counter", "internal/store", "var n int", checkState(nil), 1},
		{"a lock", "internal/store", "import \"sync\"\nvar mu = sync.Mutex{}", checkState(nil), 1},
		{"a table", "internal/store", "var names = []string{``}", checkState(nil), 0},
		{"a table that changes", "internal/store", "var names = []string{``}\nfunc f() { names[0] = `x` }",
			checkState(nil), 1},
		{"a sentinel", "internal/store", "import \"errors\"\nvar ErrGone = errors.New(``)", checkState(nil), 0},
		{"an exported name without a comment", "internal/store", "func F() {}", checkComments, 1},
		{"a struct of 20 fields", "internal/store", "type t struct{ " + fields(20) + " }", checkFields, 0},
		{"a struct of 21 fields", "internal/store", "type t struct{ " + fields(19) + "; a, b int }", checkFields, 1},
		{"an embedded struct counts", "internal/store", "type t struct{ " + fields(20) + "; u }", checkFields, 1},
		{"a struct that may", "internal/control", "type Rollout struct{ " + fields(21) + " }", checkFields, 0},
		{"an exported name with one", "internal/store", "// F does.\nfunc F() {}", checkComments, 0},
	} {
		s := &source{fset: token.NewFileSet()}
		a, err := parser.ParseFile(s.fset, "x.go", "package x\n"+tt.text, parser.ParseComments)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		f := &file{path: "x.go", pkg: tt.pkg, ast: a}
		s.files = []*file{f}
		r := tt.rule
		if r == nil || strings.Contains(tt.text, "var ") {
			r = checkState(changedNames(s))
		}
		var got []string
		r(f, func(_ ast.Node, format string, args ...any) { got = append(got, fmt.Sprintf(format, args...)) })
		if len(got) != tt.want {
			t.Errorf("%s: %q, want %d problems", tt.name, got, tt.want)
		}
	}
}

// fields is n fields of a struct.
func fields(n int) string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("f%d int", i))
	}
	return strings.Join(list, "; ")
}
