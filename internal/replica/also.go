package replica

import (
	"slices"
	"strings"

	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// addAlso adds further paths, those at which the versions do not differ, to what is set aside.
func (t *transition) addAlso(paths []string) {
	paths = slices.DeleteFunc(slices.Clone(paths), t.changes.differ)
	if len(paths) == 0 {
		return
	}
	t.further, t.also = paths, &changes{paths: len(paths), tree: &change{to: vfs.Directory}}
	for _, path := range paths {
		way := t.also.tree.way(path)
		n := way[len(way)-1]
		n.differs, n.to = true, 0
		if low, ok := t.to.index.Find(path); ok {
			n.to = lower.TypeOf(t.to.index.Type(low))
			for _, up := range way {
				up.shows = true
			}
		}
	}
}

// differ reports whether the versions differ at a path.
func (c *changes) differ(path string) bool {
	at := c.tree
	for name := range strings.SplitSeq(path, "/") {
		if at = at.kid(name); at == nil {
			return false
		}
	}
	return at.differs
}
