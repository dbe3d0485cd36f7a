// Package mounts finds the mount points in a directory, in the text of /proc/self/mountinfo (proc(5)).
//
// The text may come from another machine. It is bounded by the caller and parsed strictly.
package mounts

import (
	"fmt"
	"strconv"
	"strings"

	"dim/internal/capture/draft"
)

// Parse returns the kinds of the file systems that are mounted below root, by their mount points relative to root.
// Mount points below another are left out. If several file systems are mounted on one directory, the last one counts.
func Parse(text, root string) (map[string]string, error) {
	inside := strings.TrimSuffix(root, "/") + "/"
	all := map[string]string{}
	for line := range strings.Lines(text) {
		left, right, _ := strings.Cut(line, " - ")
		f := strings.Fields(left)
		if len(f) < 5 {
			return nil, fmt.Errorf("%q is not a line of mountinfo", line[:min(len(line), 200)])
		}
		at := unescape(f[4])
		rel, ok := strings.CutPrefix(at, inside)
		if !ok || rel == "" {
			continue
		}
		path, err := draft.Clean(rel)
		if err != nil || path == "" {
			return nil, fmt.Errorf("mount point %q: %v", at[:min(len(at), 200)], err)
		}
		kind, _, _ := strings.Cut(right, " ")
		all[path] = kind
	}
	outer := make(map[string]string, len(all))
	for path, kind := range all {
		if !below(path, all) {
			outer[path] = kind
		}
	}
	return outer, nil
}

// below reports whether set has a directory above path.
func below(path string, set map[string]string) bool {
	for i := range path {
		if path[i] == '/' {
			if _, ok := set[path[:i]]; ok {
				return true
			}
		}
	}
	return false
}

// unescape replaces the escapes \OOO of mountinfo.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
