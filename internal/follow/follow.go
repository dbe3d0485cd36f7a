// Package follow keeps the declared state as this server knows it: from the shared state or, on an image server, from a
// head, and from the copy of it that is kept on disk.
//
// # Concepts
//
// The shared state (package coord) holds what is declared for the whole cluster. A Follower takes its states in order,
// and adopts each: it keeps the state on disk, parses the description if that changed, and calls those who subscribed.
// Now returns what was adopted last, as one value that is never changed but replaced, so readers take no lock.
//
// Several heads form one etcd cluster. The embedded etcd listens for others only if there are other heads. When the
// first one is declared, it is started again, which takes less than a second. A head that the others have removed sets
// its directory aside, and asks to be added again; heads whose identity has ended are refused.
//
// An image server that is no head has no access to the shared state. It gets the same states, with what is declared for
// its own nodes, from any head (package stream). Change refuses there and says where the change can be made.
//
// # Without the shared state
//
// Load finds what held last from the disk alone. While the shared state cannot be reached that goes on to hold, and
// Change refuses with a reason. A shared state that is found empty was lost: what this server kept of it is put back.
// An embedded etcd that ended in this process can only be started by a new one, so Run returns ErrRestart as soon as
// that may succeed (its disk has room again). One whose directory was replaced is opened here.
//
// # Concurrency
//
// Load, Subscribe and OnRestore are called first, by one goroutine. All other methods may be called after that from any
// number of goroutines. Adoption is serialized: at any time at most one state is being adopted, or a function runs in
// Stable or Exclusive. The lock is not reentrant: subscribers and those functions must not call Stable, Exclusive or
// Refresh, nor anything that does.
//
// The locks restoring, adopting and mu are never held together.
//
// # What it must not know
//
// What follows from a declared state: which replica shows what, and what a node boots.
package follow

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/coord/member"
	"dim/internal/follow/stream"
	"dim/internal/periodic"
)

// Options of a Follower. Server, StateFile, CoordDir and Log are needed, and Heads on an image server.
type Options struct {
	Server      cluster.ServerName   // this server
	StateFile   string               // the copy of the state
	CoordDir    string               // of the embedded etcd; its parent is the data directory
	Etcd        coord.Remote         // an existing etcd; the zero value: the embedded one
	ClusterFile string               // a description to apply at the start; "": the one that was applied last
	Peers       PeersFunc            // of the embedded etcd; nil: it has none
	Heads       func() []stream.Head // that an image server may follow now
	Log         *slog.Logger
}

// PeersFunc returns how the embedded etcd of this head and those of other heads reach each other, nil if there are no
// other heads.
type PeersFunc func(now *Declared) (*member.Peers, error)

// Follower follows the shared state.
type Follower struct {
	Options

	states
	subscribers []func(context.Context, *Declared)
	restore     RestoreFunc

	adopting sync.Mutex // held by who adopts a state
	unkept   unkept     // guarded by adopting

	restoring  sync.Mutex // guards given.put, and lets one at a time put what the shared state lacks
	given      given
	incomplete atomic.Bool // the shared state may lack something that this server has

	searched chan struct{} // closed when the shared state was found, or not, for the first time

	heads *stream.Client // of an image server that is no head; nil: this is a head

	mu      sync.Mutex // guards what follows
	coord   *coord.Coord
	peers   bool          // the embedded etcd listens for other heads
	reopens chan struct{} // closed when the shared state was opened again; nil: it is not being opened
	err     error         // why the shared state is not available
	changed time.Time     // when err became nil, or not nil

	identities identities

	checked checkResult
}

// identities is what this server has noticed about identities that have ended.
type identities struct {
	readmitted map[string]coord.Revocation // of servers that count again, by identity
	ended      coord.Revocation            // of this server, by another head: see NoteSuperseded
}

// states are the declared states that a Follower knows.
type states struct {
	current  atomic.Pointer[Declared]
	settled  atomic.Pointer[Declared]
	expected atomic.Pointer[expected] // see Expect
}

// checkResult is the result of the last check whether the shared state can be changed.
type checkResult struct {
	at  time.Time
	err error
}

// RestoreFunc puts to c what this server has and the shared state s lacks; kept is the state that this server adopted
// last.
type RestoreFunc func(ctx context.Context, c *coord.Coord, s, kept coord.State) error

// New returns a Follower of the shared state.
func New(o Options) *Follower {
	f := &Follower{
		Options: o, searched: make(chan struct{}), unkept: unkept{wake: make(chan struct{}, 1)},
		identities: identities{readmitted: map[string]coord.Revocation{}},
	}
	f.err = fmt.Errorf("not found yet: %s", cmp.Or(strings.Join(o.Etcd.Endpoints, ", "), o.CoordDir))
	return f
}

// Subscribe lets adopted be called with each state that is adopted, in order, before the next one is. It must return
// soon. It is called before Run.
func (f *Follower) Subscribe(adopted func(ctx context.Context, now *Declared)) {
	f.subscribers = append(f.subscribers, adopted)
}

// OnRestore sets what puts content of this server to a shared state that may lack it. It is called before Run.
func (f *Follower) OnRestore(r RestoreFunc) { f.restore = r }

// Now returns the declared state that holds now, nil before Load has succeeded.
func (f *Follower) Now() *Declared { return f.current.Load() }

// Cluster returns the description that holds now.
func (f *Follower) Cluster() *cluster.Cluster { return f.current.Load().Cluster }

// restoreInterval is the interval between tries to put what the shared state may lack.
const restoreInterval = 10 * time.Second

// Run finds the shared state and adopts what it says, until ctx ends. It returns an error only to be restarted:
// ErrRestart. Whoever uses the state that Load has found must have adopted it before.
func (f *Follower) Run(ctx context.Context) error {
	if now := f.Now(); now.State.Description != nil && now.State.Description.Digest == now.Digest {
		f.settled.CompareAndSwap(nil, now) // the source may not send it again
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return f.keepUnkept(ctx) })
	if f.heads != nil {
		g.Go(func() error {
			f.heads.Run(ctx, f.Now().State)
			return nil
		})
		return g.Wait()
	}
	g.Go(func() error { return f.follow(ctx) })
	g.Go(func() error {
		return periodic.Run(ctx, restoreInterval, func(ctx context.Context) {
			if f.incomplete.Load() {
				f.restoreAgain(ctx)
			}
		})
	})
	return g.Wait()
}

// Close closes the connection to the shared state.
func (f *Follower) Close() error {
	if c := f.shared(); c != nil {
		return c.Close()
	}
	return nil
}

func (f *Follower) errorf(format string, args ...any) error {
	return fmt.Errorf("serve as %s: "+format, append([]any{f.Server}, args...)...)
}
