// Package serving decides which root a caller gets: it attaches and switches the replicas of this server's nodes so
// that they show what is declared, and exports them.
//
// # Concepts
//
// An export is one tree with the node it belongs to: a node's replica of its present image, a replica of a former image
// (the node runs on it until it boots), or a bare version. Exports live in one table that is replaced whole, so a call
// of a node takes no lock.
//
// Reconcile makes every replica show what is declared. A node in the middle of its boot keeps the version whose kernel
// it was given (Begin pins it) until it runs; a replica whose node has a mount in the way of the switch stays until the
// mount is gone. What could not be done is a problem, and Run tries it again.
//
// A version is shown when the store has all of it. A node that boots with a version, and one that has no other version
// to show, get it when its trees are here, while its content arrives.
//
// # Concurrency
//
// All methods may be called from any number of goroutines. Decisions are serialized by Declared.Stable: no state is
// adopted while one is made.
//
// Lock order:
//
//  1. the lock of Declared.Stable
//  2. Server.changing, Server.deciding or arrivals.mu, never two of them
//
// A call of a node takes none of these locks. The exception is a call with a handle whose tree is not exported, which
// was issued before the last restart.
//
// # What it must not know
//
// How a protocol encodes a call, how a rollout goes on, and what a node loads to boot.
package serving

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/layers/pkgread"
	"dim/internal/liveness"
	"dim/internal/meter"
	"dim/internal/nodefile"
	"dim/internal/problems"
	"dim/internal/push"
	"dim/internal/quantity"
	"dim/internal/replica"
	"dim/internal/store"
	"dim/internal/versionfs"
)

// Declared is the declared state. follow.Follower implements it.
type Declared interface {
	// Now returns what is declared now.
	Now() *follow.Declared
	// Stable calls fn with what is declared now; no other state is adopted before fn returns.
	Stable(fn func(now *follow.Declared))
}

// Push is the channel to the resident processes of nodes. push.Hub implements it.
type Push interface {
	// Mounts returns what a node reported that it has mounted.
	Mounts(cluster.NodeName) (push.MountTable, bool)
	// Wake lets nodes ask which directories have changed.
	Wake(...cluster.NodeName)
	// Forget drops a node that is no longer declared.
	Forget(cluster.NodeName)
}

// Options of a Server. All are needed.
type Options struct {
	Server   cluster.ServerName // this server
	Declared Declared
	Store    *store.Store
	Content  versionfs.Source         // the store, and what has arrived of versions that are not whole
	Partial  func(image.Version) bool // whether a version can be served that is not whole
	Set      *replica.Set
	Liveness *liveness.Tracker
	Push     Push
	Packages *pkgread.Reader
	Class    func(*cluster.Node, *cluster.Image) meter.Class // in which the calls of a node are counted
	Closed   func() bool                                     // whether this server serves no nodes now
	Problems *problems.List
	Log      *slog.Logger
}

// Server serves the roots of one image server's nodes.
type Server struct {
	Options
	started time.Time

	table    atomic.Pointer[exportTable]
	changing sync.Mutex // held by who replaces table

	first struct { // the first Reconcile
		placed, all atomic.Int64
		done        chan struct{} // closed after it
		once        sync.Once
	}

	machines atomic.Pointer[nodefile.Machines] // see machinesOf

	unsettled atomic.Bool   // a replica does not show what is declared; Run tries again
	holding   atomic.Bool   // a node in the middle of its boot keeps the version that it is to leave
	called    atomic.Bool   // a node has called since Run checked last; its boot may be over
	booted    atomic.Bool   // Booted may have nodes to return
	waiting   chan struct{} // capacity 1: holding or unsettled may have become true

	// Guarded by Declared.Stable:
	declared  map[cluster.NodeName]bool // nodes that were declared once
	described *cluster.Cluster          // by which forget has found them

	renaming atomic.Bool // see Renaming
	arriving arrivals

	left     atomic.Pointer[map[cluster.NodeName]string] // see Left
	deciding sync.Mutex
	decided  map[cluster.NodeName]packageDecision // of nodes that stay because of their packages; guarded by deciding
}

// New returns a Server that exports nothing before the first Reconcile.
func New(o Options) *Server {
	s := &Server{
		Options: o, started: time.Now(), declared: map[cluster.NodeName]bool{},
		decided: map[cluster.NodeName]packageDecision{}, waiting: make(chan struct{}, 1), arriving: newArrivals(),
	}
	s.first.done = make(chan struct{})
	s.table.Store(&exportTable{trees: map[replica.Tree]*export{}, nodes: map[cluster.NodeName]*export{}})
	return s
}

// Ready returns a channel that is closed after the first Reconcile: every node has its root by then, or a problem.
func (s *Server) Ready() <-chan struct{} { return s.first.done }

// WhenReady lets requests wait until Ready.
func (s *Server) WhenReady(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-s.first.done:
			h.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
}

// Starting tells in words how far the first Reconcile is.
func (s *Server) Starting() string {
	if all := s.first.all.Load(); all > 0 {
		return fmt.Sprintf("%s of %s replicas are prepared", quantity.Count(s.first.placed.Load()), quantity.Count(all))
	}
	return "it opens its sockets"
}

const (
	// retryInterval is the interval between tries of what could not be done.
	retryInterval = 10 * time.Second
	// bootInterval is the interval between checks whether a boot is over for which a switch waits.
	bootInterval = 250 * time.Millisecond
)

// Run switches replicas that had to wait, until ctx ends: at the next call of any node those that waited for the end of
// a boot, and at intervals all that could not be switched. While nothing waits it does nothing.
func (s *Server) Run(ctx context.Context) error {
	retry := time.Now().Add(retryInterval)
	for {
		var due <-chan time.Time
		switch {
		case s.holding.Load():
			due = time.After(bootInterval)
		case s.unsettled.Load():
			due = time.After(time.Until(retry))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.waiting:
			if due == nil {
				retry = time.Now().Add(retryInterval)
			}
			continue
		case <-due:
		}
		again := !time.Now().Before(retry)
		if again {
			retry = time.Now().Add(retryInterval)
		}
		if called := s.called.Swap(false); again || called && s.holding.Load() {
			s.Reconcile(ctx)
		}
	}
}

// await lets Run see that something waits.
func (s *Server) await() {
	select {
	case s.waiting <- struct{}{}:
	default:
	}
}

// Node is what is served to a node now.
type Node struct {
	Replica   *replica.Replica // of its present image
	NodeFiles []string         // paths of the files rendered for it, without a leading slash
	Meter     *meter.Meter     // what its calls cost
}

// Node returns what is served to a node; ok is false when it has no root here.
func (s *Server) Node(name cluster.NodeName) (n Node, ok bool) {
	x := s.node(name)
	if x == nil {
		return n, false
	}
	return Node{Replica: x.fs, NodeFiles: x.paths, Meter: x.meter}, true
}

// Shows returns the version that a node's replica shows; ok is false when it has no root here.
func (s *Server) Shows(name cluster.NodeName) (v image.Version, ok bool) {
	x := s.node(name)
	if x == nil {
		return v, false
	}
	return x.fs.Version(), true
}

// Boots returns the version whose kernel a node is to boot: the one that its replica shows, because kernel and modules
// must fit. The error says what a person has to do.
func (s *Server) Boots(n *cluster.Node) (image.Version, error) {
	if x := s.node(n.Name); x != nil && x.fs.Tree() == treeOf(n) {
		return x.fs.Version(), nil
	}
	if text := s.Problems.Text(problems.Node(n.Name)); text != "" {
		return image.Version{}, errors.New(text)
	}
	v, err := s.Declared.Now().Version(n)
	if why, hint := s.Declared.Now().Stranded(n); why != "" {
		return v, fmt.Errorf("%s; %s", why, hint)
	}
	if err == nil {
		err = fmt.Errorf("serve as %s: node %s is not served here", s.Server, n.Name)
	}
	return v, err
}

// Serves reports whether this server serves n: see follow.Declared.Serves. No other server does, because it would serve
// a layer of its own.
func (s *Server) Serves(n *cluster.Node) bool {
	return s.serves(s.Declared.Now(), n)
}

// serves reports whether this server serves n by the state now.
func (s *Server) serves(now *follow.Declared, n *cluster.Node) bool {
	return !s.Closed() && now.Serves(s.Server, n)
}

// Waits reports whether a node of this server waits for a version that is not whole: it boots with it, or it has no
// root here, because there is no other version that it could show.
func (s *Server) Waits(v image.Version) bool {
	if s.arriving.isWanted(v) {
		return true
	}
	now := s.Declared.Now()
	for _, n := range now.Cluster.Nodes {
		if string(n.Image.Name) != v.Image || !s.Serves(n) || s.node(n.Name) != nil {
			continue
		}
		if w, err := now.Version(n); err == nil && same(v, w) {
			return true
		}
	}
	return false
}

// Booted returns the nodes that show already what they were to follow from their next boot on, because they have
// booted, with what that is. It returns them until the declared state says that they follow it.
func (s *Server) Booted() coord.Refs {
	if !s.booted.Swap(false) {
		return nil
	}
	now, booted := s.Declared.Now(), coord.Refs{}
	for name := range now.State.Next {
		n, ok := now.Cluster.Node(cluster.NodeName(name))
		if !ok {
			continue
		}
		_, next := now.Follows(n)
		v, known := now.State.Resolve(next)
		if shows, ok := s.Shows(n.Name); known && ok && same(shows, v) {
			booted[name] = next
		}
	}
	if len(booted) > 0 {
		s.booted.Store(true)
	}
	return booted
}

func same(a, b image.Version) bool { return a.Number == b.Number && a.Digest == b.Digest }
