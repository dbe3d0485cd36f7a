package rules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// pkg is one type-checked package of ours, without its tests.
type pkg struct {
	name  string // the directory from the root of the repository: "internal/store"
	types *types.Package
	files []*ast.File
	info  *types.Info
}

// tree is all our packages, type-checked. Imported packages come before those that import them.
type tree struct {
	fset *token.FileSet
	pkgs []*pkg
	// others are the packages of others that ours import, by import path.
	others map[string]*types.Package
}

// loadProgram type-checks the repository once for all tests.
var loadProgram = sync.OnceValues(func() (*tree, error) {
	listed, err := goList()
	if err != nil {
		return nil, err
	}
	c := newChecker(listed)
	for _, l := range listed {
		if name, ours := strings.CutPrefix(l.ImportPath, "dim/"); ours {
			sources := map[string]any{}
			for _, f := range l.GoFiles {
				sources[filepath.Join(root, name, f)] = nil
			}
			if err := c.check(name, sources); err != nil {
				return nil, err
			}
		}
	}
	return c.tree, nil
})

// problem is one violation of a rule.
type problem struct {
	pkg  string
	pos  token.Pos
	text string
}

func (p problem) at(fset *token.FileSet) string {
	if !p.pos.IsValid() {
		return "" // the text has it
	}
	at := fset.Position(p.pos)
	return fmt.Sprintf("%s:%d: ", strings.TrimPrefix(at.Filename, root+"/"), at.Line)
}

// typedRule is a rule that needs types, or that is about packages as wholes.
type typedRule func(*tree) []problem

// enforce reports all violations of a rule as errors, except those of packages that are pending for it.
func enforce(t *testing.T, name string, r typedRule) {
	t.Helper()
	p := typed(t)
	broken := map[string]bool{}
	for _, found := range r(p) {
		broken[found.pkg] = true
		if _, ok := pending[found.pkg][name]; !ok {
			t.Error(found.at(p.fset) + found.text)
		}
	}
	for pkg, rules := range pending {
		if _, ok := rules[name]; ok && !broken[pkg] {
			t.Errorf("%s keeps the rule %q: delete its line from pending in internal/rules/pending_test.go", pkg, name)
		}
	}
}

func typed(t *testing.T) *tree {
	t.Helper()
	p, err := loadProgram()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// listedPackage is the output of go list for a package.
type listedPackage struct {
	ImportPath, Export string
	GoFiles, Imports   []string
}

// goList lists our packages and their dependencies, dependencies first, with the files that hold their exported types.
var goList = sync.OnceValues(func() ([]listedPackage, error) {
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Export,GoFiles,Imports", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %v: %s", err, stderr.Bytes())
	}
	var all []listedPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var l listedPackage
		if err := d.Decode(&l); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
})

// checker type-checks our packages from source, and reads the types of all others from what the compiler exported.
type checker struct {
	*tree
	compiled types.Importer
	ours     map[string]*types.Package // by import path
}

func newChecker(listed []listedPackage) *checker {
	export := map[string]string{}
	for _, l := range listed {
		export[l.ImportPath] = l.Export
	}
	fset := token.NewFileSet()
	open := func(path string) (io.ReadCloser, error) { return os.Open(export[path]) }
	return &checker{
		&tree{fset: fset, others: map[string]*types.Package{}},
		importer.ForCompiler(fset, "gc", open),
		map[string]*types.Package{},
	}
}

// Import implements types.Importer.
func (c *checker) Import(path string) (*types.Package, error) {
	if p := c.ours[path]; p != nil {
		return p, nil
	}
	p, err := c.compiled.Import(path)
	if err == nil {
		c.others[path] = p
	}
	return p, err
}

// check type-checks the package in the directory name. Sources maps the names of its files to their text; nil
// is read from disk.
func (c *checker) check(name string, sources map[string]any) error {
	p := &pkg{name: name, info: &types.Info{
		Uses: map[*ast.Ident]types.Object{}, Defs: map[*ast.Ident]types.Object{},
		Types: map[ast.Expr]types.TypeAndValue{},
	}}
	for path, text := range sources {
		f, err := parser.ParseFile(c.fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		p.files = append(p.files, f)
	}
	var err error
	p.types, err = (&types.Config{Importer: c}).Check("dim/"+name, c.fset, p.files, p.info)
	if err != nil {
		return err
	}
	c.ours["dim/"+name] = p.types
	c.pkgs = append(c.pkgs, p)
	return nil
}
