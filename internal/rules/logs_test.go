package rules

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/types"
	"slices"
	"strings"
	"testing"
)

func TestLogKeysAreOneSet(t *testing.T) { enforce(t, "logs", checkLogs) }

// logKeys are the keys of log messages, one for each kind of value.
var logKeys = []string{
	"error",  // an error or its text
	"reason", // why, in words, where there is no error
	"node", "image", "version", "server", "rollout", "ring", "cluster", "mac",
	"replica",     // the directory of a replica
	"client",      // address and port of the other end of a connection
	"address",     // an address that is given, asked for, or sent to
	"interface",   // a network interface of this machine
	"path",        // a path in an image or export
	"file", "dir", // a path on this machine; or the file that a client boots
	"from", "to", // versions before and after
	"detail",    // what a node says about a stage of its boot
	"procedure", // of an RPC program
	"kind", "action", "stage", "xid", "kernel",
	"stamp", // of a snapshot or set-aside copy
	"took",  // a duration
	// counts
	"bytes", "count", "entries", "paths", "nodes", "replicas", "images", "objects", "snapshots", "directories",
	"modules", "facts", "aside",
	"omitted", // lines of the same message
}

// attributes are the functions of slog that take a key, and which argument it is; all further ones are pairs of
// key and value.
var attributes = map[string]int{
	"Debug": 1, "Info": 1, "Warn": 1, "Error": 1,
	"DebugContext": 2, "InfoContext": 2, "WarnContext": 2, "ErrorContext": 2, "Log": 3,
	"With": 0, "Group": 1,
}

// checkLogs reports keys of log messages that are not constants of logKeys.
func checkLogs(p *tree) (problems []problem) {
	for _, pkg := range p.pkgs {
		for _, f := range pkg.files {
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				for _, key := range logged(pkg, call) {
					v := pkg.info.Types[key].Value
					if v == nil || !slices.Contains(logKeys, constant.StringVal(v)) {
						problems = append(problems,
							problem{pkg.name, key.Pos(),
								fmt.Sprintf("the key %s of a log message is not one of logKeys",
									types.ExprString(key))})
					}
				}
				return true
			})
		}
	}
	return problems
}

func TestLogKeysAreUsed(t *testing.T) {
	used := map[string]bool{}
	for _, pkg := range typed(t).pkgs {
		for _, f := range pkg.files {
			ast.Inspect(f, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					for _, key := range logged(pkg, call) {
						if v := pkg.info.Types[key].Value; v != nil {
							used[constant.StringVal(v)] = true
						}
					}
				}
				return true
			})
		}
	}
	for _, key := range logKeys {
		if !used[key] {
			t.Errorf("no log message has the key %q: delete it from logKeys", key)
		}
	}
}

// logged returns the keys in a call of slog.
func logged(pkg *pkg, call *ast.CallExpr) (keys []ast.Expr) {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil
	}
	f, ok := pkg.info.Uses[sel.Sel].(*types.Func)
	if !ok || f.Pkg() == nil || f.Pkg().Path() != "log/slog" {
		return nil
	}
	if results := f.Signature().Results(); results.Len() == 1 &&
		strings.HasSuffix(results.At(0).Type().String(), "slog.Attr") && len(call.Args) > 0 {
		keys = append(keys, call.Args[0])
	}
	first, ok := attributes[f.Name()]
	if !ok || call.Ellipsis.IsValid() {
		return keys
	}
	for i := first; i < len(call.Args); i++ {
		if b, ok := pkg.info.TypeOf(call.Args[i]).Underlying().(*types.Basic); ok && b.Info()&types.IsString != 0 {
			keys = append(keys, call.Args[i])
			i++
		}
	}
	return keys
}
