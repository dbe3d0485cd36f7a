package rules

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

func TestPackagesHaveNoState(t *testing.T) { check(t, checkState(changedNames(load(t)))) }

// checkState makes the rule from the names that each package changes.
func checkState(changed map[string]map[string]bool) rule {
	return func(f *file, report func(ast.Node, string, ...any)) {
		if f.test {
			return
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					report(d, "init: what runs at the start is called by main")
				}
			case *ast.GenDecl:
				if d.Tok == token.VAR {
					variables(d, changed[f.pkg], report)
				}
			}
		}
	}
}

// variables reports package variables that are state. Allowed are error sentinels, embedded files, proofs that a type
// implements an interface, and unexported tables: values written out in the source that nothing in the package changes.
func variables(d *ast.GenDecl, changed map[string]bool, report func(ast.Node, string, ...any)) {
	for _, s := range d.Specs {
		v := s.(*ast.ValueSpec)
		if strings.Contains(raw(v.Doc)+raw(d.Doc), "//go:embed") {
			continue
		}
		for i, name := range v.Names {
			constant := !name.IsExported() && i < len(v.Values) && constantValue(v.Values[i]) && !changed[name.Name]
			if name.Name == "_" || sentinel(v, i) || constant {
				continue
			}
			report(name, "variable %s: no package variables; make it a constant, a function or a field", name.Name)
		}
	}
}

// constantValue reports whether an expression is a literal or a call of a constructor whose result never
// changes. Locks, pools and the like are state in any form.
func constantValue(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.CompositeLit:
		sel, ok := e.Type.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg, ok := sel.X.(*ast.Ident)
		return ok && pkg.Name != "sync" && pkg.Name != "atomic"
	case *ast.CallExpr:
		sel, ok := e.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		pkg, ok := sel.X.(*ast.Ident)
		return ok && slices.Contains([]string{"netip.MustParsePrefix", "netip.MustParseAddr", "regexp.MustCompile"},
			pkg.Name+"."+sel.Sel.Name)
	}
	return false
}

// changedNames returns, by package, the names that are assigned to, also in part, or whose address is taken.
func changedNames(s *source) map[string]map[string]bool {
	all := map[string]map[string]bool{}
	for _, f := range s.files {
		if all[f.pkg] == nil {
			all[f.pkg] = map[string]bool{}
		}
		note := func(e ast.Expr) {
			if id := base(e); id != nil && (id.Obj == nil || f.ast.Scope.Lookup(id.Name) == id.Obj) {
				all[f.pkg][id.Name] = true
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					for _, e := range n.Lhs {
						note(e)
					}
				}
			case *ast.IncDecStmt:
				note(n.X)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					note(n.X)
				}
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && len(n.Args) > 0 &&
					(id.Name == "delete" || id.Name == "clear" || id.Name == "copy") {
					note(n.Args[0])
				}
			}
			return true
		})
	}
	return all
}

// base returns the variable of an operand like x, x.y[3] or *x.
func base(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// raw returns a comment with its directives, which Text omits.
func raw(g *ast.CommentGroup) string {
	if g == nil {
		return ""
	}
	var b strings.Builder
	for _, c := range g.List {
		b.WriteString(c.Text)
	}
	return b.String()
}

// sentinel reports whether a variable is named like ErrX or errX and is the result of errors.New or fmt.Errorf.
func sentinel(v *ast.ValueSpec, i int) bool {
	if !strings.HasPrefix(strings.ToLower(v.Names[i].Name), "err") || i >= len(v.Values) {
		return false
	}
	if alias, ok := v.Values[i].(*ast.SelectorExpr); ok { // another package's sentinel under a name of our own
		return strings.HasPrefix(alias.Sel.Name, "Err")
	}
	call, ok := v.Values[i].(*ast.CallExpr)
	if !ok {
		return false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	return ok && (sel.Sel.Name == "New" || sel.Sel.Name == "Errorf")
}
