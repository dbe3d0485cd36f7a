package remote

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// ParsePlace parses what stands behind "ssh:" in a description: //[USER@]HOST[:PORT]/DIR.
func ParsePlace(s string) (Place, error) {
	var p Place
	rest, ok := strings.CutPrefix(s, "//")
	who, dir, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 || strings.IndexByte(s, 0) >= 0 {
		return p, fmt.Errorf("%q is not //[USER@]HOST[:PORT]/DIR", s)
	}
	p.Dir = path.Clean("/" + dir)
	if user, host, ok := strings.Cut(who, "@"); ok {
		if !plain(user) {
			return p, fmt.Errorf("%q is not a user", user)
		}
		p.User, who = user, host
	}
	if v6, rest, ok := strings.Cut(strings.TrimPrefix(who, "["), "]"); ok && strings.HasPrefix(who, "[") {
		p.Host, p.Port = v6, strings.TrimPrefix(rest, ":")
		if rest != "" && !strings.HasPrefix(rest, ":") {
			return p, fmt.Errorf("%q is not a host", who)
		}
	} else {
		p.Host, p.Port, _ = strings.Cut(who, ":")
	}
	if !plain(strings.ReplaceAll(p.Host, ":", "")) {
		return p, fmt.Errorf("%q is not a host", who)
	}
	if n, err := strconv.ParseUint(p.Port, 10, 16); p.Port != "" && (err != nil || n == 0) {
		return p, fmt.Errorf("%q is not a port", p.Port)
	}
	return p, nil
}

// plain reports whether a name is none that ssh or a shell could take for something else.
func plain(s string) bool {
	return s != "" && s[0] != '-' && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-%", r))
	})
}

// quote makes one word of s for a shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// glob makes a pattern of find's -path that matches s alone.
func glob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}
