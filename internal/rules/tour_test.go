package rules

import (
	"go/ast"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// tourFunction is a line of the tour that names a function: a number, then `package.Function` or
// `package.Type.Method`.
var tourFunction = regexp.MustCompile("(?m)^[0-9]+\\. `([a-z]+\\.[A-Za-z.]+)`")

func TestTheFunctionsOfTheTourExist(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/tour.md"))
	if err != nil {
		t.Fatal(err)
	}
	named, missing := tour(string(text), functions(load(t)))
	if named == 0 {
		t.Error("docs/tour.md names no functions")
	}
	for _, name := range missing {
		t.Errorf("docs/tour.md: there is no function %s", name)
	}
}

// tour returns how many functions a text names, and which of them are not known.
func tour(text string, known map[string]bool) (named int, missing []string) {
	all := tourFunction.FindAllStringSubmatch(text, -1)
	for _, m := range all {
		if !known[m[1]] {
			missing = append(missing, m[1])
		}
	}
	return len(all), missing
}

func TestAFunctionThatTheTourInventsIsFound(t *testing.T) {
	text := "1. `nfs.write`: decodes\n10. `nfs.call.find`: finds\n\nas `nfs.other` says\n"
	named, missing := tour(text, map[string]bool{"nfs.write": true})
	if named != 2 || len(missing) != 1 || missing[0] != "nfs.call.find" {
		t.Errorf("%d functions, missing are %q", named, missing)
	}
}

// functions returns the names of all functions and methods of programs, as the tour writes them.
func functions(s *source) map[string]bool {
	known := map[string]bool{}
	for _, f := range s.files {
		if f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			name := fn.Name.Name
			if fn.Recv != nil {
				name = receiver(fn) + "." + name
			}
			known[f.ast.Name.Name+"."+name] = true
		}
	}
	return known
}

// receiver returns the name of a method's type.
func receiver(fn *ast.FuncDecl) string {
	typ := fn.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if generic, ok := typ.(*ast.IndexExpr); ok {
		typ = generic.X
	}
	if id, ok := typ.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}
