package expiry

import (
	"errors"
	"slices"
	"sync"
	"time"

	"dim/internal/layers"
	"dim/internal/replica"
)

// Removal is what is removed of a replica after its time: what was set aside at a stamp, or a snapshot.
type Removal struct {
	Node, Image string
	Snapshot    bool
	Stamp       time.Time
	Expires     time.Time
}

// removals returns what a replica has that is removed after its time.
func removals(set *replica.Set, r *replica.Replica) ([]Removal, error) {
	node, image := r.Name()
	var list []Removal
	saved, err := set.Disk().Stamps(home(r).Saved())
	for _, at := range saved {
		list = append(list, Removal{Node: node, Image: image, Stamp: at, Expires: layers.Of(r).Expires(at)})
	}
	rules := r.Rules()
	now := set.Expiry()
	kept := now.Sub(rules.SnapshotsBefore(now))
	snapshots, err2 := set.Disk().Stamps(home(r).Snapshots())
	for _, at := range snapshots {
		list = append(list, Removal{Node: node, Image: image, Snapshot: true, Stamp: at, Expires: at.Add(kept)})
	}
	return list, errors.Join(err, err2)
}

const (
	most     = 10          // removals that Next returns
	lifetime = time.Minute // of an answer of Next
)

// Schedule answers what is removed next. Its methods may be called from any number of goroutines.
type Schedule struct {
	set *replica.Set

	mu   sync.Mutex
	made time.Time
	next []Removal
}

// NewSchedule returns the schedule of a set.
func NewSchedule(set *replica.Set) *Schedule { return &Schedule{set: set} }

// Next returns the ten removals that come first, the earliest first. It lists the directories of all replicas, but
// not more often than once a minute. Directories that cannot be listed are left out.
func (s *Schedule) Next() []Removal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made.IsZero() || time.Since(s.made) >= lifetime {
		s.next = nil
		for _, r := range s.set.Replicas() {
			list, _ := removals(s.set, r)
			s.next = append(s.next, list...)
			if len(s.next) > 100*most {
				s.next = first(s.next)
			}
		}
		s.next, s.made = first(s.next), time.Now()
	}
	return slices.Clone(s.next)
}

// first returns the removals that come first.
func first(list []Removal) []Removal {
	slices.SortStableFunc(list, func(a, b Removal) int { return a.Expires.Compare(b.Expires) })
	return list[:min(len(list), most)]
}
