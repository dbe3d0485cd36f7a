// Package push tells running nodes where to look again after a switch, and hears from them what they have mounted and which of
// their processes still use replaced files.
//
// A node asks and waits: one HTTP call that is answered when its replica has changed, or after a while all the same. What it
// says comes with the call. docs/formats/push.md has the form of both.
//
// # Invariants
//
//   - Nothing is kept on disk but what nodes have mounted (Save), and nothing at all that an answer depends on: a node says up to which switch it has looked, and what came after is asked of
//     Options.Since. So answers that are lost, nodes that come late and servers that are restarted cost nothing.
//   - A node is known by its address and believed about itself alone. One call of it waits at a time. What is kept of its
//     words is bounded, and cleared of what would do harm on a terminal.
//
// # Concurrency
//
// All methods may be called from any number of goroutines. A handler waits for Options.Hold at most.
//
// # What it must not know
//
// How replicas are made and switched, and what follows from what nodes say.
package push

import (
	"iter"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"dim/internal/cluster"
)

// Options are what a Hub needs. Who, Since and Log must be set.
type Options struct {
	// Who returns the node that calls. Its error goes to the caller.
	Who func(*http.Request) (cluster.NodeName, error)
	// Since tells what has changed in the node's replica of an image after the given stamp; of image "" in its present one.
	Since func(node cluster.NodeName, image string, stamp int64) (Looks, error)
	// Seen, if not nil, is called when a node's process calls, and when its call ends.
	Seen func(node cluster.NodeName, at time.Time)
	Log  *slog.Logger
	Hold time.Duration // for how long a call waits; 0: 50 s
	Now  func() time.Time
}

// Looks are the directories in which a node has to look again.
type Looks struct {
	Image string
	Stamp int64            // of the replica's last change; 0: never
	All   bool             // it is not known what has changed: these are all directories
	Dirs  iter.Seq[string] // without a leading slash, each behind those above it
}

// Mount is something that a node has mounted on a path of its replica.
type Mount struct {
	Path string `json:"path"` // without a leading slash
	Type string `json:"type"` // of the file system
}

// Process is one that has a replaced file mapped: its program, a library, data.
type Process struct {
	PID  int
	Name string
	Unit string // of systemd, as "sshd.service"; "" when it belongs to none
	Path string // of one such file, without a leading slash
	More int    // how many further ones it has
}

// Said is what is known of a node's process.
type Said struct {
	Boot    string    // id of the boot that it runs in
	Image   string    // of the replica that it has as its root
	Stamp   int64     // of the switch up to which it has looked
	Heard   time.Time // when it called last
	Waiting bool      // a call of it waits now
	Memory  int       // that it takes, in kB
	Mounts  []Mount
	Stale   []Process
	Left    int // mounts and processes that it had no room to tell of
}

// defaultHold is below the minute after which some firewalls forget a connection that is silent.
const defaultHold = 50 * time.Second

// Lost is after what silence a node's process is taken to be gone.
const Lost = 2 * time.Minute

// Connected reports whether the node will hear of a switch.
func (s *Said) Connected(now time.Time) bool { return s.Waiting || now.Sub(s.Heard) < Lost }

// Hub is all nodes' calls.
type Hub struct {
	Options

	mu    sync.Mutex
	nodes map[cluster.NodeName]*record
	news  bool // of mounts, since they were saved
}

// record is one node.
type record struct {
	said  Said
	calls int           // how many were begun: the last is the one that waits
	wake  chan struct{} // closed when there may be news, or another call has come

	mounted Mounted
}

// New returns a Hub of which no node has been heard.
func New(o Options) *Hub {
	if o.Hold == 0 {
		o.Hold = defaultHold
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Seen == nil {
		o.Seen = func(cluster.NodeName, time.Time) {}
	}
	return &Hub{Options: o, nodes: make(map[cluster.NodeName]*record)}
}

// Wake lets the calls of nodes look whether something has changed.
func (h *Hub) Wake(nodes ...cluster.NodeName) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range nodes {
		if r := h.nodes[n]; r != nil {
			r.stir()
		}
	}
}

func (r *record) stir() {
	close(r.wake)
	r.wake = make(chan struct{})
}

// Get returns what a node has said last; ok is false when it was not heard since the start.
func (h *Hub) Get(node cluster.NodeName) (said Said, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.nodes[node]
	if r == nil || r.said.Heard.IsZero() {
		return Said{}, false
	}
	return r.said, true
}

// Forget drops what is known of a node.
func (h *Hub) Forget(node cluster.NodeName) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.nodes[node]; r != nil {
		r.stir()
		delete(h.nodes, node)
		h.news = true
	}
}
