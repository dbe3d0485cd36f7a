package oncrpc

// Count switches on or off that s counts calls, to measure what that costs. No call may be under way.
func (s *Server) Count(on bool) { s.uncounted.Store(!on) }
