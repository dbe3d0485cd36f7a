package control

import (
	"time"

	"dim/internal/recordmerge"
)

// SavedEntry is one entry of a node's layer that was set aside.
type SavedEntry struct {
	Path    Path      `json:"path"`
	Stamp   string    `json:"stamp"` // names the switch, reset or restore that set it aside
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`    // "entry", "removal", "opaque", "attributes", "merged"
	Type    string    `json:"type"`    // of an entry: "file", "directory", …
	Size    uint64    `json:"size"`    // bytes of content; of a directory, with everything in it
	Entries int       `json:"entries"` // in a directory
	Why     string    `json:"why"`     // "switch compute@1 compute@2", "reset", "restore"
	Image   string    `json:"image"`
	Expires time.Time `json:"expires"` // when the server removes it

	// Conflicts are the records of a merged file that are not in the node's file now, and numbers that two names have
	// there.
	Conflicts []recordmerge.Conflict `json:"conflicts,omitempty"`
}

// RestoreRequest says which set-aside entries to bring back.
type RestoreRequest struct {
	Path   Path   `json:"path"`
	From   string `json:"from,omitempty"` // a stamp or its beginning; "": the latest entry of each path
	To     Path   `json:"to,omitempty"`   // a directory of the node to put the entries into
	DryRun bool   `json:"dry_run,omitempty"`
}

// RestoredEntry is an entry that was brought back.
type RestoredEntry struct {
	Saved     SavedEntry `json:"entry"`
	Path      Path       `json:"path"`      // where it is now
	Displaced bool       `json:"displaced"` // the entry that the node had there was set aside
}

// ForgetRequest says which set-aside entries to remove for good.
type ForgetRequest struct {
	Path   Path      `json:"path,omitempty"`
	From   string    `json:"from,omitempty"` // a stamp or its beginning
	Before time.Time `json:"before,omitzero"`
	DryRun bool      `json:"dry_run,omitempty"`
}

// ResetRequest says what of a node's layer to set aside.
type ResetRequest struct {
	Paths  []Path `json:"paths"` // empty: everything
	DryRun bool   `json:"dry_run,omitempty"`
	Force  bool   `json:"force,omitempty"` // also when the node may be running
}

// RemoveLayersRequest says whose files to remove for good, of nodes that the description no longer has.
type RemoveLayersRequest struct {
	Nodes  string `json:"nodes"` // a node set of names; "" is all such nodes, and only for a dry run
	DryRun bool   `json:"dry_run,omitempty"`
}

// RemovedLayer is what a node that the description no longer has has left over one image.
type RemovedLayer struct {
	Server  string `json:"server"`
	Problem string `json:"problem,omitempty"` // why it is not known what the server has; then nothing else is set
	Node    string `json:"node"`
	Image   string `json:"image"`
	Entries int    `json:"entries"` // of its own, set aside and in snapshots
	Bytes   uint64 `json:"bytes"`   // that they take on the disk
}

// AcceptRequest asks to serve a node with files of which it is not known over which version they are.
type AcceptRequest struct {
	DryRun bool `json:"dry_run,omitempty"`
}

// AcceptedLayer is a layer that counts as one over a version from now on.
type AcceptedLayer struct {
	Node    string `json:"node"`
	Image   string `json:"image"`
	Version string `json:"version"` // NAME@N, over which the files count
	Entries int    `json:"entries"` // of the node's own, set aside and in snapshots
	Bytes   uint64 `json:"bytes"`   // that they take on the disk
	Copy    string `json:"copy"`    // path of the damaged journal as it was
}
