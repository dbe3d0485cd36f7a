package replica

import (
	"strings"
	"time"

	"dim/internal/recordmerge"
)

// Rules are the rules for a replica's own state. The zero Rules work.
type Rules struct {
	// Merge has the files whose records a switch merges, by path without a leading slash. It is never changed.
	Merge map[string]recordmerge.Format

	SavedFor time.Duration // what was set aside is removed after so long; 0: 90 days

	QuotaBytes uint64 // of the disk that the layer's files may take; 0: no bound
	QuotaFiles uint64 // objects in the layer; 0: no bound

	Snapshots    int           // how many are kept; 0: none are taken, and those that exist stay for their time
	SnapshotsFor time.Duration // 0: 30 days
	SnapshotCopy uint64        // bytes that one may copy where the disk cannot share them; 0: 64 MB
}

const (
	savedFor            = 90 * 24 * time.Hour
	snapshotsFor        = 30 * 24 * time.Hour
	snapshotCopy uint64 = 64 << 20
)

// isBackup reports whether the file at a path is the backup that the programs of a node make of a merged file before
// they change it. It is the node's.
func (r *Rules) isBackup(path string) bool {
	for _, suffix := range []string{"-", "-old"} {
		if base, ok := strings.CutSuffix(path, suffix); ok && r.Merge[base] != "" && r.Merge[path] == "" {
			return true
		}
	}
	return false
}

// SavedBefore returns the time before which what was set aside is to be removed.
func (r *Rules) SavedBefore(now time.Time) time.Time {
	if r.SavedFor == 0 {
		return now.Add(-savedFor)
	}
	return now.Add(-r.SavedFor)
}

// SnapshotsBefore returns the time before which snapshots are to be removed.
func (r *Rules) SnapshotsBefore(now time.Time) time.Time {
	if r.SnapshotsFor == 0 {
		return now.Add(-snapshotsFor)
	}
	return now.Add(-r.SnapshotsFor)
}

func (r *Rules) snapshotLimit() uint64 {
	if r.SnapshotCopy == 0 {
		return snapshotCopy
	}
	return r.SnapshotCopy
}
