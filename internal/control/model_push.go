package control

import "time"

// Push is what a node's process, which hears of switches, has told.
type Push struct {
	State   string      `json:"state"` // one of the constants below
	Heard   time.Time   `json:"heard"` // when it was heard last
	Memory  int         `json:"memory_kb"`
	Mounts  []NodeMount `json:"mounts"`  // on paths of the replica
	Stale   []Process   `json:"stale"`   // processes that still use replaced files
	Restart []string    `json:"restart"` // what these are: units, or "NAME (pid PID)"; all there is when State is current and Omitted 0
	Omitted int         `json:"omitted"` // mounts and processes beyond what it could tell
}

// The states of Push.
const (
	PushCurrent = "current" // the node's kernel has looked at all that was switched
	PushBehind  = "behind"  // it is being told
	PushLost    = "lost"    // the process is not heard: changes show when the node's caches fall
)

// NodeMount is something that a node has mounted.
type NodeMount struct {
	Path string `json:"path"`
	Type string `json:"type"` // of the file system
}

// Process is one on a node that still uses replaced files.
type Process struct {
	PID  int    `json:"pid"`
	Name string `json:"name"`
	Unit string `json:"unit,omitempty"` // of systemd
	Path string `json:"path"`           // of such a file
	More int    `json:"more"`           // how many further ones
}
