package control

import "time"

// NodeBoots are the last boots of a node, and what can be said of them.
type NodeBoots struct {
	Node    string `json:"node"`
	Server  string `json:"server"` // that serves it
	Stage   string `json:"stage"`
	Finding string `json:"finding"` // what is wrong or slow, in a sentence; or that nothing is
	Well    bool   `json:"well"`    // nothing is wrong or slow
	Hint    string `json:"hint,omitempty"`
	// the nodes that the medians are of, such as "15 nodes of rack 2"; "": too few have booted
	Compared string     `json:"compared_with"`
	Boots    []NodeBoot `json:"boots"` // the latest first
}

// NodeBoot is one boot of a node.
type NodeBoot struct {
	Began time.Time  `json:"began"`
	Took  float64    `json:"took_seconds"`  // until the node ran; until now or its last step if it did not
	Ran   bool       `json:"ran"`           // it ended with a running node
	Ended string     `json:"ended_because"` // why an earlier boot ended before the node ran
	Steps []BootStep `json:"steps"`
}

// BootStep is a part of a boot, from one event to the next one.
type BootStep struct {
	Stage  string    `json:"stage"`
	Time   time.Time `json:"time"`
	After  float64   `json:"after_seconds"`  // since the boot began
	Took   float64   `json:"took_seconds"`   // until the next step
	Median float64   `json:"median_seconds"` // of the neighbors; 0: not known
	Slow   bool      `json:"slow"`           // it took three times as long as the median, and three seconds more
	Count  int       `json:"count"`
	Text   string    `json:"text,omitempty"`
	Error  string    `json:"error,omitempty"` // why the last try failed
}
