package rules

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
	"testing"
)

func TestPackagesExportFewNames(t *testing.T) { enforce(t, "surface", checkSurface) }

func TestEveryExportedNameHasACaller(t *testing.T) { enforce(t, "callers", checkCallers) }

func TestNoExportedFunctionTakesABoolean(t *testing.T) { enforce(t, "booleans", checkBooleans) }

func TestFunctionsTakeFewParameters(t *testing.T) { enforce(t, "parameters", checkParameters) }

// maxExported bounds the exported names of a package: constants, variables, types and functions, without methods.
const maxExported = 25

// wide are packages that export more names, with the reason.
var wide = map[string]string{
	"internal/cluster": "a type for each element of the description, and their names",
	"internal/control": "the vocabulary of the API: a type for each JSON object, an interface for each part of Backend",
	"internal/image":   "the words of images, versions and trees, which every package shares",
	"internal/vfs":     "the contract of a file tree: types, errors and flags that all trees and protocols share",
}

// forTests are packages that only tests use. Their calls do not count as callers.
var forTests = []string{
	"internal/testkit", "internal/disktest", "internal/vfs/dirfs", "internal/vfs/vfstest",
	"internal/replica/replicatest", "internal/follow/followtest",
}

// tools are packages of programs that test and measure. Tests may be the only ones that use some of their names.
var tools = []string{"internal/fuse", "internal/nfs/nfsclient", "internal/lab", "e2e"}

// uncalled are exported names ("internal/store.Name", "internal/store.Type.Method") that no program uses, with
// the reason.
var uncalled = map[string]string{
	"internal/vfs.AccessLookup":       "a bit of FS.Access, which protocols pass on as a number",
	"internal/vfs.AccessExecute":      "a bit of FS.Access, which protocols pass on as a number",
	"internal/cluster.Node.Interface": "templates of node files call it",
	"internal/cluster.Server.Address": "templates of node files call it",
}

func checkSurface(p *tree) (problems []problem) {
	for _, pkg := range p.pkgs {
		if pkg.types.Name() == "main" {
			continue
		}
		n := 0
		for _, name := range pkg.types.Scope().Names() {
			if token.IsExported(name) {
				n++
			}
		}
		if n > maxExported && wide[pkg.name] == "" {
			problems = append(problems,
				problem{pkg.name, pkg.files[0].Name.Pos(),
					fmt.Sprintf("%d exported names; %d at most", n, maxExported)})
		}
	}
	return problems
}

// checkCallers reports exported names that nothing outside their package uses.
func checkCallers(p *tree) (problems []problem) {
	used := usedOutside(p)
	interfaces := declaredInterfaces(p)
	for _, pkg := range p.pkgs {
		if pkg.types.Name() == "main" || below(pkg.name, forTests) || below(pkg.name, tools) {
			continue
		}
		report := func(o types.Object, name string) {
			if uncalled[pkg.name+"."+name] == "" {
				problems = append(problems,
					problem{pkg.name, o.Pos(), name + " is exported, and no program uses it outside its package"})
			}
		}
		for _, name := range pkg.types.Scope().Names() {
			o := pkg.types.Scope().Lookup(name)
			if !o.Exported() {
				continue
			}
			if !used[o] && !used[constantsType(o)] {
				report(o, name)
				continue
			}
			named, ok := o.Type().(*types.Named)
			if _, isType := o.(*types.TypeName); !ok || !isType {
				continue
			}
			for m := range named.Methods() {
				if m.Exported() && !used[m] && !implements(named, m.Name(), interfaces, pkg.types) {
					report(m, name+"."+m.Name())
				}
			}
		}
	}
	return problems
}

// constantsType is the type of a constant whose type is exported by the same package, or nil: the constants of
// a type in use are its vocabulary.
func constantsType(o types.Object) types.Object {
	c, ok := o.(*types.Const)
	if !ok {
		return nil
	}
	named, ok := c.Type().(*types.Named)
	if !ok || named.Obj().Pkg() != o.Pkg() {
		return nil
	}
	return named.Obj()
}

// usedOutside returns the objects of ours that another package names, and the types that come with them.
func usedOutside(p *tree) map[types.Object]bool {
	used := map[types.Object]bool{}
	for _, pkg := range p.pkgs {
		if below(pkg.name, forTests) {
			continue
		}
		for _, o := range pkg.info.Uses {
			if o.Pkg() != nil && o.Pkg() != pkg.types {
				mark(used, o)
			}
		}
	}
	return used
}

// mark adds an object and all types in its signature or exported fields.
func mark(used map[types.Object]bool, o types.Object) {
	if f, ok := o.(*types.Func); ok {
		o = f.Origin()
	}
	if used[o] {
		return
	}
	used[o] = true
	switch o := o.(type) {
	case *types.TypeName:
		if named, ok := types.Unalias(o.Type()).(*types.Named); ok {
			mark(used, named.Obj())
			markType(used, named.Underlying())
		}
	default:
		markType(used, o.Type())
	}
}

func markType(used map[types.Object]bool, t types.Type) {
	switch t := t.(type) {
	case *types.Alias:
		mark(used, t.Obj())
	case *types.Named:
		mark(used, t.Obj())
		for a := range t.TypeArgs().Types() {
			markType(used, a)
		}
	case interface{ Elem() types.Type }: // pointers, slices, arrays, channels, maps
		markType(used, t.Elem())
		if m, ok := t.(*types.Map); ok {
			markType(used, m.Key())
		}
	case *types.Tuple:
		for v := range t.Variables() {
			markType(used, v.Type())
		}
	case *types.Signature:
		markType(used, t.Params())
		markType(used, t.Results())
	case *types.Struct:
		for f := range t.Fields() {
			if f.Exported() {
				markType(used, f.Type())
			}
		}
	case *types.Interface:
		for m := range t.Methods() {
			markType(used, m.Type())
		}
	}
}

// declaredInterface is an interface and the package that declares it.
type declaredInterface struct {
	*types.Interface
	pkg      *types.Package
	exported bool
}

// declaredInterfaces returns, by the names of their methods, the interfaces in our source and the exported ones
// of packages that it imports.
func declaredInterfaces(p *tree) map[string][]declaredInterface {
	all := map[string][]declaredInterface{}
	add := func(t types.Type, pkg *types.Package, exported bool) {
		i, ok := t.Underlying().(*types.Interface)
		if !ok {
			return
		}
		for m := range i.Methods() {
			all[m.Name()] = append(all[m.Name()], declaredInterface{i, pkg, exported})
		}
	}
	add(types.Universe.Lookup("error").Type(), nil, true)
	for _, other := range p.others {
		for _, name := range other.Scope().Names() {
			if o, ok := other.Scope().Lookup(name).(*types.TypeName); ok && o.Exported() {
				add(o.Type(), other, true)
			}
		}
	}
	for _, pkg := range p.pkgs {
		for _, name := range pkg.types.Scope().Names() {
			if o, ok := pkg.types.Scope().Lookup(name).(*types.TypeName); ok {
				add(o.Type(), pkg.types, o.Exported())
			}
		}
		for e, tv := range pkg.info.Types {
			if _, ok := e.(*ast.InterfaceType); ok {
				add(tv.Type, pkg.types, false)
			}
		}
	}
	return all
}

// byReflection are methods that the standard library calls by interfaces of packages that we may not import.
var byReflection = []string{"Unwrap", "Is", "As", "MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON"}

// implements reports whether a method belongs to an interface that another package, or a user of this one, can name.
func implements(named *types.Named, method string, all map[string][]declaredInterface, own *types.Package) bool {
	return slices.Contains(byReflection, method) || slices.ContainsFunc(all[method], func(i declaredInterface) bool {
		return (i.pkg != own || i.exported) && types.Implements(types.NewPointer(named), i.Interface)
	})
}

// checkBooleans reports exported functions with a boolean parameter: its meaning does not show in a call.
func checkBooleans(p *tree) (problems []problem) {
	interfaces := declaredInterfaces(p)
	for _, pkg := range p.pkgs {
		for _, f := range exportedFuncs(pkg.types) {
			for v := range f.Signature().Params().Variables() {
				if b, ok := v.Type().(*types.Basic); ok && b.Kind() == types.Bool && !prescribed(f, interfaces, ours) {
					text := fmt.Sprintf("%s is exported and has the boolean parameter %s", f.Name(), v.Name())
					problems = append(problems, problem{pkg.name, f.Pos(), text})
				}
			}
		}
	}
	return problems
}

// exportedFuncs returns the exported functions of a package, and the exported methods of its exported types.
func exportedFuncs(p *types.Package) (funcs []*types.Func) {
	for _, name := range p.Scope().Names() {
		switch o := p.Scope().Lookup(name).(type) {
		case *types.Func:
			funcs = append(funcs, o)
		case *types.TypeName:
			if named, ok := o.Type().(*types.Named); ok && o.Exported() {
				funcs = slices.AppendSeq(funcs, named.Methods())
			}
		}
	}
	return slices.DeleteFunc(funcs, func(f *types.Func) bool { return !f.Exported() })
}

// maxParameters is how many parameters a function may have, not counting a context.
const maxParameters = 4

// checkParameters reports functions with more, unless an interface prescribes them.
func checkParameters(p *tree) (problems []problem) {
	interfaces := declaredInterfaces(p)
	none := func(*types.Package) bool { return false }
	for _, pkg := range p.pkgs {
		for _, o := range pkg.info.Defs {
			f, ok := o.(*types.Func)
			if !ok || f.Signature().Recv() != nil && types.IsInterface(f.Signature().Recv().Type()) {
				continue
			}
			n := f.Signature().Params().Len()
			if n > 0 && strings.HasSuffix(f.Signature().Params().At(0).Type().String(), "context.Context") {
				n--
			}
			if n > maxParameters && !prescribed(f, interfaces, none) {
				problems = append(problems,
					problem{pkg.name, f.Pos(),
						fmt.Sprintf("%s has %d parameters; %d at most", f.Name(), n, maxParameters)})
			}
		}
	}
	return problems
}

// prescribed reports whether a method has its signature from an interface. Interfaces of packages that are in
// except do not count.
func prescribed(f *types.Func, all map[string][]declaredInterface, except func(*types.Package) bool) bool {
	recv := f.Signature().Recv()
	return recv != nil && slices.ContainsFunc(all[f.Name()], func(i declaredInterface) bool {
		return !except(i.pkg) && types.Implements(recv.Type(), i.Interface)
	})
}

func ours(p *types.Package) bool { return p != nil && strings.HasPrefix(p.Path(), "dim/") }
