package liveness

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/durable"
)

// journal is the file that keeps the nodes' events.
type journal struct {
	path string

	mu    sync.Mutex
	log   *durable.Log
	limit int64 // size from which on the file is written anew
}

// journalMin is the size in bytes below which a journal is never written anew.
const journalMin = 1 << 20

// entry is one node in a record of the journal; without events nothing is known of it any more. Events that begin at
// another time than those of the node's entry before are another boot.
type entry struct {
	Node   cluster.NodeName `json:"node"`
	Events []boot.Event     `json:"events,omitempty"`
}

// Open returns a Tracker that keeps its journal at path and knows what was kept there. A journal that cannot be read is
// renamed to path + ".bad", and a new one begun: what it knew is seen again by and by.
// answers may be nil: no node has connections.
func Open(path string, answers Connected, log *slog.Logger) (*Tracker, error) {
	t := newTracker(log)
	if answers != nil {
		t.answers = answers
	}
	err := t.open(path)
	if err == nil {
		return t, nil
	}
	log.Warn("journal of boots cannot be read; a new one is begun", "error", err, "file", path+".bad")
	if err := os.Rename(path, path+".bad"); err != nil {
		return nil, err
	}
	if err := t.open(path); err != nil {
		return nil, err
	}
	return t, nil
}

// open opens or makes the journal and reads it. A boot with an event of the future is left out: the clock was wrong
// then or is now.
func (t *Tracker) open(path string) error {
	nodes := map[cluster.NodeName]*record{}
	log, err := durable.OpenLog(path, func(r durable.Record) error {
		if r.Damaged {
			return nil // what it knew is seen again by and by
		}
		var entries []entry
		if err := json.Unmarshal(r.Data, &entries); err != nil {
			return err
		}
		for _, x := range entries {
			switch r := nodes[x.Node]; {
			case !usable(x.Events, t.now()):
				delete(nodes, x.Node)
			case r == nil:
				nodes[x.Node] = &record{events: x.Events}
			default:
				r.replay(x.Events)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("open journal of boots: %w", err)
	}
	t.nodes = nodes
	t.journal.path, t.journal.log, t.journal.limit = path, log, max(journalMin, 4*log.Size())
	if copy := log.DamagedCopy(); copy != "" {
		t.log.Warn("journal of boots was damaged", "file", path, "reason", "a copy is "+copy)
		t.journal.limit = 0 // the next Save writes it anew
	}
	return nil
}

// usable reports whether events can be a boot as a record has it.
func usable(events []boot.Event, now time.Time) bool {
	byTime := func(a, b boot.Event) int { return a.Time.Compare(b.Time) }
	none := func(e boot.Event) bool {
		return e.Stage == "" || e.Time.IsZero() || e.Time.After(now) || e.Last.After(now)
	}
	return len(events) > 0 && len(events) <= maxEvents && slices.IsSortedFunc(events[1:], byTime) &&
		!slices.ContainsFunc(events, none)
}

// Save writes the events that are new since the last call, and returns when they are durable. After an error the next
// call writes them.
func (t *Tracker) Save() error {
	j := &t.journal
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.log.Size() >= j.limit {
		if err := j.rewrite(t.all()); err != nil {
			return fmt.Errorf("write journal of boots anew: %w", err)
		}
	}
	entries := t.takeChanged()
	if len(entries) == 0 {
		return nil
	}
	if err := appendEntries(j.log, entries); err != nil {
		t.markChanged(entries)
		return fmt.Errorf("append to journal of boots: %w", err)
	}
	t.markSaved(entries)
	return nil
}

// savedFor is how long a journal that says that a node boots is good enough when the node boots again: it still says so
// after a restart, for bootTimeout.
const savedFor = bootTimeout / 2

// ReportBoot reports that a node was given a kernel. It reports whether Save must return before the node is answered:
// the journal does not say yet that the node boots.
func (t *Tracker) ReportBoot(node cluster.NodeName, e boot.Event) (save bool) {
	t.Report(node, e)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now().Sub(t.record(node).saved) >= savedFor
}

// markSaved notes which nodes boot by the journal.
func (t *Tracker) markSaved(entries []entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for _, x := range entries {
		r := t.nodes[x.Node]
		if r == nil {
			continue
		}
		r.saved = time.Time{}
		if n := len(x.Events); n > 0 && givenKernel(&x.Events[n-1]) {
			r.saved = now
		}
	}
}

// Close saves and closes the journal.
func (t *Tracker) Close() error {
	err := t.Save()
	t.journal.mu.Lock()
	defer t.journal.mu.Unlock()
	return errors.Join(err, t.journal.log.Close())
}

// rewrite replaces a journal that has grown large by one of what is known now.
func (j *journal) rewrite(entries []entry) error {
	tmp := j.path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log, err := durable.OpenLog(tmp, func(durable.Record) error { return nil })
	if err != nil {
		return err
	}
	if err = appendEntries(log, entries); err == nil {
		err = os.Rename(tmp, j.path)
	}
	if err != nil {
		log.Close()
		return err
	}
	j.log.Close()
	j.log, j.limit = log, max(journalMin, 4*log.Size())
	return nil // the directory is not synced: the old journal would do
}

// appendEntries writes records of a bounded size.
func appendEntries(log *durable.Log, entries []entry) error {
	for some := range slices.Chunk(entries, 1000) {
		b, err := json.Marshal(some)
		if err != nil {
			return err
		}
		if err := log.Append(b); err != nil {
			return err
		}
	}
	return nil
}

// all returns the entries of all nodes that have events, sorted by name, those of each node in the order of its boots.
func (t *Tracker) all() []entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]entry, 0, len(t.nodes))
	for node, r := range t.nodes {
		if len(r.events) > 0 {
			list = r.appendEntries(list, node, len(r.earlier))
		}
	}
	slices.SortStableFunc(list, func(a, b entry) int { return strings.Compare(string(a.Node), string(b.Node)) })
	return list
}

// appendEntries appends entries of some of the earlier boots, the last ones, and of the last boot.
func (r *record) appendEntries(list []entry, node cluster.NodeName, earlier int) []entry {
	for _, events := range r.earlier[len(r.earlier)-earlier:] {
		list = append(list, entry{node, events})
	}
	return append(list, entry{node, r.events})
}

// takeChanged returns the entries of the nodes whose events changed since the last call.
func (t *Tracker) takeChanged() []entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]entry, 0, len(t.changed))
	for node := range t.changed {
		r := t.nodes[node]
		if r == nil {
			list = append(list, entry{Node: node})
			continue
		}
		list = r.appendEntries(list, node, r.unsaved)
		r.unsaved = 0
	}
	clear(t.changed)
	return list
}

// markChanged makes the next takeChanged return these nodes, too.
func (t *Tracker) markChanged(entries []entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range entries {
		t.changed[x.Node] = true
		if r := t.nodes[x.Node]; r != nil {
			r.unsaved = len(r.earlier) // boots that the journal has already do no harm
		}
	}
}
