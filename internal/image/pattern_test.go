package image

import "testing"

func TestPatternCovers(t *testing.T) {
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
		p, err := ParsePattern(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.covers(tt.name); got != tt.want {
			t.Errorf("%q covers %q: got %v, want %v", tt.pattern, tt.name, got, tt.want)
		}
	}
}

func TestParsePatternRefuses(t *testing.T) {
	for _, s := range []string{"", "/", "usr", "/a//b", "/a/../b", "/a[", "/a/"} {
		if _, err := ParsePattern(s); err == nil {
			t.Errorf("ParsePattern(%q) accepts it", s)
		}
	}
}
