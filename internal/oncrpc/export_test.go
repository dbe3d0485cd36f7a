package oncrpc

// Count switches the counting of calls on or off. No call may be under way.
func (s *Server) Count(on bool) { s.uncounted.Store(!on) }
