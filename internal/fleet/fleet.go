// Package fleet answers what the servers of the cluster hold and what their nodes show, as each reported it last.
//
// # Concepts
//
// Every server reports at intervals, and when something changed. A Report is complete, or has only the nodes that have
// changed since an earlier one: it takes the place of the one before. Who asks gets the last one with the time when it
// arrived. A server that has not reported is not known, which is an answer of its own and never means "off" or "done".
//
// A node is reported by the server that serves it, the first one of its servers. What another server says of it does
// not count.
//
// # Concurrency
//
// All methods may be called from any number of goroutines. A Report is never changed after Put.
//
// # What it must not know
//
// How reports are gathered, and what follows from them.
package fleet

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"dim/internal/cluster"
	"dim/internal/image"
	"dim/internal/quantity"
)

// SilentAfter is how long after its last report a server counts as silent. It reports three times in that time.
const SilentAfter = 15 * time.Second

// Report is what a server says of itself and of the nodes that it serves.
type Report struct {
	Program  string    `json:"program"` // version of dim
	Started  time.Time `json:"started"`
	Start    string    `json:"start"`    // a random text of the process that reports
	Sent     time.Time `json:"sent"`     // by the server's own clock
	Store    string    `json:"store"`    // coord.State.Store of the declared state that it follows
	Revision int64     `json:"revision"` // of that state
	// Kept is the revision of the last state that all of the server has adopted, and that is on its disk: nothing
	// older holds there any more, also after a restart. 0: none. Description is the one that it follows by that state.
	Kept        int64        `json:"kept"`
	Description image.Digest `json:"description"`
	Renaming    bool         `json:"renaming,omitempty"` // layers still have former names of nodes

	// Mark is the mark of its disk, and MarkBefore the one that the shared state has, as far as the server knows:
	// package diskmark. A head has none.
	Mark       string `json:"mark,omitempty"`
	MarkBefore string `json:"mark_before,omitempty"`
	// Base is Sent of an earlier report. Nodes are those that have changed since then. Zero: Nodes are all.
	Base time.Time `json:"base,omitzero"`

	Versions versionList `json:"versions"` // those that it has or gets
	Nodes    nodeList    `json:"nodes"`    // those whose first server it is
	Problems problemList `json:"problems"` // but for those of nodes
}

// Problem is what is wrong with a server, as it says itself.
type Problem struct {
	About string    `json:"about"`
	Text  string    `json:"text"`
	Hint  string    `json:"hint,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// Version is a version that a server has, or gets.
type Version struct {
	Version image.Ref    `json:"version"`
	Digest  image.Digest `json:"digest"`
	Missing *Missing     `json:"missing,omitempty"` // nil: the server has all of it
}

// Missing is what a server lacks of a version.
type Missing struct {
	Files    int           `json:"files"`             // at most, while it is not known yet
	Bytes    uint64        `json:"bytes"`             // the same
	Rate     float64       `json:"rate"`              // bytes a second; 0: nothing arrives now
	TimeLeft time.Duration `json:"left"`              // until all is here, in nanoseconds; 0: not known
	Problem  string        `json:"problem,omitempty"` // why it did not come
}

// String returns m in a few words.
func (m *Missing) String() string {
	switch {
	case m.Problem != "":
		return m.Problem
	case m.Rate == 0:
		return quantity.Size(m.Bytes) + " to go at most"
	}
	return fmt.Sprintf("%s to go, %v at %s/s", quantity.Size(m.Bytes), m.TimeLeft.Round(time.Second),
		quantity.Size(uint64(m.Rate)))
}

// Node is what a server says of a node that it serves.
type Node struct {
	Name     cluster.NodeName `json:"node"`
	Shows    image.Ref        `json:"shows"`           // the version of its root; the zero Ref: it has no root
	Digest   image.Digest     `json:"digest,omitzero"` // of that version
	Stage    string           `json:"stage"`           // of package boot or liveness
	Since    time.Time        `json:"since"`           // when the stage began
	Began    time.Time        `json:"began"`           // when its last boot began; zero: not known
	LastCall time.Time        `json:"last_call"`
	LastSeen time.Time        `json:"last_seen"`         // its last sign of life
	Booting  bool             `json:"booting,omitempty"` // it was given a kernel and does not run yet
	Running  bool             `json:"running,omitempty"` // it works from its root, and is not silent
	Left     string           `json:"left,omitempty"`    // why it stays with the version that it shows
	Text     string           `json:"text,omitempty"`    // more about the stage
	Problem  string           `json:"problem,omitempty"`
	Hint     string           `json:"hint,omitempty"`    // what to do about the problem
	Resident Resident         `json:"resident,omitzero"` // zero: its resident process has not called
}

// Heard is what a server reported last.
type Heard struct {
	*Report           // not to be changed
	At      time.Time // when the report arrived
	// FromDisk is whether it arrived before this server was started.
	FromDisk bool

	nodes map[cluster.NodeName]*Node
}

// Ahead returns by how much the server's clock is ahead of this one's, less the time that the report took.
func (h *Heard) Ahead() time.Duration { return h.Sent.Sub(h.At) }

// Fresh reports whether a report that arrived at that time is still one of a server that is not silent.
func Fresh(at time.Time) bool { return time.Since(at) < SilentAfter }

// Has reports whether the server has a version whole.
func (h *Heard) Has(ref image.Ref, digest image.Digest) bool {
	return slices.Contains(h.Versions, Version{Version: ref, Digest: digest})
}

// Fleet keeps the last report of every server.
type Fleet struct {
	dir string // where Save keeps reports; "": nowhere

	saving sync.Mutex // taken before mu
	saved  map[cluster.ServerName]Heard

	mu         sync.RWMutex
	servers    map[cluster.ServerName]Heard
	kept       map[cluster.ServerName]Heard // that were on disk at the start
	origins    map[cluster.ServerName][]*origin
	duplicates map[cluster.ServerName]foundDuplicate
	changed    chan struct{} // closed when a report is kept
}

// newFleet returns a Fleet of which nothing is known.
func newFleet() *Fleet {
	return &Fleet{
		saved: map[cluster.ServerName]Heard{}, servers: map[cluster.ServerName]Heard{},
		kept: map[cluster.ServerName]Heard{}, origins: map[cluster.ServerName][]*origin{},
		duplicates: map[cluster.ServerName]foundDuplicate{}, changed: make(chan struct{}),
	}
}

// Put keeps a report of a server. It must not be changed any more. ok is false, and nothing is kept, if it is based on
// another report than the last one of the server.
func (f *Fleet) Put(server cluster.ServerName, r *Report) (ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !r.Base.IsZero() {
		last, known := f.servers[server]
		if !known || !last.Sent.Equal(r.Base) || !last.Started.Equal(r.Started) {
			return false
		}
		r.complete(last)
	}
	h := newHeard(r, time.Now())
	f.servers[server] = h
	close(f.changed)
	f.changed = make(chan struct{})
	return true
}

// complete adds the nodes of the report before that have not changed since.
func (r *Report) complete(before Heard) {
	changed := make(map[cluster.NodeName]*Node, len(r.Nodes))
	for i := range r.Nodes {
		changed[r.Nodes[i].Name] = &r.Nodes[i]
	}
	all := slices.Clone(before.Nodes)
	for i := range all {
		if n := changed[all[i].Name]; n != nil {
			all[i] = *n
		}
	}
	r.Nodes, r.Base = all, time.Time{}
}

// Changed returns a channel that is closed when the next report is kept.
func (f *Fleet) Changed() <-chan struct{} {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.changed
}

func newHeard(r *Report, at time.Time) Heard {
	h := Heard{Report: r, At: at, nodes: make(map[cluster.NodeName]*Node, len(r.Nodes))}
	for i := range r.Nodes {
		h.nodes[r.Nodes[i].Name] = &r.Nodes[i]
	}
	return h
}

// Keep drops the reports of all servers for which declared returns false.
func (f *Fleet) Keep(declared func(cluster.ServerName) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gone := func(s cluster.ServerName, _ Heard) bool { return !declared(s) }
	maps.DeleteFunc(f.servers, gone)
	maps.DeleteFunc(f.kept, gone)
}

// Server returns the last report of a server; ok is false when it has not reported since this one was started.
func (f *Fleet) Server(name cluster.ServerName) (h Heard, ok bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	h, ok = f.servers[name]
	return h, ok
}

// Holders returns the servers that reported that they have all of a version, by name.
func (f *Fleet) Holders(d image.Digest) []cluster.ServerName {
	f.mu.RLock()
	defer f.mu.RUnlock()
	var list []cluster.ServerName
	for name, h := range f.servers {
		if slices.ContainsFunc(h.Versions, func(v Version) bool { return v.Digest == d && v.Missing == nil }) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// ShownElsewhere returns the versions that nodes of other servers show, by their last reports, with one node of each.
func (f *Fleet) ShownElsewhere(here cluster.ServerName) map[image.Ref]cluster.NodeName {
	f.mu.RLock()
	defer f.mu.RUnlock()
	shown := map[image.Ref]cluster.NodeName{}
	last := maps.Clone(f.kept)
	maps.Copy(last, f.servers)
	for server, h := range last {
		for i := range h.Nodes {
			if n := &h.Nodes[i]; server != here && !n.Shows.IsZero() {
				shown[n.Shows] = n.Name
			}
		}
	}
	return shown
}

// Node returns what the server that serves n reported of it last, and when that arrived. ok is false when that is not
// known, or was before this server was started.
func (f *Fleet) Node(n *cluster.Node) (node Node, at time.Time, ok bool) {
	h, ok := f.Server(n.Server().Name)
	if !ok {
		return node, at, false
	}
	return h.node(n.Name)
}

func (h *Heard) node(name cluster.NodeName) (node Node, at time.Time, ok bool) {
	found, ok := h.nodes[name]
	if !ok {
		return node, at, false
	}
	return *found, h.At, true
}
