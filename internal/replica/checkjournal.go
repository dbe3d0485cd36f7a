package replica

import (
	"encoding/json"
	"path/filepath"

	"dim/internal/durable"
	"dim/internal/image"
)

// CheckJournal reads the journal in a directory of replicas that no Set has open. It returns the directories of
// the replicas in the journal, and how many bytes at its end are of an incomplete record.
func CheckJournal(dir string) (known map[string]bool, cut int64, err error) {
	j := &journal{versions: make(map[image.Digest]*image.Version), states: make(map[string]*state)}
	steps := make(map[stepKey]*step)
	torn, err := durable.ReadLog(filepath.Join(dir, "switches.log"), func(b []byte) error {
		var r record
		if err := json.Unmarshal(b, &r); err != nil {
			return err
		}
		return j.replay(&r, steps)
	})
	known = make(map[string]bool, len(j.states))
	for dir := range j.states {
		known[dir] = true
	}
	return known, int64(torn), err
}
