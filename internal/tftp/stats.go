package tftp

import "sync/atomic"

// Stats are counters since the start. A transfer that its client or the end of the server ended is in none of them.
type Stats struct {
	Done      uint64 // transfers whose last block was acknowledged
	Failed    uint64 // transfers whose client no longer answered, or whose file could not be read
	Refused   uint64 // requests that were answered with an error
	Dropped   uint64 // requests that were not answered, because there were too many transfers
	Malformed uint64 // packets that are no requests
}

// counters are the Stats of a Server.
type counters struct{ done, failed, refused, dropped, malformed atomic.Uint64 }

// Stats returns the counters.
func (s *Server) Stats() Stats {
	c := &s.counters
	return Stats{
		Done: c.done.Load(), Failed: c.failed.Load(), Refused: c.refused.Load(), Dropped: c.dropped.Load(),
		Malformed: c.malformed.Load(),
	}
}
