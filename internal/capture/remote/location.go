package remote

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// ParseLocation parses the part of a master after "ssh:", //[USER@]HOST[:PORT]/DIR.
func ParseLocation(s string) (Location, error) {
	var p Location
	rest, ok := strings.CutPrefix(s, "//")
	host, dir, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || strings.IndexByte(s, 0) >= 0 {
		return p, fmt.Errorf("%q is not //[USER@]HOST[:PORT]/DIR", s)
	}
	p.Dir = path.Clean("/" + dir)
	if user, rest, ok := strings.Cut(host, "@"); ok {
		if !plain(user) {
			return p, fmt.Errorf("%q is not a user", user)
		}
		p.User, host = user, rest
	}
	if v6, rest, ok := strings.Cut(strings.TrimPrefix(host, "["), "]"); ok && strings.HasPrefix(host, "[") {
		p.Host, p.Port = v6, strings.TrimPrefix(rest, ":")
		if rest != "" && !strings.HasPrefix(rest, ":") {
			return p, fmt.Errorf("%q is not a host", host)
		}
	} else {
		p.Host, p.Port, _ = strings.Cut(host, ":")
	}
	if !plain(strings.ReplaceAll(p.Host, ":", "")) {
		return p, fmt.Errorf("%q is not a host", host)
	}
	if n, err := strconv.ParseUint(p.Port, 10, 16); p.Port != "" && (err != nil || n == 0) {
		return p, fmt.Errorf("%q is not a port", p.Port)
	}
	return p, nil
}

// plain reports whether a name has no character that is special to ssh or a shell.
func plain(s string) bool {
	return s != "" && s[0] != '-' && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("._-%", r))
	})
}

// quote quotes s as one word of a shell command.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// quoteForAll quotes s as one word of a command of any login shell. In single quotes, fish and csh give a backslash a
// meaning that other shells do not; so it is outside of them.
func quoteForAll(s string) string {
	return "'" + strings.NewReplacer(`\`, `'\\'`, `'`, `'\''`).Replace(s) + "'"
}

// glob returns a pattern for find -path that matches only s.
func glob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}
