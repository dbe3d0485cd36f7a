package replica

import "dim/internal/image"

// Followed returns the version that a node's replica of an image shows. If it is not attached, that is the version that
// it followed last, or the one to which it was being switched: Attach completes a switch that was interrupted. ok is
// false if the replica was never written to nor switched. It must not be called while the replica is attached or
// switched.
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
	if st.pending != nil {
		return *st.pending.to, true
	}
	return *st.to, true
}
