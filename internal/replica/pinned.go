package replica

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"dim/internal/image"
	"dim/internal/layer"
)

// shown is why a version must stay that a replica of a declared node needs.
const shown = "a replica shows it, or showed it until lately"

// Pinned returns the versions that the store must not remove: those that replicas follow, and those that they followed
// within the retention. why has the reason for each, such as "a replica shows it".
//
// declared reports whether the description has a node. A replica of a node that it does not have pins nothing if it has
// no layer and is not attached: if the node comes back, the replica starts anew.
func (s *Set) Pinned(declared func(node string) bool) (list []image.Version, why map[image.Digest]string) {
	whys := s.whyPinned(declared)
	since := s.retained()
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	used := make(map[image.Digest]image.Version)
	reasons := make(map[image.Digest]string)
	seen := make(map[*step]string)
	for _, dir := range slices.Sorted(maps.Keys(s.journal.states)) {
		why, known := whys[dir]
		if !known {
			why = shown // it came into being meanwhile
		}
		if why == "" {
			continue
		}
		note := func(v *image.Version) {
			used[v.Digest] = *v
			if reasons[v.Digest] != shown {
				reasons[v.Digest] = why
			}
		}
		st := s.journal.states[dir]
		note(st.to)
		if st.pending != nil {
			note(st.pending.to)
		}
		n := 0
		for p := st.steps; p != nil && p.at >= since && n < s.retain.switches; p = p.before {
			if was := seen[p]; was == shown || was == why {
				break
			}
			seen[p] = why
			note(p.from)
			n++
		}
	}
	return slices.Collect(maps.Values(used)), reasons
}

// whyPinned returns for each replica that the journal knows, by its directory, why what it shows must stay; "" if it
// need not.
func (s *Set) whyPinned(declared func(node string) bool) map[string]string {
	attached := make(map[string]bool)
	for _, r := range s.Replicas() {
		attached[string(r.dir)] = true
	}
	s.journal.mu.Lock()
	dirs := slices.Collect(maps.Keys(s.journal.states))
	s.journal.mu.Unlock()
	whys := make(map[string]string, len(dirs))
	for _, dir := range dirs {
		node, _, _ := strings.Cut(dir, "/")
		if declared(node) {
			whys[dir] = shown
			continue
		}
		there, err := s.root.Exists(layer.Home(dir).Upper(""))
		switch {
		case there || err != nil:
			whys[dir] = fmt.Sprintf("files of node %s are over it, which the description no longer has: "+
				"dim node rm %[1]s gives them up", node)
		case attached[dir]:
			whys[dir] = shown // Detach comes when the description without the node is adopted
		default:
			whys[dir] = ""
		}
	}
	return whys
}
