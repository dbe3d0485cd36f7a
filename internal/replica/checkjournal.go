package replica

import (
	"path/filepath"

	"dim/internal/durable"
	"dim/internal/image"
)

// CheckJournal reads the journal in a directory of replicas that no Set has open. It returns the directories of
// the replicas in the journal, the offsets at which it is damaged, and how many bytes at its end are of an incomplete
// record.
func CheckJournal(dir string) (known map[string]bool, damaged []int64, cut int64, err error) {
	j := &journal{versions: make(map[image.Digest]*image.Version), states: make(map[string]*state)}
	steps := make(map[stepKey]*step)
	torn, err := durable.ReadLog(filepath.Join(dir, "switches.log"), func(r durable.Record) error {
		if r.Damaged {
			damaged = append(damaged, r.At)
		}
		return j.read(r, steps)
	})
	known = make(map[string]bool, len(j.states))
	for dir := range j.states {
		known[dir] = true
	}
	return known, damaged, torn, err
}
