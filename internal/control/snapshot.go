package control

import (
	"time"

	"dim/internal/recordmerge"
)

// Snapshot is one snapshot of a node's layer. When Problem is set there is no snapshot: Problem is the reason why the
// last one could not be taken.
type Snapshot struct {
	Node     string    `json:"node"`
	Image    string    `json:"image"`
	Stamp    string    `json:"stamp"` // its name
	Time     time.Time `json:"time,omitzero"`
	Versions []string  `json:"versions"` // "compute@1": versions that the node had with this layer, oldest first
	Why      string    `json:"why"`      // what it was taken before: "switch compute@1 compute@2", "reset", "restore"
	Files    uint64    `json:"files"`    // entries of all types
	Bytes    uint64    `json:"bytes"`    // disk space of its files, shared or not
	Copied   uint64    `json:"copied"`   // part of Bytes shared neither with the layer nor an earlier snapshot
	Problem  string    `json:"problem,omitempty"`
}

// SnapshotUsage is the disk space of all snapshots of a node. It does not count against the quota.
type SnapshotUsage struct {
	Count  int    `json:"count"`
	Bytes  uint64 `json:"bytes"`  // of all their files, shared or not
	Copied uint64 `json:"copied"` // part of Bytes shared neither with the layer nor an earlier snapshot
}

// RestoreSnapshotRequest says which snapshot of a node's layer to restore.
type RestoreSnapshotRequest struct {
	To     string `json:"to"` // a stamp or its beginning; a version, NAME@N or N; a time, RFC 3339
	DryRun bool   `json:"dry_run,omitempty"`
	Force  bool   `json:"force,omitempty"` // also when the node may be running
}

// RestoredSnapshot is what restoring a snapshot did, or would do.
type RestoredSnapshot struct {
	Snapshot Snapshot       `json:"layer"`
	Undo     string         `json:"undo"` // stamp of the snapshot taken first; "": none was needed, or dry run
	Paths    []RestoredPath `json:"paths"`
	Unknown  bool           `json:"unknown"` // it is not known what the master has changed since the snapshot
	Copies   uint64         `json:"copies"`  // bytes that are copied because the file system cannot share them
}

// RestoredPath is a path that restoring a snapshot changes, or holds back.
type RestoredPath struct {
	Path      Path   `json:"path"`
	What      string `json:"what"`      // "restored", "set aside", "held back"
	Kind      string `json:"kind"`      // see SavedEntry
	Displaced bool   `json:"displaced"` // the entry that the node had there was set aside

	// Conflicts are records of a merged file that are not as in the snapshot.
	Conflicts []recordmerge.Conflict `json:"conflicts,omitempty"`
}
