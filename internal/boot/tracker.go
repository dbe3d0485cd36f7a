package boot

import (
	"slices"
	"strings"
	"sync"
	"time"

	"dim/internal/cluster"
)

// Stage is how far a node is; docs/reference/kernel-parameters.md tells when each begins.
type Stage string

// The stages, in the order in which a boot passes them.
const (
	StageDHCP      Stage = "dhcp"
	StageLoader    Stage = "loader"
	StageScript    Stage = "script"
	StageKernel    Stage = "kernel"
	StageInitramfs Stage = "initramfs"
	StageLink      Stage = "link"
	StageAddress   Stage = "address"
	StageMount     Stage = "mount"
	StageHandover  Stage = "handover"
	StageRunning   Stage = "running"
)

const (
	// maxEvents bounds what is kept of one boot: ten stages, some twice, and some failures. The first and the last are kept.
	maxEvents = 40
	// maxText bounds what a node can have us keep of its own words.
	maxText = 200
	// bootLasts is for how long a second DHCP question belongs to the same boot: the loader asks soon after the firmware.
	bootLasts = 5 * time.Minute
	// reportLost is after what silence an NFS call shows that a node runs although it never reported the handover: reports are
	// sent once, and may be lost.
	reportLost = time.Minute
)

// Event is one step of a boot.
type Event struct {
	Stage  Stage     `json:"stage"`
	Time   time.Time `json:"time"`
	Detail string    `json:"detail,omitempty"` // more about it
	Error  string    `json:"error,omitempty"`  // why the stage does not succeed; it is being tried again
	Count  int       `json:"count"`            // how often it was reported in a row: tries that fail in the same way are one event
	Last   time.Time `json:"last"`
}

// State is where one node is.
type State struct {
	Node   cluster.NodeName
	Stage  Stage
	Since  time.Time // when the stage began
	Detail string
	Error  string  // of the last try, empty when it succeeded
	Events []Event // of the last boot, oldest first
}

// Tracker follows the boots of all nodes, in memory; a Journal keeps what it knows. Its methods may be called from any number of
// goroutines and take no time to speak of.
type Tracker struct {
	now func() time.Time

	mu      sync.Mutex
	boots   map[cluster.NodeName]*bootRecord
	changed map[cluster.NodeName]bool // since the Journal asked last
}

// bootRecord is the last boot of one node; events is never empty and sorted by time.
type bootRecord struct{ events []Event }

func (r *bootRecord) last() *Event { return &r.events[len(r.events)-1] }

// NewTracker returns an empty Tracker; now may be nil for time.Now.
func NewTracker(now func() time.Time) *Tracker {
	if now == nil {
		now = time.Now
	}
	return &Tracker{now: now, boots: make(map[cluster.NodeName]*bootRecord), changed: make(map[cluster.NodeName]bool)}
}

// Report notes that node reached a stage just now.
func (t *Tracker) Report(node cluster.NodeName, stage Stage, detail string) {
	t.add(node, Event{Stage: stage, Detail: detail})
}

// Fail notes that node cannot get through a stage; it is being tried again.
func (t *Tracker) Fail(node cluster.NodeName, stage Stage, why string) {
	t.add(node, Event{Stage: stage, Error: why})
}

// Active notes that node works from its root: an NFS call has come. It means that the node runs, unless a boot of it is under way
// that has not handed over yet. It may be called for every NFS call.
func (t *Tracker) Active(node cluster.NodeName) {
	t.mu.Lock()
	r := t.boots[node]
	booting, known := false, false
	if r != nil {
		l := r.last()
		known = l.Stage == StageRunning
		booting = l.Stage != StageHandover && t.now().Sub(l.Last) < reportLost
	}
	t.mu.Unlock()
	if !booting && !known {
		t.add(node, Event{Stage: StageRunning})
	}
}

// add enters e; its time is now unless it is set.
func (t *Tracker) add(node cluster.NodeName, e Event) {
	now := t.now()
	if e.Time.IsZero() || e.Time.After(now) {
		e.Time = now
	}
	e.Detail, e.Error = words(e.Detail), words(e.Error)
	e.Last, e.Count = e.Time, 1
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changed[node] = true
	r := t.boots[node]
	if r == nil || e.Stage == StageDHCP && !r.asksAgain(e.Time) {
		t.boots[node] = &bootRecord{[]Event{e}}
		return
	}
	r.insert(e)
}

// asksAgain reports whether a DHCP question at that time belongs to the boot that is known.
func (r *bootRecord) asksAgain(at time.Time) bool {
	l := r.last()
	return (l.Stage == StageDHCP || l.Stage == StageLoader) && at.Sub(l.Last) < bootLasts
}

// insert puts e where its time belongs, after those of the same time. A report can come late: dim-init cannot send the
// first ones before it has an address.
func (r *bootRecord) insert(e Event) {
	if l := r.last(); l.Stage == e.Stage && l.Detail == e.Detail && l.Error == e.Error {
		l.Count++
		if e.Last.After(l.Last) {
			l.Last = e.Last
		}
		return
	}
	i := len(r.events)
	for i > 1 && r.events[i-1].Time.After(e.Time) { // never before the boot's first event
		i--
	}
	r.events = slices.Insert(r.events, i, e)
	if len(r.events) > maxEvents {
		r.events = slices.Delete(r.events, maxEvents/2, maxEvents/2+1)
	}
}

// Get returns the state of one node; ok is false when nothing is known of it.
func (t *Tracker) Get(node cluster.NodeName) (s State, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.boots[node]
	if !ok {
		return State{}, false
	}
	return r.state(node), true
}

// Last returns the latest event of a node; it costs less than Get.
func (t *Tracker) Last(node cluster.NodeName) (e Event, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.boots[node]
	if !ok {
		return e, false
	}
	return *r.last(), true
}

// Snapshot returns the states of all nodes of which anything is known, sorted by name.
func (t *Tracker) Snapshot() []State {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]State, 0, len(t.boots))
	for node, r := range t.boots {
		out = append(out, r.state(node))
	}
	slices.SortFunc(out, func(a, b State) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return out
}

// state is called with the Tracker's mu held.
func (r *bootRecord) state(node cluster.NodeName) State {
	l := r.last()
	s := State{Node: node, Stage: l.Stage, Since: l.Time, Detail: l.Detail, Error: l.Error, Events: slices.Clone(r.events)}
	for i := len(r.events) - 1; i >= 0 && r.events[i].Stage == l.Stage; i-- {
		s.Since = r.events[i].Time
	}
	return s
}

// Forget drops a node, one that is no longer in the description.
func (t *Tracker) Forget(node cluster.NodeName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.boots[node] != nil {
		t.changed[node] = true
	}
	delete(t.boots, node)
}

// changes returns the nodes of which something new is known since the last call.
func (t *Tracker) changes() []kept {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]kept, 0, len(t.changed))
	for node := range t.changed {
		k := kept{Node: node}
		if r := t.boots[node]; r != nil {
			k.Events = slices.Clone(r.events)
		}
		list = append(list, k)
	}
	clear(t.changed)
	return list
}

// again lets the next call of changes return these nodes, too.
func (t *Tracker) again(nodes []kept) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range nodes {
		t.changed[k.Node] = true
	}
}

// words makes one bounded line of printable text out of what a node says: it will be shown on terminals.
func words(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s))
}
