package replica

import (
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// addExtra adds further paths to what is set aside. Whatever the layer has there is set aside, even what the rules of
// stays would leave.
func (t *transition) addExtra(paths []string) {
	if len(paths) == 0 {
		return
	}
	t.extraPaths, t.extra = paths, &changes{paths: len(paths), tree: &change{to: vfs.Directory}}
	t.isExtra = make(map[string]bool, len(paths))
	for _, path := range paths {
		t.isExtra[path] = true
		way := t.extra.tree.way(path)
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
