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
	// OnConflict tells what becomes of nodes that have changed packages which the version changes in another way:
	// "stop", they are not moved, "master", what they have of these packages is set aside, or "node", these packages
	// stay the node's. "" is "stop".
	OnConflict string `json:"on_conflict,omitempty"`
	// MaxFailed is how many nodes of a ring may fail before the rollout stops: a number, or a percentage. "" is 1%.
	MaxFailed string `json:"max_failed,omitempty"`
	// NoWait declares the first ring at once, also if servers do not have the version yet.
	NoWait bool `json:"no_wait,omitempty"`
	DryRun bool `json:"dry_run"`
}

// Rollout is one rollout: what was asked for, and its progress.
type Rollout struct {
	ID      int           `json:"rollout"` // 0 in a dry run, and when there was nothing to do
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
	// OnConflict is "stop", "master" or "node": what becomes of nodes that have changed packages which the version
	// changes too.
	OnConflict string `json:"on_conflict"`
	// State is "running", "paused", "done", "undone", "stopped", "replaced" (by another rollout of its nodes),
	// "planned" or "nothing to do". In a dry run it is the state that would follow.
	State   string    `json:"state"`
	Ring    int       `json:"ring"`  // the current one, from 1
	Phase   string    `json:"phase"` // of the current ring: "prefetch" (before the first), "switching", "hook", "gate"
	Since   time.Time `json:"since,omitzero"`
	Reason  string    `json:"reason"` // why it is paused, or what it waits for
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
	Shown   *int      `json:"shown"`   // how many of its nodes show the version, or did at its end; nil: not known
	Current int       `json:"current"` // the version that nodes without a version of their own follow

	// Own is what nodes have of their own at paths that change: in a dry run what would be set aside, in answers about
	// one rollout what was.
	Own []OwnChanges `json:"own,omitempty"`

	States []RolloutNode `json:"nodes_now,omitempty"` // of each node, in answers about one rollout

	MaxFailed string       `json:"max_failed,omitempty"`      // how many nodes of a ring may fail; "": 1%
	Skipped   string       `json:"servers_skipped,omitempty"` // servers without the version that it has not waited for
	Behind    []Stragglers `json:"nodes_behind,omitempty"`    // in answers about one rollout
}

// Stragglers are nodes of one server that a rollout has declared the version for, and that do not show it.
type Stragglers struct {
	Server string `json:"server"`
	Nodes  string `json:"nodes"` // node set
	Count  int    `json:"count"`
	Why    string `json:"why"`
}

// PreviewRequest asks what moves of nodes would set aside.
type PreviewRequest struct {
	Moves      []PreviewMove `json:"moves"`
	OnConflict string        `json:"on_conflict"` // see RolloutRequest
}

// PreviewMove is a move of nodes to a version.
type PreviewMove struct {
	Nodes string `json:"nodes"` // node set
	To    string `json:"to"`    // NAME@NUMBER
}

// OwnChanges is what a rollout sets aside on some nodes that lose the same packages and accounts. The lists are cut: of
// thousands of nodes there are at most some dozens of OwnChanges, and the last one counts what the others leave out.
type OwnChanges struct {
	Nodes string `json:"nodes"` // node set
	Count int    `json:"count"`
	Paths int    `json:"path_count"`  // entries set aside, on all of these nodes together
	First []Path `json:"first_paths"` // some of the paths
	// Packages are those of the nodes' own that the package database no longer has as they had them.
	Packages []string `json:"package_names"`
	Accounts []string `json:"accounts"`      // users and groups that are no longer as the nodes had them
	Notes    []string `json:"notes"`         // what else a person must know, such as a number that two users have
	Left     string   `json:"left"`          // why these nodes are not moved; "" if they are
	Kept     string   `json:"kept_packages"` // which packages stay these nodes'; nothing else is said of the nodes then
	// Unknown is why it is not known what these nodes have of their own; nothing else is said of the nodes then.
	Unknown string `json:"not_known_because,omitempty"`
}

// RolloutRing is one ring of a rollout.
type RolloutRing struct {
	Nodes string `json:"nodes"` // node set
	Count int    `json:"count"`
	Shown *int   `json:"shown"` // how many show the version now; nil: the rollout has ended
	// Without are the nodes that had failed when the rollout went on, a node set.
	Without string        `json:"without,omitempty"`
	Moves   []RolloutMove `json:"moves,omitempty"` // only of a dry run
}

// RolloutMove is what a dry run reports of nodes that follow the same version now.
type RolloutMove struct {
	Nodes string `json:"nodes"`
	Count int    `json:"count"`
	From  string `json:"from"`       // reference that they follow; "": none
	To    string `json:"to"`         // reference that they would follow
	Paths int    `json:"path_count"` // number of paths at which the two differ
	Boot  bool   `json:"at_boot"`    // they change when they boot

	Verdict *Verdict `json:"effect,omitempty"` // what the change means for those that run, when they change at once
}

// RolloutNode is the progress of one node of a rollout.
type RolloutNode struct {
	Node string `json:"node"`
	Ring int    `json:"ring"` // from 1
	// Server is the one that serves the node; "" if the description no longer has the node.
	Server string `json:"server,omitempty"`
	Shows  string `json:"shows"` // version that its replica shows; "": it has none here
	Stage  string `json:"stage"`
	// Verdict is where the node is in the rollout: "current", "stale until …", "waits for ring 2", "changes when it
	// boots" or "not moved: …".
	Verdict string `json:"verdict"`
	// Restart lists the services that run replaced programs or libraries until they are restarted. It is exact when
	// the node itself reported them; otherwise they are derived from packages and unit files.
	Restart []string `json:"restart_units"`
	Exact   bool     `json:"exact"`
	Reboot  bool     `json:"reboot"` // a part takes effect at the next boot
	// Reload lists the commands after which configuration takes effect that daemons have read before the switch.
	Reload []string `json:"reload_commands"`
	// Old lists files of the node's own that are older than what they describe, with what to do.
	Old []string `json:"old"`
	// AsOf is the time of which the verdict is: what was done on the node since is not known. It is zero if the verdict
	// is of now.
	AsOf time.Time `json:"as_of,omitzero"`
	// Confirmed is when a person confirmed that everything was done that the node does not report. Restart and Reload
	// do not list it then.
	Confirmed time.Time `json:"confirmed,omitzero"`
}

// ConfirmRequest confirms that everything was done on some nodes that takes the changes of their last rollouts into
// effect, as far as the nodes do not report it themselves.
type ConfirmRequest struct {
	Nodes  string `json:"nodes"` // node set
	DryRun bool   `json:"dry_run"`
}

// ConfirmedNode is a node of a ConfirmRequest.
type ConfirmedNode struct {
	Node    string   `json:"node"`
	Rollout int      `json:"rollout"` // the latest one that has moved the node; 0: none has
	Restart []string `json:"restart_units"`
	Reload  []string `json:"reload_commands"`
	Verdict string   `json:"verdict"` // without what is confirmed
}

// RolloutChange asks to change a rollout.
type RolloutChange struct {
	Do     string `json:"do"`      // "pause", "resume", "undo", "stop"
	When   string `json:"when"`    // for an undo: "now", "boot", or "" for the When of the rollout
	DryRun bool   `json:"dry_run"` // only report what would change
}
