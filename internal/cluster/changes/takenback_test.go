package changes

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"dim/internal/control"
)

func TestWhatOthersHaveChangedSinceIsTakenBack(t *testing.T) {
	edit := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(text) }
	quiet := []string{`</image>`, `<kernel append="quiet"/></image>`}
	debug := []string{`</image>`, `<kernel append="debug"/></image>`}
	fewer, more := []string{`to="4"`, `to="3"`}, []string{`to="4"`, `to="6"`}
	for _, tt := range []struct {
		name          string
		present, next []string
		exactly       bool
		want          []string
	}{
		{"nothing was changed since", nil, quiet, false, []string{}},
		{"both have made the same change", quiet, quiet, false, []string{}},
		{"another attribute", quiet, append([]string{`domain="small.example"`, ``}, quiet...), false, []string{}},
		{"an attribute is as before", quiet, nil, false, []string{"image kernel arguments quiet →  1 compute"}},
		{"it is as before, exactly", quiet, nil, true, []string{"image kernel arguments quiet →  1 compute"}},
		{"an attribute is another one", quiet, debug, false,
			[]string{"image kernel arguments quiet → debug 1 compute"}},
		{"another one may be meant", quiet, debug, true, []string{}},
		{"nodes were added", more, nil, true,
			[]string{"cluster taxonomy node 1-6 → node 1-4 1", "node removed 2 n[05-06]"}},
		{"a node was removed", fewer, nil, true,
			[]string{"cluster taxonomy node 1-3 → node 1-4 1", "node added 1 n04"}},
		{"nodes are removed that were there", nil, fewer, false, []string{}},
	} {
		got := takenBack(parse(t, text), parse(t, edit(tt.present...)), parse(t, edit(tt.next...)), tt.exactly)
		if diff := cmp.Diff(tt.want, lines(got)); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
	}
}

func TestANodeIsRenamedIfItsCardHasAnotherName(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit []string
		want []string
	}{
		{"all names", []string{`"n{node:02}"`, `"m{node:02}"`, `nodes="n01"`, `nodes="m01"`},
			[]string{"n01 m01", "n02 m02", "n03 m03", "n04 m04"}},
		{"other cards", []string{`4d:00`, `4e:00`}, []string{}},
		{"cards change places", []string{`{node:02x}`, `{5-node:02x}`}, []string{}},
		{"other names on other cards", []string{`"n{node:02}"`, `"m{node:02}"`, `4d:00`, `4e:00`, `nodes="n01"`,
			`nodes="m01"`}, []string{}},
	} {
		a, b := parse(t, text), parse(t, strings.NewReplacer(tt.edit...).Replace(text))
		got := []string{}
		for _, r := range Renames(a, b) {
			got = append(got, r.From+" "+r.To)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
	}
	b := parse(t, strings.NewReplacer(`"n{node:02}"`, `"m{node:02}"`, `nodes="n01"`, `nodes="m01"`).Replace(text))
	list := Compare(parse(t, text), b, Renames(parse(t, text), b))
	want := []string{"node n[01-04] → m[01-04] 4 m[01-04]", "group nodes n01 → m01 1 first"}
	if got := lines(list); cmp.Diff(want, clean(got)) != "" || list[0].Kind != control.Renamed {
		t.Errorf("changes: %q", got)
	}
}

// clean leaves the kind of a change without an attribute out.
func clean(list []string) (out []string) {
	for _, line := range list {
		out = append(out, strings.Replace(line, "renamed ", "", 1))
	}
	return out
}

func TestEveryAttributeSaysWhenItTakesEffect(t *testing.T) {
	silent := map[string]bool{"cluster name": true, "cluster taxonomy": true, "group image": true}
	c := parse(t, text)
	for _, k := range kinds(c, c.Nodes) {
		for _, o := range k.objects {
			for _, a := range o.attributes {
				if name := k.subject + " " + a.name; (a.effect == "") != silent[name] {
					t.Errorf("%s: effect %q", name, a.effect)
				}
			}
		}
	}
}

func TestASummaryIsALine(t *testing.T) {
	a := parse(t, text)
	for _, tt := range []struct {
		edit []string
		want string
	}{
		{[]string{`to="4"`, `to="3"`}, "1 node removed; cluster: taxonomy"},
		{[]string{`"compute"`, `"comp2"`}, "1 image removed; 1 image added; image of 4 nodes"},
		{[]string{`/srv/compute`, `/srv/c2`}, "image compute: master"},
		{nil, ""},
	} {
		list := Compare(a, parse(t, strings.NewReplacer(tt.edit...).Replace(text)), nil)
		if got := Summary(list); got != tt.want {
			t.Errorf("summary %q, want %q", got, tt.want)
		}
	}
	many := make([]control.DescriptionChange, 50)
	for i := range many {
		many[i] = control.DescriptionChange{Subject: "image", Kind: control.Changed, Names: "compute", Count: 1,
			Attribute: "master"}
	}
	if got := Summary(many); len(got) > maxSummary+20 || !strings.HasSuffix(got, " more") {
		t.Errorf("summary of many: %q", got)
	}
}
