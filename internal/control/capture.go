package control

import "time"

// CaptureRequest asks for a capture.
type CaptureRequest struct {
	Image  string `json:"image"`
	DryRun bool   `json:"dry_run"` // only report what would change
	Show   int    `json:"show"`    // how many changes to list at most
	// Accept has directories of the master that hold a capture, because they look as if a file system had been mounted
	// or unmounted by accident. At and below them the capture takes the master as it is.
	Accept []string `json:"accept,omitempty"`
	// Reread reads the whole master, also what has not changed, and replaces what is damaged in the store.
	Reread bool `json:"reread,omitempty"`
	// Rollout, if not nil, starts a rollout of the captured version. Its field Version is ignored.
	Rollout *RolloutRequest `json:"rollout,omitempty"`
}

// Progress is the progress of a capture or a verification.
type Progress struct {
	Image      string    `json:"image"`
	Stage      string    `json:"stage"` // "look", "read", "write", "verify"
	Started    time.Time `json:"started"`
	Files      uint64    `json:"files"` // done so far
	FilesTotal uint64    `json:"files_total"`
	Bytes      uint64    `json:"bytes"`
	BytesTotal uint64    `json:"bytes_total"` // 0 while it is not known
}

// CaptureResult is the result of a capture.
type CaptureResult struct {
	Version   Version            `json:"captured"`  // the new one; the newest when nothing changed, or in a dry run
	Unchanged bool               `json:"unchanged"` // the master equals the newest version: no version was made
	DryRun    bool               `json:"dry_run"`
	Server    string             `json:"server,omitempty"` // other head with the master; "": the asked one
	Counts    map[ChangeKind]int `json:"counts"`           // changes by kind
	Changes   []Change           `json:"changes"`          // the first of them, as many as the request asks for
	Warnings  []Warning          `json:"warnings"`         // each once
	Current   int                `json:"current"`          // that nodes without a version of their own follow
	Rollout   *Rollout           `json:"rollout_begun,omitempty"`
	Seconds   float64            `json:"seconds"`

	Packages []PackageChange `json:"packages"`         // that differ from the version before
	Verdict  *Verdict        `json:"effect,omitempty"` // what the change means for nodes; nil for a first version
}

// Warning says what nodes will not have of a master, or what in it is odd.
type Warning struct {
	Kind WarningKind `json:"kind"`
	Path string      `json:"path,omitempty"` // with a leading slash; "": the whole
	Text string      `json:"text"`
	Hint string      `json:"hint,omitempty"` // what to do
}

// WarningKind classifies a Warning.
type WarningKind string

// The kinds of warnings.
const (
	WarnLeftOut      WarningKind = "left-out"     // a mount point, or an entry that vanished
	WarnChanging     WarningKind = "changing"     // it changed while it was read
	WarnHeld         WarningKind = "held"         // of a dry run: a capture would need a person's confirmation
	WarnCapabilities WarningKind = "capabilities" // nodes do not have file capabilities
	WarnSecret       WarningKind = "secret"       // it should be on one machine only
	WarnMode         WarningKind = "mode"         // its mode or owner breaks nodes
	WarnReplaced     WarningKind = "replaced"     // a directory has replaced a link to a directory
	WarnKernels      WarningKind = "kernels"      // there are several, and it is not certain which is meant
	WarnBoot         WarningKind = "boot"         // nodes may not come up
	WarnPackages     WarningKind = "packages"     // a database of packages was not read
	WarnOdd          WarningKind = "odd"          // anything else
)

// WatchRequest asks to watch the master of an image, or to stop watching it.
type WatchRequest struct {
	Image    string  `json:"image"`
	Rollout  string  `json:"rollout"`          // when nodes follow: "now", "boot"; "": they stay
	Debounce float64 `json:"debounce_seconds"` // how long the master must be quiet before a capture; 0: the default
	Off      bool    `json:"off"`
	DryRun   bool    `json:"dry_run"` // only report how the master would be watched
}

// Watch is how the master of an image is watched.
type Watch struct {
	Image    string    `json:"image"`
	On       bool      `json:"on"`
	Master   string    `json:"master"`
	Server   string    `json:"server"` // the one that watches
	Rollout  string    `json:"when"`
	Debounce float64   `json:"debounce_seconds"`
	Declared time.Time `json:"declared,omitzero"`
	// Only the server that watches sets the following fields.
	Since    time.Time `json:"since,omitzero"`    // it has watched without a break
	Polling  string    `json:"polling,omitempty"` // why it scans the whole master instead of following events
	Interval float64   `json:"interval_seconds"`  // between scans of the whole master
	Walks    int       `json:"walks"`             // scans of the whole master so far
	Lost     int       `json:"lost"`              // how often the kernel lost events
	Versions int       `json:"version_count"`     // made since then
	Last     int       `json:"version"`           // the last one; 0: none yet
	Made     time.Time `json:"made,omitzero"`     // when the last one was made
	Problem  string    `json:"error,omitempty"`   // of the last capture
}
