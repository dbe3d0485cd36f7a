package replica

import (
	"dim/internal/replica/lower"
	"dim/internal/vfs"
)

// addAlso adds further paths to what is set aside. There nothing stays, also where the master has changed only times.
func (t *transition) addAlso(paths []string) {
	if len(paths) == 0 {
		return
	}
	t.further, t.also = paths, &changes{paths: len(paths), tree: &change{to: vfs.Directory}}
	t.together = make(map[string]bool, len(paths))
	for _, path := range paths {
		t.together[path] = true
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
