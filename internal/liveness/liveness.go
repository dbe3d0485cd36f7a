// Package liveness answers one question for the whole server: is a node up, and how far is its boot?
//
// # Sources
//
// Signs of life reach a Tracker by its methods; it sends nothing but echo requests.
//
//   - Report: a step of a boot. DHCP, TFTP and HTTP report what they answer, dim-init reports its stages.
//   - Called: the node has made an NFS call.
//   - Seen: the node's resident process has called.
//   - Probe sends ICMP echo requests to nodes that ran and have been quiet for a while.
//   - Connected tells whether the node still answers on a connection that it had.
//
// # Claims
//
// Any machine can send a DHCP request in the name of a node, and any user of a node can ask for its boot files. If the
// node runs, such a request is therefore a claim at first: it changes nothing until it is decided whether the node that
// ran before still runs. It does if it has made a call, or acknowledged a probe on an open connection of its superuser,
// after the request. Otherwise the claim becomes the first step of a boot. A report of dim-init proves a boot, too,
// because only the superuser can send it.
//
// State draws the conclusions, and everybody else only reads them.
//
// # Persistence
//
// The events of each node's last boot are kept in a journal (cache/boots.log in docs/formats/data.md), so that a server
// that was restarted still knows which nodes run and which are in the middle of a boot. Save writes it. Times of calls
// and the results of probes are not kept.
//
// # Concurrency
//
// A Tracker may be used by any number of goroutines. Only Open, Save, Close, Probe, Answering and Boots do I/O.
//
// Lock order:
//
//  1. journal.mu
//  2. Tracker.mu
//
// # What it must not know
//
// What follows from a node's state: which version it gets, whether a rollout goes on, what is refused.
package liveness

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"dim/internal/boot"
	"dim/internal/cluster"
)

// Stages of nodes that do not boot. A node that has a boot is in one of the stages of package boot.
const (
	Off    boot.Stage = "off"    // nothing is known of the node
	Silent boot.Stage = "silent" // it ran, is quiet and does not answer: it is off, has crashed, or its network is down
)

const (
	// bootTimeout is how long a boot may be quiet before it counts as broken off.
	bootTimeout = 10 * time.Minute
	// upTimeout is how long after its last sign of life a node may still be running: an idle one with a long attribute
	// cache is quiet for minutes.
	upTimeout = 10 * time.Minute
)

// State is what is known of one node.
type State struct {
	Stage  boot.Stage
	Since  time.Time    // when the stage began; for Silent the last sign of life
	Detail string       // more about the stage
	Error  string       // why the last try of the stage failed, or any try of boot.StageDHCP; "" when it succeeded
	Events []boot.Event // of the last boot, oldest first; not to be changed
	Began  time.Time    // when the last boot began; zero when the beginning was not seen

	Trouble Trouble // why the boot does not go on
	Refusal Refusal // the last thing that the node asked for and did not get

	LastCall time.Time // of NFS; zero: none since the server started
	LastSeen time.Time // the last sign of life that the node gave by itself

	// Ahead is by how much the node's clock was ahead of this server's when that was checked last, zero if it is not
	// known. Less than clockTolerance is taken for zero.
	Ahead time.Duration

	Booting bool // it was given a kernel and does not run yet
	Running bool // it works from its root, and is not silent
	MayRun  bool // it has given a sign of life lately
}

// BootedSince reports whether the node was in the middle of a boot at some time after t.
func (s *State) BootedSince(t time.Time) bool {
	for i := range s.Events {
		if s.Events[i].Stage != boot.StageRunning && s.Events[i].Last.After(t) {
			return true
		}
	}
	return false
}

// Tracker keeps the state of all nodes.
type Tracker struct {
	log     *slog.Logger
	now     func() time.Time
	ping    func([]netip.Addr) (up []netip.Addr, err error)
	answers Connected
	// neighbors returns the kernel's table of neighbors.
	neighbors func() (map[netip.Addr]neighbor, error)
	// clocks returns how far the clocks of machines are ahead of this one's, of those that tell.
	clocks  func([]netip.Addr) (ahead map[netip.Addr]time.Duration, err error)
	journal journal

	mu      sync.Mutex
	nodes   map[cluster.NodeName]*record
	changed map[cluster.NodeName]bool // events changed since the last Save
	booting int                       // number of nodes that boot, as it was counted last
}

func newTracker(log *slog.Logger) *Tracker {
	return &Tracker{
		log: log, now: time.Now, ping: ping, neighbors: neighbors, clocks: clocks,
		answers: func(context.Context, []netip.Addr, time.Time) bool { return false },
		nodes:   map[cluster.NodeName]*record{}, changed: map[cluster.NodeName]bool{},
	}
}

// State returns what is known of a node. It takes no time to speak of.
func (t *Tracker) State(node cluster.NodeName) State {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.nodes[node]
	if r == nil {
		return State{Stage: Off}
	}
	return r.state(t.now(), t.booting)
}

// Stage returns the stage of a node's last event, "" when there is none. A node that ran and is silent now is still in
// boot.StageRunning here.
func (t *Tracker) Stage(node cluster.NodeName) boot.Stage {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.nodes[node]; r != nil && len(r.events) > 0 {
		return r.last().Stage
	}
	return ""
}

// Report adds a step to a node's boot. A zero time means now. A DHCP request of a node that runs is a claim, see the
// package comment.
func (t *Tracker) Report(node cluster.NodeName, e boot.Event) {
	now := t.now()
	if e.Time.IsZero() || e.Time.After(now) {
		e.Time = now
	}
	e.Last, e.Count = e.Time, 1
	t.mu.Lock()
	defer t.mu.Unlock()
	t.report(node, e)
}

// report is called with mu held.
func (t *Tracker) report(node cluster.NodeName, e boot.Event) {
	r := t.record(node)
	if e.Stage == boot.StageDHCP && r.runs() {
		r.addClaim(e)
		return
	}
	if r.claim != nil && e.Stage != boot.StageRunning {
		r.begin()
	}
	r.add(e)
	t.changed[node] = true
}

// record returns a node's record, a new one if need be. It is called with mu held.
func (t *Tracker) record(node cluster.NodeName) *record {
	r := t.nodes[node]
	if r == nil {
		r = new(record)
		t.nodes[node] = r
	}
	return r
}

// Called notes that a node made an NFS call at that time. It means that the node runs, unless a boot of it is under way
// that has not handed over yet.
func (t *Tracker) Called(node cluster.NodeName, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.record(node)
	r.lastCall = later(r.lastCall, at)
	if r.runsAt(at) {
		t.report(node, boot.Event{Stage: boot.StageRunning, Time: at, Last: at, Count: 1})
	}
}

// Refusal is the last thing that a node asked for and did not get. The zero Refusal is none.
type Refusal struct {
	boot.Refusal
	Last  time.Time
	Count int // of refusals with that text in a row
}

// maxRefusal bounds the text of a refusal, in bytes.
const maxRefusal = 300

// Refused notes what a node asked for and did not get. Only the last such thing is kept of each node. Refused reports
// whether the one before was another.
func (t *Tracker) Refused(node cluster.NodeName, what boot.Refusal) (first bool) {
	what.Text = what.Text[:min(len(what.Text), maxRefusal)]
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.record(node)
	last := Refusal{what, t.now(), 1}
	if r.refusal.Text == what.Text {
		last.Count += r.refusal.Count
	}
	r.refusal = last
	return last.Count == 1
}

// Seen notes that a node gave another sign of life at that time.
func (t *Tracker) Seen(node cluster.NodeName, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.record(node)
	r.lastContact = later(r.lastContact, at)
}

// Forget drops what is known of a node that is no longer in the description.
func (t *Tracker) Forget(node cluster.NodeName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.nodes[node]; r != nil && len(r.events) > 0 {
		t.changed[node] = true
	}
	delete(t.nodes, node)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
