package control

import "time"

// Node is one node, as it is declared and as it is observed. Details is only set in answers about one node.
type Node struct {
	Name     string    `json:"node"`
	Index    int       `json:"index"`
	Image    string    `json:"image"`
	Version  int       `json:"version"`        // that its replica shows; 0: none yet
	Wanted   string    `json:"wanted"`         // reference that it follows
	Next     string    `json:"next,omitempty"` // reference that it follows from its next boot on
	Digest   string    `json:"shown_digest"`   // of the version that it shows; "": none
	Stage    string    `json:"stage"`          // "off": nothing is known of it; "silent": it has stopped answering
	Since    time.Time `json:"since,omitzero"`
	Text     string    `json:"text,omitempty"` // last message of the node about its stage, such as an error
	Address  string    `json:"address"`
	MAC      string    `json:"mac"`
	LastCall time.Time `json:"last_call,omitzero"` // its last NFS call
	Problem  string    `json:"error,omitempty"`
	Hint     string    `json:"hint,omitempty"` // likely causes of the problem, and what to do

	Details *NodeDetails `json:"details,omitempty"`
}

// NodeDetails is what `dim node show` prints in addition.
type NodeDetails struct {
	Servers    []string       `json:"servers"`
	Groups     []string       `json:"groups"`
	Position   map[string]int `json:"position"` // in the taxonomy
	Interfaces []Interface    `json:"interfaces"`
	Files      []string       `json:"node_file_paths"` // paths of its node files
	Append     string         `json:"append"`          // its kernel command line
	Durable    string         `json:"durability"`
	Usage      *NodeUsage     `json:"usage"` // null when this server does not serve the node
	Saved      int            `json:"saved"` // entries set aside
	// Packages are what the node has installed, upgraded and removed itself, in order of name.
	Packages []PackageChange `json:"packages"`
	// PackagesUnread tells why the node's package database cannot be read; then nothing is known of its packages.
	PackagesUnread string        `json:"packages_unread,omitempty"`
	Quota          QuotaUsage    `json:"holding"`
	QuotaOf        string        `json:"quota_of,omitempty"` // what declares its quota: "image compute"; "": none does
	Snapshots      SnapshotUsage `json:"snapshots"`
	Stages         []Stage       `json:"stages"` // of its last boot, oldest first
	Refused        *Refusal      `json:"refused,omitempty"`
	Push           *Push         `json:"push,omitempty"` // nil when the node's resident process has not reported
}

// Interface is a network interface of a node.
type Interface struct {
	Name     string   `json:"name"`
	Network  string   `json:"network"` // "": none, others are on it
	Address  string   `json:"address"`
	Address6 string   `json:"address6,omitempty"`
	MAC      string   `json:"mac"`
	MTU      int      `json:"mtu,omitempty"` // 0: the default
	VLAN     int      `json:"vlan,omitempty"`
	Bond     string   `json:"bond,omitempty"`  // its mode
	Below    []string `json:"below,omitempty"` // the interfaces that a VLAN or a bond is on
}

// Refusal is the last message of a node that was not answered, or its last request that was refused.
type Refusal struct {
	Text  string    `json:"text"`
	Last  time.Time `json:"last"`
	Count int       `json:"count"` // of equal ones in a row
}

// Stage is one step of a boot.
type Stage struct {
	Name string    `json:"stage"`
	Time time.Time `json:"time"`
	Text string    `json:"text,omitempty"`
}

// NodeUsage is the use that a node makes of its server: calls since the server started, and disk space.
type NodeUsage struct {
	Calls    uint64 `json:"calls"`
	Errors   uint64 `json:"errors"` // calls answered with an error, such as that a name does not exist
	Received uint64 `json:"received_bytes"`
	Sent     uint64 `json:"sent_bytes"`
	Files    uint64 `json:"layer_files"` // names in its layer
	Layer    uint64 `json:"layer_bytes"`
}

// Quota is what a description allows one node for its own changes to an image. 0 means that there is no bound.
type Quota struct {
	Bytes uint64 `json:"bytes"`
	Files uint64 `json:"files"`
}

// QuotaUsage is the size of a node's layer beside its limits. A limit of 0 means that there is none.
type QuotaUsage struct {
	Bytes    uint64 `json:"bytes"`
	BytesMax uint64 `json:"bytes_max"`
	Files    uint64 `json:"files"`
	FilesMax uint64 `json:"files_max"`
}

// Push is the last report of a node's resident process, which makes the node's kernel see switches at once.
type Push struct {
	State    string      `json:"state"`    // "current", "behind" or "lost": see the constants below
	Reported time.Time   `json:"reported"` // when the report came
	Memory   int         `json:"memory_kb"`
	Mounts   []NodeMount `json:"mounts"` // on paths of the replica
	Stale    []Process   `json:"stale"`  // processes that still use replaced files
	// Restart lists what these processes are: units, or "NAME (pid PID)". It is complete when State is current and
	// Omitted is 0.
	Restart []string `json:"restart_units"`
	Omitted int      `json:"omitted"` // mounts and processes for which the report had no room
	// UnitsRead is "yes" if the node's systemd has read its units since a switch last changed any, "no" if not, and ""
	// if that is not known.
	UnitsRead string `json:"units_read"`
}

// The states of Push.
const (
	PushCurrent = "current" // the node's kernel has seen every change
	PushBehind  = "behind"  // changes are being sent
	PushLost    = "lost"    // no reports arrive: the node sees changes when its caches expire
)

// NodeMount is a file system that a node has mounted.
type NodeMount struct {
	Path string `json:"path"`
	Type string `json:"type"` // of the file system
}

// Process is a process of a node that still uses replaced files.
type Process struct {
	PID  int    `json:"pid"`
	Name string `json:"name"`
	Unit string `json:"unit,omitempty"` // of systemd
	Path string `json:"path"`           // of one such file
	More int    `json:"more"`           // number of further ones
}

// CheckResult is what a check found in one replica; without a Node, in all replicas together.
type CheckResult struct {
	Node     string         `json:"node"`
	Image    string         `json:"image"`
	Entries  int            `json:"entries"` // in its layer
	Bytes    uint64         `json:"bytes"`
	Saved    int            `json:"saved"` // entries set aside
	Problems []LayerProblem `json:"problems"`
}

// LayerProblem is an inconsistency in a replica's directory.
type LayerProblem struct {
	Path       Path   `json:"path"`
	Text       string `json:"text"`
	Repairable bool   `json:"mends"` // left by a crash: the next use of the layer repairs it
}
