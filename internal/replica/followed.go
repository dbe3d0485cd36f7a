package replica

import "dim/internal/image"

// Followed returns the version that a node's replica of an image shows, or followed last if it is not attached.
// ok is false if the replica was never written to nor switched. It must not be called while the replica is
// attached or switched.
func (s *Set) Followed(node, name string) (v image.Version, ok bool) {
	if r, attached := s.Find(ReplicaTree(node, name)); attached {
		return r.Version(), true
	}
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	st := s.journal.states[node+"/"+name]
	if st == nil {
		return v, false
	}
	return *st.to, true
}
