package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"dim/internal/cluster"
	"dim/internal/durable"
)

// Journal keeps on disk what a Tracker knows, so that a server which is restarted still knows which nodes run, and which were in the middle
// of a boot. docs/formats/data.md. Its methods may be called concurrently.
type Journal struct {
	t    *Tracker
	path string

	mu    sync.Mutex
	log   *durable.Log
	limit int64 // the size from which on it is written anew
}

// journalMin is the size in bytes below which a journal is never written anew.
const journalMin = 1 << 20

// kept is one node in a record; without events nothing is known of it any more.
type kept struct {
	Node   cluster.NodeName `json:"node"`
	Events []Event          `json:"events,omitempty"`
}

// OpenJournal opens or makes the journal at path and gives t what it holds. Events of a time to come are left out with all of their
// boot: the clock was wrong then or is now.
func OpenJournal(path string, t *Tracker) (*Journal, error) {
	boots := make(map[cluster.NodeName]*bootRecord)
	log, err := durable.OpenLog(path, func(b []byte) error {
		var nodes []kept
		if err := json.Unmarshal(b, &nodes); err != nil {
			return err
		}
		for _, k := range nodes {
			delete(boots, k.Node)
			if usable(k.Events, t.now()) {
				boots[k.Node] = &bootRecord{k.Events}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open journal of boots: %w", err)
	}
	t.mu.Lock()
	t.boots = boots
	t.mu.Unlock()
	return &Journal{t: t, path: path, log: log, limit: max(journalMin, 4*log.Size())}, nil
}

// usable reports whether events can be a boot as a Tracker has it.
func usable(events []Event, now time.Time) bool {
	byTime := func(a, b Event) int { return a.Time.Compare(b.Time) }
	return len(events) > 0 && len(events) <= maxEvents && slices.IsSortedFunc(events[1:], byTime) &&
		!slices.ContainsFunc(events, func(e Event) bool { return e.Time.After(now) || e.Last.After(now) })
}

// Save puts on disk what has changed since the last call: a record of the nodes concerned. After an error it is tried again with the next
// call.
func (j *Journal) Save() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.log.Size() >= j.limit {
		if err := j.rewrite(); err != nil {
			return fmt.Errorf("write journal of boots anew: %w", err)
		}
	}
	nodes := j.t.changes()
	if len(nodes) == 0 {
		return nil
	}
	if err := appendNodes(j.log, nodes); err != nil {
		j.t.again(nodes)
		return fmt.Errorf("append to journal of boots: %w", err)
	}
	return nil
}

// rewrite puts a journal of what is known now in place of one that has grown large.
func (j *Journal) rewrite() error {
	tmp := j.path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log, err := durable.OpenLog(tmp, func([]byte) error { return nil })
	if err != nil {
		return err
	}
	var nodes []kept
	for _, s := range j.t.Snapshot() {
		nodes = append(nodes, kept{s.Node, s.Events})
	}
	if err = appendNodes(log, nodes); err == nil {
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

// appendNodes writes records of a bounded size.
func appendNodes(log *durable.Log, nodes []kept) error {
	for some := range slices.Chunk(nodes, 1000) {
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

// Close saves and closes.
func (j *Journal) Close() error {
	err := j.Save()
	return errors.Join(err, j.log.Close())
}
