package control

import "time"

// RolloutRequest asks for a rollout.
type RolloutRequest struct {
	Nodes   string  `json:"nodes"`   // node set; "": all nodes of the image
	Version string  `json:"version"` // NAME (the newest), NAME@NUMBER or NAME@TAG
	When    string  `json:"when"`    // "now" or "boot"
	Rings   string  `json:"rings"`   // "1,10%,rest"; "": all nodes together
	Soak    float64 `json:"soak_seconds"`
	Check   string  `json:"check"`
	Hook    string  `json:"hook"`
	DryRun  bool    `json:"dry_run"`
}

// Rollout is one rollout: as it was asked for, and how far it is.
type Rollout struct {
	ID      int           `json:"rollout"` // 0: it would be one, or there was nothing to do
	Image   string        `json:"image"`
	Version int           `json:"version"`
	When    string        `json:"when"`
	Nodes   string        `json:"nodes"` // node set
	Count   int           `json:"count"` // how many nodes
	All     bool          `json:"all"`   // all nodes of the image: the version becomes the current one
	Rings   []RolloutRing `json:"rings"`
	Soak    float64       `json:"soak_seconds"`
	Check   string        `json:"check"`
	Hook    string        `json:"hook"`
	State   string        `json:"state"` // "running", "paused", "done", "undone", "stopped", "planned", "nothing to do"; of a dry run what it would be
	Ring    int           `json:"ring"`  // the one under way, from 1
	Phase   string        `json:"phase"` // of that ring: "switching", "hook", "gate"
	Since   time.Time     `json:"since,omitzero"`
	Reason  string        `json:"reason"` // why it is paused, or what it waits for
	Started time.Time     `json:"started,omitzero"`
	Ended   time.Time     `json:"ended,omitzero"`
	Shows   int           `json:"shows"` // how many of its nodes show the version now
	// Current is the version that the nodes of the image follow which follow none of their own.
	Current int `json:"current"`

	States []RolloutNode `json:"nodes_now,omitempty"` // of each node, when one rollout was asked for
}

// RolloutRing is one ring of a rollout.
type RolloutRing struct {
	Nodes string        `json:"nodes"` // node set
	Count int           `json:"count"`
	Shows int           `json:"shows"`           // how many show the version now
	Moves []RolloutMove `json:"moves,omitempty"` // of a dry run
}

// RolloutMove is what a dry run tells of nodes that follow the same version now.
type RolloutMove struct {
	Nodes string `json:"nodes"`
	Count int    `json:"count"`
	From  string `json:"from"`  // reference that they follow; "": none
	To    string `json:"to"`    // reference that they would follow
	Paths int    `json:"paths"` // at how many paths the two differ
	Boot  bool   `json:"boot"`  // they change when they boot

	Verdict *Verdict `json:"verdict,omitempty"` // what the change means for those that run, when they change at once
}

// RolloutNode is where one node of a rollout is.
type RolloutNode struct {
	Node    string `json:"node"`
	Ring    int    `json:"ring"`  // from 1
	Shows   string `json:"shows"` // version that its replica shows; "": none here
	Stage   string `json:"stage"`
	Verdict string `json:"verdict"` // "current", "stale until …", "waits for ring 2", "changes when it boots", "not moved: …"
	// What a node that has run since before the rollout still runs of the version before: as the node itself tells (exact), or else as
	// packages and unit files do.
	Restart []string `json:"restart"` // services that run replaced programs or libraries until they are started again
	Exact   bool     `json:"exact"`
	Reboot  bool     `json:"reboot"` // a part waits for a reboot
}

// RolloutChange is what is to become of a rollout.
type RolloutChange struct {
	Do   string `json:"do"`   // "pause", "resume", "undo", "stop"
	When string `json:"when"` // of an undo: "now", "boot", or "" as the rollout was

	Doing
}
