package replica

import (
	"fmt"

	"dim/internal/image"
)

// recordMost bounds the size of a record of the journal, in bytes.
const recordMost = 8 << 20

// record writes what becomes of the transitions in list: one record for each version that they go to, or several if it
// would be too large. Those that are not recorded have failed; after an error the others are not tried.
func (s *Set) record(kind string, at int64, list []*transition) error {
	groups := make(map[*image.Version][]*transition)
	for _, t := range list {
		groups[t.version] = append(groups[t.version], t)
	}
	var err error
	for v, list := range groups {
		for len(list) > 0 {
			var who []replicaRecord
			for size := 0; len(who) < len(list) && size < recordMost; {
				t := list[len(who)]
				r := replicaRecord{Replica: string(t.r.dir), Files: t.files, Same: t.files == nil}
				if kind == recordIntent {
					r.Extra, r.Stay = t.extraPaths, t.stay
				}
				who, size = append(who, r), size+r.size()
			}
			if err == nil {
				err = s.recordSome(kind, at, v, who)
			}
			if err != nil {
				failAll(list[:len(who)], err)
			}
			list = list[len(who):]
		}
	}
	return err
}

func (s *Set) recordSome(kind string, at int64, v *image.Version, who []replicaRecord) error {
	if err := s.failAt("before " + kind); err != nil {
		return err
	}
	if err := s.journal.write(kind, at, v, who); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return s.failAt("after " + kind)
}

// size returns about how many bytes r takes in a record.
func (r *replicaRecord) size() int {
	n := len(r.Replica) + 64
	for path, f := range r.Files {
		n += len(path) + len(f) + 6
	}
	for _, list := range [][]string{r.Extra, r.Stay.paths()} {
		for _, path := range list {
			n += len(path) + 3
		}
	}
	return n
}

// records divides list so that no part is too large for a record.
func records(list []replicaRecord) (parts [][]replicaRecord) {
	from, size := 0, 0
	for i := range list {
		if size += list[i].size(); size >= recordMost {
			parts = append(parts, list[from:i+1])
			from, size = i+1, 0
		}
	}
	if from < len(list) {
		parts = append(parts, list[from:])
	}
	return parts
}
