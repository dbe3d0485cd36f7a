package control

import "time"

// WatchRequest asks that an image's master is watched, or no longer.
type WatchRequest struct {
	Image    string  `json:"image"`
	Rollout  string  `json:"rollout"`          // when nodes follow: "now", "boot"; "": when they are told to
	Debounce float64 `json:"debounce_seconds"` // how long the master must be quiet; 0: the default
	Off      bool    `json:"off"`
	DryRun   bool    `json:"dry_run"` // only tell how it would be
}

// Watch is how an image's master is watched.
type Watch struct {
	Image    string    `json:"image"`
	On       bool      `json:"on"`
	Master   string    `json:"master"`
	Server   string    `json:"server"` // the one that watches
	Rollout  string    `json:"rollout"`
	Debounce float64   `json:"debounce_seconds"`
	Declared time.Time `json:"declared,omitzero"`
	// What follows is known on the server that watches.
	Since    time.Time `json:"since,omitzero"`    // it has watched without a break
	Polling  string    `json:"polling,omitempty"` // why everything is looked at every few seconds, instead of what changed
	Interval float64   `json:"interval_seconds"`  // after which everything is looked at
	Walks    int       `json:"walks"`             // how often everything was
	Lost     int       `json:"lost"`              // how often the kernel lost events
	Versions int       `json:"versions"`          // made since then
	Last     int       `json:"version"`           // the last one; 0: none yet
	Made     time.Time `json:"made,omitzero"`     // when
	Problem  string    `json:"error,omitempty"`   // of the last capture
}
