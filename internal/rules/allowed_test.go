package rules

import (
	"go/ast"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// forbidden are names that only some packages may use.
var forbidden = []struct {
	names []string // "pkg.Name", where pkg is the last element of the import path; a final "*" stands for any end
	who   []string // packages that may
	why   string
}{
	{
		[]string{"fmt.Print*", "os.Stdout", "os.Stderr", "os.Stdin"}, []string{"cmd", "bench", "e2e", "internal/lab"},
		"only programs print",
	},
	{[]string{"flag.*", "cobra.*", "pflag.*"}, []string{"cmd", "bench", "e2e"}, "only programs parse flags"},
	{[]string{"os.Exit", "log.Fatal*", "log.Panic*"}, []string{"cmd", "bench", "e2e"}, "only programs exit"},
	{[]string{"log.Print*", "slog.SetDefault", "slog.Default"}, nil, "loggers are passed in"},
	{
		[]string{
			"net.Listen", "net.ListenConfig", "net.ListenTCP", "net.ListenUDP", "net.ListenUnix*", "net.ListenIP",
			"net.ListenPacket", "net.ListenMulticastUDP", "tls.Listen", "packet.Listen", "http.ListenAndServe*",
		},
		[]string{
			"internal/daemon/sockets", "cmd", "bench", "e2e",
			"internal/lab",      // makes whole networks
			"internal/nodeinit", // is a DHCP client on the node
		},
		"only daemon/sockets opens listening sockets",
	},
	{[]string{"icmp.ListenPacket"}, []string{"internal/liveness"}, "only liveness probes nodes"},
}

func TestRestrictedNames(t *testing.T) { check(t, checkUses) }

func checkUses(f *file, report func(ast.Node, string, ...any)) {
	if f.test {
		return
	}
	names := importNames(f.ast)
	ast.Inspect(f.ast, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok || names[x.Name] == "" {
			return true
		}
		used := names[x.Name] + "." + sel.Sel.Name
		for _, rule := range forbidden {
			if slices.ContainsFunc(rule.names, func(p string) bool {
				return matches(p, used)
			}) && !below(f.pkg, rule.who) {
				report(sel, "%s uses %s: %s", f.pkg, used, rule.why)
			}
		}
		return true
	})
}

// importNames maps the names that a file gives its imports to the last elements of their paths.
func importNames(a *ast.File) map[string]string {
	names := map[string]string{}
	for _, spec := range a.Imports {
		path := importPath(spec)
		last := path[strings.LastIndex(path, "/")+1:]
		name := last
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = last
	}
	return names
}

func matches(pattern, name string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, prefix)
	}
	return pattern == name
}

func below(pkg string, owners []string) bool {
	return slices.ContainsFunc(owners, func(o string) bool { return pkg == o || strings.HasPrefix(pkg, o+"/") })
}

func TestPackageNamesAreSpecific(t *testing.T) {
	check(t, func(f *file, report func(ast.Node, string, ...any)) {
		for _, name := range []string{"util", "utils", "common", "helpers", "helper", "types", "misc", "pkg"} {
			if filepath.Base(f.pkg) == name || filepath.Base(f.path) == name+".go" {
				report(f.ast.Name, "%s says nothing of what is in it", name)
			}
		}
	})
}
