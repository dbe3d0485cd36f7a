package rules

import (
	"fmt"
	"strings"
	"testing"
)

// violation has packages that obey or break a rule.
type violation struct {
	name     string
	packages [][2]string // name and source without the package clause; its comment ends with "|"
	rule     typedRule
	want     string // a part of what is reported; "" for nothing
}

// TestTypedRulesFindViolations applies each rule to packages that break it. They are type-checked in their order.
func TestTypedRulesFindViolations(t *testing.T) {
	listed, err := goList()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range violations() {
		c := newChecker(listed)
		for _, p := range tt.packages {
			doc, text, ok := strings.Cut(p[1], "|")
			if !ok {
				doc, text = "", p[1]
			}
			text = doc + "package " + p[0][strings.LastIndex(p[0], "/")+1:] + "\n" + text
			if err := c.check(p[0], map[string]any{p[0] + "/x.go": text}); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
		}
		var got []string
		for _, found := range tt.rule(c.tree) {
			got = append(got, found.text)
		}
		if all := strings.Join(got, "\n"); !strings.Contains(all, tt.want) || (tt.want == "") != (all == "") {
			t.Errorf("%s: reported %q, want %q", tt.name, all, tt.want)
		}
	}
}

func violations() []violation {
	return []violation{
		{"few names", x("const A, B = 1, 2"), checkSurface, ""},
		{"many names", x("const (" + names(26) + ")"), checkSurface, "26 exported names"},
		{"many names in a package that may", [][2]string{{"internal/vfs", "const (" + names(26) + ")"}}, checkSurface,
			""},
		{"many names of its own", x("const (" + strings.ToLower(names(26)) + ")"), checkSurface, ""},

		{"a function without a caller", x("func F() {}", ""), checkCallers, "F is exported"},
		{"a function with a caller in its package", x("func F() {}\nfunc g() { F() }"), checkCallers, "F is exported"},
		{"a function with a caller", x("func F() {}", "func g() { x.F() }"), checkCallers, ""},
		{"a type that a function in use returns",
			x("type T struct{}\nfunc F() (t T) { return t }", "func g() { x.F() }"), checkCallers, ""},
		{"a method without a caller", x("type T struct{}\nfunc (T) M() {}", "var _ x.T"), checkCallers,
			"T.M is exported"},
		{"a method with a caller", x("type T struct{}\nfunc (T) M() {}", "func g(t x.T) { t.M() }"), checkCallers, ""},
		{
			"a method for an interface of another package",
			x("type T struct{}\nfunc (T) M() {}", "type i interface{ M() }\nvar _ i = x.T{}"), checkCallers, "",
		},
		{
			"a method for an interface of its own package",
			x("type T struct{}\nfunc (T) M() {}\ntype i interface{ M() }", "var _ x.T"), checkCallers,
			"T.M is exported",
		},
		{"an error", x("type T struct{}\nfunc (T) Error() string { return `` }", "var _ x.T"), checkCallers, ""},
		{"a constant of a type in use", x("type T int\nconst A T = 1", "var _ x.T"), checkCallers, ""},
		{"a constant without a user", x("const A = 1", ""), checkCallers, "A is exported"},
		{"a sentinel without a user", x("import `errors`\nvar ErrX = errors.New(``)"), checkCallers,
			"ErrX is exported"},
		{"a caller in tests only",
			append(x("func F() {}"), [2]string{"internal/testkit", "import `dim/internal/x`\nfunc g() { x.F() }"}),
			checkCallers, "F is exported"},

		{"a boolean", x("func F(b bool) {}"), checkBooleans, "F is exported and has the boolean parameter b"},
		{"a boolean of a method", x("type T struct{}\nfunc (T) M(b bool) {}"), checkBooleans, "boolean parameter b"},
		{"a boolean between friends", x("func f(b bool) {}"), checkBooleans, ""},
		{"a boolean with a name", x("type Dry bool\nfunc F(d Dry) {}"), checkBooleans, ""},

		{"four parameters and a context", x("import `context`\nfunc F(_ context.Context, a, b, c, d int) {}"),
			checkParameters, ""},
		{"five parameters", x("func f(a, b, c, d, e int) {}"), checkParameters, "f has 5 parameters"},
		{"five parameters that an interface wants",
			x("type i interface{ M(a, b, c, d, e int) }\ntype t struct{}\nfunc (t) M(a, b, c, d, e int) {}"),
			checkParameters, ""},

		{"a key of the set", logs("l.Info(`m`, `error`, 1)"), checkLogs, ""},
		{"a key of its own", logs("l.Warn(`m`, `node`, 1, `err`, 1)"), checkLogs, "`err`"},
		{"a key of its own with a context", logs("l.WarnContext(nil, `m`, `err`, 1)"), checkLogs, "`err`"},
		{"a key of its own for later", logs("l.With(`err`, 1)"), checkLogs, "`err`"},
		{"a key in an attribute", logs("l.Info(`m`, slog.String(`err`, ``))"), checkLogs, "`err`"},
		{"a key that is made", logs("l.Info(`m`, string(l.Handler().(interface{ String() string }).String()), 1)"),
			checkLogs, "is not one of"},

		{"a child that is not declared",
			[][2]string{{"internal/store/sub", ""}, {"internal/store", "import _ `dim/internal/store/sub`"}},
			checkFamily, "declare it"},
		{"a parent that is not declared",
			[][2]string{{"internal/store", ""}, {"internal/store/sub", "import _ `dim/internal/store`"}}, checkFamily,
			"declare it"},
		{"a sibling that is not declared",
			[][2]string{{"internal/store/a", ""}, {"internal/store/b", "import _ `dim/internal/store/a`"}}, checkFamily,
			"declare it"},
		{"a child that is declared",
			[][2]string{{"internal/cluster/nodeset", ""},
				{"internal/cluster", "import _ `dim/internal/cluster/nodeset`"}}, checkFamily, ""},
		{"no family", [][2]string{{"internal/image", ""}, {"internal/store", "import _ `dim/internal/image`"}},
			checkFamily, ""},

		{"what a package must not know", [][2]string{
			{"internal/image", ""}, {"internal/x", "import _ `dim/internal/image`"},
			{"internal/y", "// It must not know clusters, images or any protocol.\n|import _ `dim/internal/x`"},
		}, checkIgnorance, `must not know "images", and imports internal/x, which imports internal/image`},
		{"what a package must not know, under a heading", [][2]string{
			{"internal/image", ""},
			{"internal/y", "// # What it must not know\n//\n// Images, and what comes of them.\n|" +
				"import _ `dim/internal/image`"},
		}, checkIgnorance, `must not know "Images"`},
		{"what a package may know", [][2]string{
			{"internal/image", ""},
			{"internal/y", "// It must not know clusters. It reads images.\n|import _ `dim/internal/image`"},
		}, checkIgnorance, ""},
	}
}

// x is the package internal/x, and if there is a second text, a package that imports it.
func x(text string, user ...string) [][2]string {
	all := [][2]string{{"internal/x", text}}
	if len(user) > 0 && user[0] != "" {
		all = append(all, [2]string{"internal/other", "import \"dim/internal/x\"\n" + user[0]})
	}
	return all
}

// names is a list of n constants.
func names(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "N%d = %d;", i, i)
	}
	return b.String()
}

func logs(call string) [][2]string {
	return [][2]string{{"internal/x",
		"import \"log/slog\"\nfunc f(l *slog.Logger) { " + call + " }\nvar _ = slog.LevelInfo"}}
}

func TestALongLineIsFound(t *testing.T) {
	for width, want := range map[int]int{120: 0, 121: 1} {
		line := "\t// " + strings.Repeat("é", width-7) + "\n"
		if got := len(longLines("internal/x", "x.go", []byte("package x\n"+line))); got != want {
			t.Errorf("%d columns: %d problems, want %d", width, got, want)
		}
	}
}
