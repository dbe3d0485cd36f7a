package rules

import (
	"go/ast"
	"testing"
)

func TestExportedNamesHaveComments(t *testing.T) {
	s := load(t)
	explained := map[string]bool{}
	first := map[string]*file{}
	for _, f := range s.files {
		if f.test && f.pkg != "internal/rules" {
			continue
		}
		if first[f.pkg] == nil {
			first[f.pkg] = f
		}
		explained[f.pkg] = explained[f.pkg] || f.ast.Doc != nil && len(f.ast.Doc.Text()) > 20
	}
	for pkg, f := range first {
		if !explained[pkg] {
			t.Errorf("%s:1: package %s has no package comment", f.path, pkg)
		}
	}
	check(t, checkComments)
}

func checkComments(f *file, report func(ast.Node, string, ...any)) {
	if f.test || f.ast.Name.Name == "main" {
		return
	}
	for _, d := range f.ast.Decls {
		checkDecl(d, report)
	}
}

func checkDecl(d ast.Decl, report func(ast.Node, string, ...any)) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || exportedReceiver(d)) {
			report(d, "%s has no comment", d.Name.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil {
					report(s, "%s has no comment", s.Name.Name)
				}
			case *ast.ValueSpec:
				if s.Names[0].IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					report(s, "%s has no comment", s.Names[0].Name)
				}
			}
		}
	}
}

func exportedReceiver(d *ast.FuncDecl) bool { return ast.IsExported(receiver(d)) }

// Limits of what a reader can grasp at once.
const (
	maxFunction = 80
	maxFile     = 500
)

func TestFunctionsAndFilesAreShort(t *testing.T) {
	s := load(t)
	for _, f := range s.files {
		if n := s.fset.File(f.ast.Pos()).LineCount(); n > maxFile {
			t.Errorf("%s:1: %d lines; %d at most", f.path, n, maxFile)
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			name, body := "a function", (*ast.BlockStmt)(nil)
			switch n := n.(type) {
			case *ast.FuncDecl:
				name, body = n.Name.Name, n.Body
			case *ast.FuncLit:
				body = n.Body
			}
			if body == nil {
				return true
			}
			at := s.fset.Position(n.Pos())
			if lines := s.lines(n) - s.tableLines(body); lines > maxFunction {
				t.Errorf("%s:%d: %s has %d lines; %d at most", f.path, at.Line, name, lines, maxFunction)
			}
			return true
		})
	}
}

func (s *source) lines(n ast.Node) int {
	return s.fset.Position(n.End()).Line - s.fset.Position(n.Pos()).Line + 1
}

// tableLines returns the number of lines of the literal that a function returns in its last statement. A table
// is consulted, not read; functions in it are checked separately.
func (s *source) tableLines(body *ast.BlockStmt) int {
	if len(body.List) == 0 {
		return 0
	}
	last, ok := body.List[len(body.List)-1].(*ast.ReturnStmt)
	if !ok || len(last.Results) != 1 {
		return 0
	}
	if table, ok := last.Results[0].(*ast.CompositeLit); ok {
		return s.lines(table)
	}
	return 0
}
