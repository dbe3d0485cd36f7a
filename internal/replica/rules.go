package replica

import "time"

// Rules are what the cluster's description says of a replica's own state. The zero Rules work.
type Rules struct {
	SavedFor time.Duration // what was set aside is removed after so long; 0: SavedForDefault

	QuotaBytes uint64 // of the disk that the layer's files may take; 0: no bound
	QuotaFiles uint64 // objects in the layer; 0: no bound

	Snapshots SnapshotRule
}

// SavedForDefault is for how long set-aside copies are kept when nobody says otherwise.
const SavedForDefault = 90 * 24 * time.Hour

func (r *Rules) savedFor() time.Duration {
	if r.SavedFor == 0 {
		return SavedForDefault
	}
	return r.SavedFor
}
