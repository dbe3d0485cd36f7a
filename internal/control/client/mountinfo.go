package client

import (
	"os"
	"strings"
)

// mounted reports whether the topmost mount at the absolute path dir is one of ours. It reads /proc, because a stat
// would wait for a daemon that does not answer.
func mounted(dir string) bool {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	ours := false
	for l := range strings.Lines(string(b)) {
		left, right, ok := strings.Cut(l, " - ")
		fields := strings.Fields(left)
		if ok && len(fields) > 4 && unescape(fields[4]) == dir {
			ours = strings.HasPrefix(right, "fuse.dim ")
		}
	}
	return ours
}

// unescape undoes the octal escapes of /proc/self/mountinfo (fs/proc_namespace.c, show_mountinfo).
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#").Replace(s)
}
