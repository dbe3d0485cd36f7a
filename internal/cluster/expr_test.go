package cluster

import (
	"slices"
	"strings"
	"testing"
)

func TestPatternExpands(t *testing.T) {
	variables := []string{"rack", "chassis", "blade", "index", "i"}
	values := []int64{31, 6, 9, 2559, 1}
	tests := []struct{ text, want string }{
		{"", ""},
		{"head", "head"},
		{"s{rack:02}c{chassis}b{blade:02}", "s31c6b09"},
		{"10.128.{(rack-1)*6+chassis}.{blade}", "10.128.186.9"},
		{"is{index/64+1:02}", "is40"},
		{"is{(index/64+1)%40+1:02}", "is01"},
		{"{blade:02x}{rack:x}{rack:04x}", "091f001f"},
		{"{ rack - 1 - 2 }", "28"},
		{"{2+3*4}", "14"},
		{"{((((7))))}", "7"},
		{"{100/7/2}", "7"},
		{"{9223372036854775807}", "9223372036854775807"},
	}
	for _, tt := range tests {
		p, err := parsePattern(tt.text, variables)
		if err != nil {
			t.Errorf("parse %q: %v", tt.text, err)
			continue
		}
		got, err := p.expand(nil, values)
		if err != nil || string(got) != tt.want {
			t.Errorf("expand %q: got %q, %v, want %q", tt.text, got, err, tt.want)
		}
	}
}

func TestPatternRefuses(t *testing.T) {
	tests := []struct {
		text   string
		offset int
		reason string
		hint   string
	}{
		{"a{rack", 1, "without", ""},
		{"a}", 1, "without", ""},
		{"{}", 1, "missing", ""},
		{"{rack+}", 6, "missing", ""},
		{"{rakc}", 1, "not defined", `did you mean "rack"?`},
		{"{zzzz}", 1, "not defined", "the variables are rack"},
		{"{(rack}", 6, "missing", ""},
		{"{rack)}", 5, "unexpected", ""},
		{"{rack rack}", 6, "unexpected", ""},
		{"{-1}", 1, "unexpected", ""},
		{"{rack:2}", 6, "bad format", "02x"},
		{"{rack:02d}", 6, "bad format", "02x"},
		{"{rack:0}", 6, "bad format", ""},
		{"{rack:099}", 6, "bad format", ""},
		{"{rack:+2}", 6, "bad format", ""},
		{"{rack:0+2}", 6, "bad format", ""},
		{"{rack:}", 5, "format is missing", ""},
		{"{99999999999999999999}", 1, "too large", ""},
		{strings.Repeat("a", 300), 0, "longer", ""},
		// found when they are evaluated
		{"x{rack/0}", 1, "divides by zero", ""},
		{"x{rack%(rack-rack)}", 1, "divides by zero", ""},
		{"x{0-rack}", 1, "negative", ""},
		{"x{9223372036854775807+1}", 1, "overflows", ""},
		{"x{9223372036854775807*2}", 1, "overflows", ""},
		{"x{0-9223372036854775807-2}", 1, "overflows", ""},
		{"x{(0-9223372036854775807-1)/(0-1)}", 1, "overflows", ""},
		{"x{(0-9223372036854775807-1)*(0-1)}", 1, "overflows", ""},
		{"x{(0-1)*(0-9223372036854775807-1)}", 1, "overflows", ""},
	}
	for _, tt := range tests {
		p, err := parsePattern(tt.text, []string{"rack", "index", "i"})
		if err == nil {
			_, err = p.expand(nil, []int64{3, 0, 1})
		}
		if err == nil {
			t.Errorf("%q is accepted", tt.text)
			continue
		}
		if err.offset != tt.offset || !strings.Contains(err.reason, tt.reason) || !strings.Contains(err.hint, tt.hint) {
			t.Errorf("%q: got byte %d, %q, hint %q", tt.text, err.offset, err.reason, err.hint)
		}
	}
}

func TestFieldsSplitsOutsideBracesOnly(t *testing.T) {
	pieces, offsets := fields(" is{index / 64 + 1:02}  head ")
	if !slices.Equal(pieces, []string{"is{index / 64 + 1:02}", "head"}) || !slices.Equal(offsets, []int{1, 24}) {
		t.Errorf("got %q at %v", pieces, offsets)
	}
}

func TestDidYouMean(t *testing.T) {
	names := []string{"compute", "cell", "debug", "boot"}
	for name, want := range map[string]string{
		"comptue": `did you mean "compute"?`, "cel": `did you mean "cell"?`, "Boot": `did you mean "boot"?`,
		"storage": "", "": "",
	} {
		if got := suggestion(name, slices.Values(names)); got != want {
			t.Errorf("%q: got %q, want %q", name, got, want)
		}
	}
}

func FuzzPattern(f *testing.F) {
	for _, s := range []string{
		"s{rack:02}c{i}", "{(rack-1)*6+i}", "{rack%0}", "{", "{:x}", "{rack:020x}", "{((((i))))/2}",
	} {
		f.Add(s, int64(3), int64(7))
	}
	f.Fuzz(func(t *testing.T, text string, rack, i int64) {
		p, err := parsePattern(text, []string{"rack", "i"})
		if err == nil {
			_, err = p.expand(nil, []int64{rack, i})
		}
		if err != nil && (err.offset < 0 || err.offset > len(text)) {
			t.Fatalf("%q: error at byte %d", text, err.offset)
		}
	})
}
