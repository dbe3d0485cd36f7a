package control

import "time"

// Node is one node: declared and observed. The fields below Details are only there when one node was asked for.
type Node struct {
	Name     string    `json:"node"`
	Index    int       `json:"index"`
	Image    string    `json:"image"`
	Version  int       `json:"version"`        // that its replica shows; 0: none yet
	Wanted   string    `json:"wanted"`         // reference that it follows
	Next     string    `json:"next,omitempty"` // reference that it follows from its next boot on
	Stage    string    `json:"stage"`          // "off" when nothing is known of it, "silent" when it ran and answers no longer
	Since    time.Time `json:"since,omitzero"`
	Text     string    `json:"text,omitempty"` // what the node said last about its stage: an error, say
	Address  string    `json:"address"`
	MAC      string    `json:"mac"`
	LastCall time.Time `json:"last_call,omitzero"` // the last NFS call
	Problem  string    `json:"error,omitempty"`

	Details *NodeDetails `json:"details,omitempty"`
}

// NodeDetails is what `dim node show` tells besides.
type NodeDetails struct {
	Servers    []string       `json:"servers"`
	Groups     []string       `json:"groups"`
	Position   map[string]int `json:"position"` // in the taxonomy
	Interfaces []Interface    `json:"interfaces"`
	Files      []string       `json:"files"`  // paths of its node files
	Append     string         `json:"append"` // its kernel command line
	Durable    string         `json:"durability"`
	Usage      *NodeUsage     `json:"usage"` // null when this server does not serve it
	Saved      int            `json:"saved"` // files set aside by switches
	Holding    Holding        `json:"holding"`
	Snapshots  SnapshotSum    `json:"snapshots"`
	Stages     []Stage        `json:"stages"` // of its last boot, oldest first

	// Push is absent when the node's process was not heard.
	Push *Push `json:"push,omitempty"`
}

// Interface is a network card of a node.
type Interface struct {
	Name    string `json:"name"`
	Network string `json:"network"`
	Address string `json:"address"`
	MAC     string `json:"mac"`
}

// Stage is one step of a boot.
type Stage struct {
	Name string    `json:"stage"`
	Time time.Time `json:"time"`
	Text string    `json:"text,omitempty"`
}

// NodeUsage is what a node has cost its server: calls since the server started, and room on the disk.
type NodeUsage struct {
	Calls    uint64 `json:"calls"`
	Errors   uint64 `json:"errors"` // calls that were answered with an error, such as that a name does not exist
	Received uint64 `json:"received_bytes"`
	Sent     uint64 `json:"sent_bytes"`
	Files    uint64 `json:"layer_files"` // names in its layer
	Layer    uint64 `json:"layer_bytes"`
}

// Holding is what a node has of its own, and may have; a bound of 0 is none.
type Holding struct {
	Bytes    uint64 `json:"bytes"`
	BytesMax uint64 `json:"bytes_max"`
	Files    uint64 `json:"files"`
	FilesMax uint64 `json:"files_max"`
}

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

// Checked is what a check found of one replica; without a node, of all together.
type Checked struct {
	Node     string         `json:"node"`
	Image    string         `json:"image"`
	Entries  int            `json:"entries"` // of its own
	Bytes    uint64         `json:"bytes"`
	Saved    int            `json:"saved"` // entries set aside
	Problems []LayerProblem `json:"problems"`
}

// LayerProblem is something wrong in a replica's directory.
type LayerProblem struct {
	Path  Path   `json:"path"`
	Text  string `json:"text"`
	Mends bool   `json:"mends"` // what a crash leaves: the next use of the layer puts it right
}
