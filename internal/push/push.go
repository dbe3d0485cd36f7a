// Package push tells running nodes in which directories of their replicas a switch has changed something, so that their
// kernels look there again. From the same calls it learns what nodes have mounted, and which of their processes still
// use replaced files.
//
// A node's resident process makes one HTTP call after the other. The server answers a call as soon as the node's
// replica has changed, and otherwise after a while. The form of both is docs/formats/push.md.
//
// # Invariants
//
//   - An answer depends on nothing that is kept here: the call names the switch up to which the node has looked, and
//     Options.Changes has what came after it. Lost answers, late nodes and restarts of the server cost nothing.
//   - Only what nodes have mounted is kept on disk (Save).
//   - A node is identified by its address, and its call is believed about that node only. At most one call of a node
//     waits at a time. Its texts are bounded, and characters that could do harm on a terminal are replaced.
//
// # Concurrency
//
// A Hub may be used by any number of goroutines. A handler blocks until it answers its call.
//
// # What it must not know
//
// How replicas are made and switched, and what follows from what nodes report.
package push

import (
	"iter"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"dim/internal/cluster"
)

// Options are what a Hub needs. Caller, Changes and Log must be set.
type Options struct {
	// Caller returns the node that calls. Its error goes to the caller.
	Caller func(*http.Request) (cluster.NodeName, error)
	// Changes returns what has changed in the node's replica of an image after a stamp. Image "" is its present one.
	Changes func(node cluster.NodeName, image string, stamp int64) (Changes, error)
	// Seen, if not nil, is called when a node's process calls, and when its call ends.
	Seen func(node cluster.NodeName, at time.Time)
	Log  *slog.Logger
}

// Changes are the directories of a replica in which something has changed.
type Changes struct {
	Image string
	Stamp int64            // of the replica's last change; 0: it never changed
	Dirs  iter.Seq[string] // without a leading slash; a directory comes after its parents
}

// Mount is a mount on a path of a node's replica.
type Mount struct {
	Path string `json:"path"` // without a leading slash
	Type string `json:"type"` // of the file system
}

// Process is a process that has replaced files mapped: its program, libraries, data.
type Process struct {
	PID  int
	Name string
	Unit string // of systemd, such as "sshd.service"; "" when it belongs to none
	Path string // of one replaced file, without a leading slash
	More int    // number of further replaced files
}

// Status is what a node's resident process reported in its last call.
type Status struct {
	Boot    string // id of the boot in which the process runs
	Image   string // of the replica that is the node's root
	Stamp   int64  // of the switch up to which the node has looked
	Units   int64  // of the switch up to which its service manager has read its units; 0: not known
	Called  time.Time
	Waiting bool // a call of the process waits now
	Memory  int  // of the process, in kB
	Mounts  []Mount
	Stale   []Process
	Omitted int // mounts and processes for which the call had no room
}

// LostAfter is how long after its last call a node's process counts as gone.
const LostAfter = 2 * time.Minute

// Connected reports whether the node will learn of a switch.
func (s *Status) Connected(now time.Time) bool { return s.Waiting || now.Sub(s.Called) < LostAfter }

// Hub serves the calls of all nodes.
type Hub struct {
	Options

	mu      sync.Mutex
	nodes   map[cluster.NodeName]*record
	unsaved bool // mounts have changed since they were saved or loaded
}

// record is one node.
type record struct {
	status Status
	calls  int           // number of calls that began: only the last one may wait
	wake   chan struct{} // closed when the replica may have changed, or another call has come
	mounts MountTable
}

// New returns a Hub that no node has called yet.
func New(o Options) *Hub {
	if o.Seen == nil {
		o.Seen = func(cluster.NodeName, time.Time) {}
	}
	return &Hub{Options: o, nodes: make(map[cluster.NodeName]*record)}
}

// Wake makes the waiting calls of nodes check whether something has changed.
func (h *Hub) Wake(nodes ...cluster.NodeName) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range nodes {
		if r := h.nodes[n]; r != nil {
			r.wakeCall()
		}
	}
}

func (r *record) wakeCall() {
	close(r.wake)
	r.wake = make(chan struct{})
}

// Status returns what a node reported last; ok is false when it has not called since the start.
func (h *Hub) Status(node cluster.NodeName) (s Status, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.nodes[node]
	if r == nil || r.status.Called.IsZero() {
		return Status{}, false
	}
	return r.status, true
}

// Forget drops what is known of a node.
func (h *Hub) Forget(node cluster.NodeName) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.nodes[node]; r != nil {
		r.wakeCall()
		delete(h.nodes, node)
		h.unsaved = true
	}
}
