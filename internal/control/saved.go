package control

import "time"

// Saved is one entry of a node's own that was set aside.
type Saved struct {
	Path    Path      `json:"path"`
	Stamp   string    `json:"stamp"` // names the switch, reset or restore that did it
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`    // "entry", "removal", "opaque", "attributes"
	Type    string    `json:"type"`    // of an entry: "file", "directory", …
	Size    uint64    `json:"size"`    // bytes of content, of a directory with all that is in it
	Entries int       `json:"entries"` // in a directory
	Why     string    `json:"why"`     // "switch compute@1 compute@2", "reset", "restore"
	Image   string    `json:"image"`
}

// RestoreRequest says what is to come back.
type RestoreRequest struct {
	Path   Path   `json:"path"`
	From   string `json:"from,omitempty"` // the stamp, or how it begins; "": of each path the latest
	To     Path   `json:"to,omitempty"`   // a directory of the node to put it in
	DryRun bool   `json:"dry_run,omitempty"`
}

// Restored is an entry that came back.
type Restored struct {
	Saved     Saved `json:"saved"`
	Path      Path  `json:"path"`      // where it stands now
	Displaced bool  `json:"displaced"` // what the node had there was set aside
}

// ForgetRequest says what is to be removed.
type ForgetRequest struct {
	Path   Path      `json:"path,omitempty"`
	From   string    `json:"from,omitempty"`
	Before time.Time `json:"before,omitzero"`
	DryRun bool      `json:"dry_run,omitempty"`
}

// ResetRequest says what of a node's own is to go.
type ResetRequest struct {
	Paths  []Path `json:"paths"` // empty: everything
	DryRun bool   `json:"dry_run,omitempty"`
	Force  bool   `json:"force,omitempty"` // also when the node may be running
}
