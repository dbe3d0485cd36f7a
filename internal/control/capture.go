package control

import "time"

// CaptureRequest asks for a capture.
type CaptureRequest struct {
	Image  string `json:"image"`
	DryRun bool   `json:"dry_run"` // only tell what would change
	Show   int    `json:"show"`    // how many changes to list at most
	// Rollout, if not nil, is begun with what was captured; its Version is not looked at.
	Rollout *RolloutRequest `json:"rollout,omitempty"`
}

// Progress is how far a capture is.
type Progress struct {
	Image      string    `json:"image"`
	Stage      string    `json:"stage"` // "look", "read", "write"
	Started    time.Time `json:"started"`
	Files      uint64    `json:"files"` // done so far
	FilesTotal uint64    `json:"files_total"`
	Bytes      uint64    `json:"bytes"`
	BytesTotal uint64    `json:"bytes_total"`       // 0 while it is not known
	Warning    string    `json:"warning,omitempty"` // what should be known at once
}

// Captured is the result of a capture.
type Captured struct {
	Version   Version      `json:"version"`   // the new one; the newest there is when nothing changed, or in a dry run
	Unchanged bool         `json:"unchanged"` // the master is as the newest version: no version was made
	DryRun    bool         `json:"dry_run"`
	Counts    map[Kind]int `json:"counts"`   // changes by kind
	Changes   []Change     `json:"changes"`  // the first of them, see CaptureRequest.Show
	Warnings  []string     `json:"warnings"` // what was left out or read again
	Current   int          `json:"current"`  // the version that the nodes of the image follow which follow none of their own
	Rollout   *Rollout     `json:"rollout,omitempty"`
	Seconds   float64      `json:"seconds"`

	Secrets  []Secret        `json:"secrets"`           // that are new in it
	Packages []PackageChange `json:"packages"`          // that differ from the version before
	Verdict  *Verdict        `json:"verdict,omitempty"` // what the change means for nodes; there is none for a first version
}

// Secret is something in a version that should be one machine's alone, and that every node would have.
type Secret struct {
	Path string `json:"path"`
	Kind string `json:"kind"` // "SSH host key", "private key"
}
