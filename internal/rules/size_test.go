package rules

import (
	"fmt"
	"go/ast"
	"testing"
)

// maxFields is how many fields of a struct a person can take in.
const maxFields = 20

// large are structs ("internal/store.Store") that have more fields, with the reason.
var large = map[string]string{
	"internal/capture.dir":     "a walk has one for each directory of a master: parts of their own would cost memory",
	"internal/control.Rollout": "a word of the API: one JSON object",
	"internal/oncrpc.Server":   "what connections share; each group has its lock or is atomic",
	"internal/oncrpc.conn":     "one connection between its reader, its slow calls and the server that parks it",
	"internal/replica.Replica": "what one lock guards, and what calls read without it",
	"internal/replica.Set":     "what replicas share; each group has its lock or is its own type",
}

func TestStructsHaveFewFields(t *testing.T) {
	check(t, checkFields)
	sizes := map[string]int{}
	for _, f := range load(t).files {
		structs(f, func(name string, _ ast.Node, fields int) { sizes[f.pkg+"."+name] = fields })
	}
	for name := range large {
		if sizes[name] <= maxFields {
			t.Errorf("%s has %d fields: delete its line from large", name, sizes[name])
		}
	}
}

func checkFields(f *file, report func(ast.Node, string, ...any)) {
	structs(f, func(name string, at ast.Node, fields int) {
		if fields > maxFields && large[f.pkg+"."+name] == "" {
			report(at, "struct %s has %d fields; %d at most", name, fields, maxFields)
		}
	})
}

// structs calls found for each struct type of a file that has a name. An embedded struct counts as one field.
func structs(f *file, found func(name string, at ast.Node, fields int)) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := spec.Type.(*ast.StructType); ok {
			fields := 0
			for _, field := range s.Fields.List {
				fields += max(1, len(field.Names))
			}
			found(spec.Name.Name, spec, fields)
		}
		return true
	})
}

// maxLines bounds the lines of packages that would attract what belongs elsewhere. Tests do not count.
var maxLines = map[string]int{
	"internal/daemon": 1200, // it opens, wires, runs and closes
}

func TestTheCompositionRootIsSmall(t *testing.T) {
	s := load(t)
	lines := map[string]int{}
	for _, f := range s.files {
		if !f.test {
			lines[f.pkg] += s.fset.File(f.ast.Pos()).LineCount()
		}
	}
	for _, text := range tooLarge(lines) {
		t.Error(text)
	}
}

func tooLarge(lines map[string]int) (problems []string) {
	for pkg, most := range maxLines {
		if lines[pkg] > most {
			problems = append(problems, fmt.Sprintf("%s has %d lines without tests; %d at most", pkg, lines[pkg], most))
		}
	}
	return problems
}

func TestALargePackageIsFound(t *testing.T) {
	for lines, want := range map[int]int{1200: 0, 1201: 1} {
		if got := tooLarge(map[string]int{"internal/daemon": lines}); len(got) != want {
			t.Errorf("%d lines: %q, want %d problems", lines, got, want)
		}
	}
}
