package pathmatch

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestAPatternCovers(t *testing.T) {
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"/usr", "usr", true},
		{"/usr", "usr/bin/ls", true},
		{"/usr", "usrlocal", false},
		{"/tmp/*", "tmp", false},
		{"/tmp/*", "tmp/a", true},
		{"/tmp/*", "tmp/a/b", true},
		{"/var/log/**", "var/log", false},
		{"/var/log/**", "var/log/a/b", true},
		{"/**/core", "core", true},
		{"/**/core", "a/b/core", true},
		{"/**/core", "a/b/core.1", false},
		{"/etc/ssh/ssh_host_*", "etc/ssh/ssh_host_rsa_key", true},
		{"/etc/ssh/ssh_host_*", "etc/ssh/sshd_config", false},
		{"/a", "", false},
	}
	for _, tt := range tests {
		p, err := Parse(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.covers(tt.name); got != tt.want {
			t.Errorf("%q covers %q: got %v, want %v", tt.pattern, tt.name, got, tt.want)
		}
	}
}

func TestParseRefusesInvalidPatterns(t *testing.T) {
	for _, s := range []string{"", "/", "usr", "/a//b", "/a/../b", "/a[", "/a/"} {
		if _, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) accepts it", s)
		}
	}
}

func TestAMatcherAgreesWithCover(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		part := rapid.SampledFrom([]string{"a", "b", "ab", "*", "**", "a*", "?", "[ab]"})
		var ps List
		for _, parts := range rapid.SliceOfN(rapid.SliceOfN(part, 1, 4), 0, 4).Draw(rt, "patterns") {
			p, err := Parse("/" + strings.Join(parts, "/"))
			if err != nil {
				rt.Fatal(err)
			}
			ps = append(ps, p)
		}
		names := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab", "c"}), 1, 5).Draw(rt, "names")
		m := ps.Matcher()
		for i, name := range names {
			covered := m.Covers(name)
			if want := ps.Cover(strings.Join(names[:i+1], "/")); covered != want {
				rt.Fatalf("%q and %q: the matcher says %v, Cover %v", ps, names[:i+1], covered, want)
			}
			if covered {
				return // a walk does not enter it
			}
			m = m.Enter(name)
		}
	})
}

func TestAMatcherIsIdleWhereNothingCanMatch(t *testing.T) {
	p, err := Parse("/var/tmp/*")
	if err != nil {
		t.Fatal(err)
	}
	m := List{p}.Matcher()
	if m.Idle() || m.Everything() {
		t.Error("the root is not idle, nor is everything covered")
	}
	if !m.Enter("usr").Idle() {
		t.Error("/usr is idle")
	}
	if !m.Enter("var").Enter("tmp").Everything() {
		t.Error("everything in /var/tmp is covered")
	}
}
