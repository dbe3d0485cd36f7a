package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"dim/internal/cluster"
	"dim/internal/cluster/summary"
	"dim/internal/control"
	"dim/internal/storm"
	"dim/internal/testkit"
)

// outputs are the types that commands print with -o json.
func outputs() []any {
	return []any{
		control.Status{}, control.ApplyResult{}, control.Image{}, control.CaptureResult{}, control.Watch{},
		control.Version{}, control.Installed{}, control.PruneResult{}, control.VerifyResult{},
		control.VerifyAllResult{}, control.Comparison{}, control.NodeDiff{},
		control.Rollout{}, control.ConfirmedNode{},
		control.Node{}, control.NodeBoots{}, control.NodeFile{}, control.Machine{},
		control.LearnResult{}, control.CheckResult{}, control.SavedEntry{},
		control.Token{}, control.ServerChanged{}, control.AppliedDescription{}, fileDiff{},
		control.RestoredEntry{}, control.Snapshot{}, control.RestoredSnapshot{}, control.Mount{}, control.Change{},
		control.Storm{}, storm.Result{}, cluster.Problem{}, summary.Cluster{}, programVersion{}, importReport{},
	}
}

// jsonKeys collects the type of every key below a type, with the structs that have it.
func jsonKeys(t reflect.Type, keys map[string]map[string][]string) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		jsonKeys(t.Elem(), keys)
	case reflect.Map:
		jsonKeys(t.Elem(), keys)
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			return
		}
		for f := range t.Fields() {
			key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous && key == "" {
				jsonKeys(f.Type, keys)
				continue
			}
			if !f.IsExported() || key == "-" || key == "" {
				continue
			}
			if keys[key] == nil {
				keys[key] = map[string][]string{}
			}
			kind := jsonType(f.Type)
			if where := t.Name() + "." + f.Name; !slices.Contains(keys[key][kind], where) {
				keys[key][kind] = append(keys[key][kind], where)
				jsonKeys(f.Type, keys)
			}
		}
	}
}

// jsonType is what a value of a type is in JSON.
func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return jsonType(t.Elem())
	case reflect.Bool:
		return "boolean"
	case reflect.String:
		return "text"
	case reflect.Slice:
		return "list of " + jsonType(t.Elem())
	case reflect.Map:
		return "object"
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			return "time"
		}
		return "object"
	}
	return "number"
}

func TestAKeyHasOneTypeEverywhere(t *testing.T) {
	keys := map[string]map[string][]string{}
	for _, v := range outputs() {
		jsonKeys(reflect.TypeOf(v), keys)
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if len(keys[key]) > 1 {
			t.Errorf("%s is of several types: %v", key, keys[key])
		}
	}
}

// The page lists every key with its type and what the source says about it.
func TestTheReferencePageOfTheOutputIsUpToDate(t *testing.T) {
	keys := map[string]map[string][]string{}
	for _, v := range outputs() {
		jsonKeys(reflect.TypeOf(v), keys)
	}
	comments := fieldComments(t)
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		for _, kind := range slices.Sorted(maps.Keys(keys[key])) {
			var texts []string
			for _, field := range keys[key][kind] {
				if text := comments[field]; text != "" && !slices.Contains(texts, text) {
					texts = append(texts, text)
				}
			}
			all := strings.ReplaceAll(strings.Join(texts, " / "), "|", "\\|")
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", key, kind, all)
		}
	}
	const page, begin = "../../docs/reference/output.md", "| key | type | meaning |\n|---|---|---|\n"
	text := testkit.Value(os.ReadFile(page))(t)
	head, _, ok := strings.Cut(string(text), begin)
	if !ok {
		t.Fatalf("%s has no table", page)
	}
	want := head + begin + b.String()
	if *update {
		testkit.Must(t, os.WriteFile(page, []byte(want), 0o644))
	} else if diff := cmp.Diff(string(text), want); diff != "" {
		t.Errorf("%s is out of date (make docs):\n%s", page, diff)
	}
}

// meaning returns a field's comment as one line, without the name and the verb that Go's comments begin with.
func meaning(field, comment string) string {
	words := strings.Fields(comment)
	verbs := []string{"is", "are", "has", "tells", "lists"}
	if len(words) > 2 && words[0] == field && slices.Contains(verbs, words[1]) {
		words = words[2:]
	}
	return strings.Join(words, " ")
}

// fieldComments returns the comment of each field of the types of the output, by "Struct.Field".
func fieldComments(t *testing.T) map[string]string {
	t.Helper()
	comments := map[string]string{}
	for _, dir := range []string{
		"../../internal/control", "../../internal/cluster", "../../internal/cluster/summary",
		"../../internal/storm", "../../internal/capacity", ".",
	} {
		paths := testkit.Value(filepath.Glob(dir + "/*.go"))(t)
		for _, path := range paths {
			f := testkit.Value(parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments))(t)
			ast.Inspect(f, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				s, ok := spec.Type.(*ast.StructType)
				if !ok {
					return true
				}
				for _, field := range s.Fields.List {
					for _, name := range field.Names {
						text := field.Comment.Text()
						if text == "" {
							text = field.Doc.Text()
						}
						comments[spec.Name.Name+"."+name.Name] = meaning(name.Name, text)
					}
				}
				return true
			})
		}
	}
	return comments
}
