package serving

import (
	"context"
	"fmt"
	"sync"
	"time"

	"dim/internal/cluster"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/problems"
)

// arrivalWait is how long the boot of a node waits until its version can be served. A loader that gets no answer for
// longer may give up.
const arrivalWait = 10 * time.Second

// arrivals are versions with which nodes boot before all of their content is here.
type arrivals struct {
	wait time.Duration

	mu     sync.Mutex
	wanted map[image.Digest]int               // how many boots wait for a version
	late   map[cluster.NodeName]image.Version // that had not arrived in time when a node booted
	tried  chan struct{}                      // closed and replaced by each Reconcile
}

func newArrivals() arrivals {
	return arrivals{
		wait: arrivalWait, wanted: map[image.Digest]int{}, late: map[cluster.NodeName]image.Version{},
		tried: make(chan struct{}),
	}
}

// want notes that a boot waits for a version, until done is called.
func (a *arrivals) want(v image.Version) (done func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wanted[v.Digest]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.wanted[v.Digest]--; a.wanted[v.Digest] == 0 {
			delete(a.wanted, v.Digest)
		}
	}
}

func (a *arrivals) isWanted(v image.Version) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.wanted[v.Digest] > 0
}

// next returns a channel that is closed by the next Reconcile: one runs when a version can be served.
func (a *arrivals) next() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tried
}

// reconciled wakes the boots that wait.
func (a *arrivals) reconciled() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.tried)
	a.tried = make(chan struct{})
}

func (a *arrivals) setLate(n cluster.NodeName, v image.Version) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.late[n] = v
}

// lateFor returns the version that had not arrived when a node booted.
func (a *arrivals) lateFor(n cluster.NodeName) (v image.Version, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v, ok = a.late[n]
	return v, ok
}

func (a *arrivals) dropLate(n cluster.NodeName) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.late, n)
}

// nextBoot is what a node is to boot.
type nextBoot struct {
	now     *follow.Declared
	version image.Version
	changes bool // the node follows it from this boot on
}

// nextBoot returns what a node is to boot. ok is false if its replica shows that, or if it has none here.
func (s *Server) nextBoot(n *cluster.Node) (b nextBoot, ok bool) {
	b.now = s.Declared.Now()
	ref, next := b.now.Follows(n)
	if b.changes = !next.IsZero(); b.changes {
		ref = next
	}
	b.version, ok = b.now.State.Resolve(ref)
	shows, served := s.Shows(n.Name)
	return b, ok && served && !same(shows, b.version)
}

// servable reports whether a version can be served: it is whole, or its trees are here and its content is on its way.
func (s *Server) servable(b *nextBoot) bool {
	return newPlan(b.now).inStore(s, b.version) == nil || s.Partial(b.version)
}

// awaitVersion waits until the version that a node is to boot can be served, for the time arrivals.wait at most. The
// trees of the version are brought first, and then what the node asks for: see Waits. If the trees do not arrive in
// time, the node boots the version that it has, which is a problem until the other one is here.
func (s *Server) awaitVersion(ctx context.Context, n *cluster.Node, b *nextBoot) {
	defer s.arriving.want(b.version)()
	timeout := time.NewTimer(s.arriving.wait)
	defer timeout.Stop()
	for {
		tried := s.arriving.next()
		if s.servable(b) {
			return
		}
		select {
		case <-tried:
		case <-ctx.Done():
			return
		case <-timeout.C:
			s.arriving.setLate(n.Name, b.version)
			s.Problems.Set(problems.Node(n.Name), s.lateError(b.version, b.changes))
			s.Log.Warn("node boots an older version: its own has not arrived", "node", n.Name,
				"version", b.version.Ref().String())
			return
		}
	}
}

// lateError is the problem of a node that booted an older version than v. atBoot: it follows v from its next boot on.
func (s *Server) lateError(v image.Version, atBoot bool) error {
	then := "its root changes when that is here"
	if atBoot {
		then = "it changes at its next boot"
	}
	return fmt.Errorf("it booted an older version, because %s had not arrived at this server after %v; %s",
		v.Ref(), s.arriving.wait, then)
}

// late returns the problem of a node that has booted an older version than it was to boot, as long as that one is not
// here and the node is to have it.
func (s *Server) late(p *plan, n *cluster.Node) error {
	v, ok := s.arriving.lateFor(n.Name)
	if !ok {
		return nil
	}
	now, next := p.now.Follows(n)
	for _, ref := range []image.Ref{now, next} {
		if w, known := p.now.State.Resolve(ref); known && same(v, w) && p.inStore(s, v) != nil {
			return s.lateError(v, ref == next)
		}
	}
	s.arriving.dropLate(n.Name)
	return nil
}
