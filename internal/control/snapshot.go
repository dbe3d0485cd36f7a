package control

import "time"

// Layer is one snapshot of a node's layer. With a Problem it is none: it tells why the last one could not be taken.
type Layer struct {
	Node     string    `json:"node"`
	Image    string    `json:"image"`
	Stamp    string    `json:"stamp"` // names it
	Time     time.Time `json:"time,omitzero"`
	Versions []string  `json:"versions"` // "compute@1": that the node had meanwhile, oldest first
	Why      string    `json:"why"`      // "switch compute@1 compute@2", "reset", "restore"
	Files    uint64    `json:"files"`    // entries of all types
	Bytes    uint64    `json:"bytes"`    // room that its files take, shared or not
	Copied   uint64    `json:"copied"`   // of these, what is shared neither with the layer nor with an earlier snapshot
	Problem  string    `json:"problem,omitempty"`
}

// SnapshotSum is what the snapshots of a node take together. It counts against no quota.
type SnapshotSum struct {
	Count  int    `json:"count"`
	Bytes  uint64 `json:"bytes"`  // of all their files, shared or not
	Copied uint64 `json:"copied"` // of these, what is shared neither with the layer nor with an earlier snapshot
}

// RewindRequest says what a node's layer is to be again.
type RewindRequest struct {
	To     string `json:"to"` // a stamp, or how it begins; a version, NAME@N or N; a time, RFC 3339
	DryRun bool   `json:"dry_run,omitempty"`
	Force  bool   `json:"force,omitempty"` // also when the node may be running
}

// Rewound is what a Rewind did, or would do.
type Rewound struct {
	Layer   Layer         `json:"layer"`
	Undo    string        `json:"undo"` // the stamp of the snapshot of what was there before; "" when there was nothing, and in a dry run
	Paths   []RewoundPath `json:"paths"`
	Unknown bool          `json:"unknown"` // what the master has changed since is not known
	Copies  uint64        `json:"copies"`  // bytes that are copied, because the disk cannot share them
}

// RewoundPath is a path that a Rewind changes, or holds back.
type RewoundPath struct {
	Path      Path   `json:"path"`
	What      string `json:"what"`      // "restored", "set aside", "held back"
	Kind      string `json:"kind"`      // as of Saved
	Displaced bool   `json:"displaced"` // what the node had there was set aside
}
