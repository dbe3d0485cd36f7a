package control

import "time"

// Status is the truth about one daemon.
type Status struct {
	Server    string         `json:"server"`  // its name in the description
	Program   string         `json:"program"` // version of dim
	PID       int            `json:"pid"`
	Started   time.Time      `json:"started"`
	Data      string         `json:"data"`    // the data directory
	Cluster   string         `json:"cluster"` // name of the cluster
	Applied                  // the description that this server follows
	Coord     Coord          `json:"coord"`
	Services  []Service      `json:"services"` // what listens
	Disks     []Disk         `json:"disks"`    // where data is kept
	Images    []Image        `json:"images"`
	Servers   []Server       `json:"server_list"`  // all of the description
	Nodes     int            `json:"node_count"`   // how many are declared
	Stages    map[string]int `json:"stage_counts"` // how many nodes are in each stage
	Machines  []Machine      `json:"machines"`     // unknown ones that asked for a boot
	Capturing []Progress     `json:"capturing"`    // captures that run now
	Mounts    []Mount        `json:"mounts"`
	Rollouts  []Rollout      `json:"rollouts"` // those under way
	Problems  []Problem      `json:"problems"` // empty when all is well

	Kept
}

// Kept is what is kept of nodes on this server.
type Kept struct {
	// Quota is that of the description for every node that has no other; nil: none.
	Quota *Quota `json:"default_quota,omitempty"`
	// Expires are the ten removals that come first, the earliest first.
	Expires []Removal `json:"expires_next"`
}

// Removal is a snapshot, or what a switch or a command has set aside, which a server removes after its time.
type Removal struct {
	Node     string    `json:"node"`
	Image    string    `json:"image"`
	Snapshot bool      `json:"snapshot"` // it is a snapshot; otherwise it was set aside
	Stamp    string    `json:"stamp"`
	Expires  time.Time `json:"expires"`
}

// Applied tells which description is applied.
type Applied struct {
	Digest   string    `json:"digest"`
	Revision int64     `json:"description_revision"` // 0: none yet
	Time     time.Time `json:"applied"`
}

// Coord is the state of the cluster's shared state.
type Coord struct {
	Kind     string `json:"kind"`           // "embedded" or "external" etcd; "head": this server follows a head
	Head     string `json:"head,omitempty"` // the head that this server follows
	OK       bool   `json:"ok"`
	Revision int64  `json:"revision"` // counts all changes of the shared state
	Error    string `json:"error,omitempty"`

	Members []Member `json:"members,omitempty"` // heads that take part in an embedded etcd; none: this one alone
}

// Member is a head that takes part in the shared state.
type Member struct {
	Server string `json:"head"`  // its name; "": it was added and has not started yet
	Leads  bool   `json:"leads"` // all changes go through it
	Votes  bool   `json:"votes"` // false: it has not caught up with the others yet
}

// Service is one thing that listens.
type Service struct {
	Name    string `json:"name"`    // "nfs", "http", "api", "tftp", "dhcp"
	Address string `json:"address"` // host:port
}

// Disk is the room of one file system that data is kept on.
type Disk struct {
	Path      string `json:"path"`
	Bytes     uint64 `json:"bytes"`
	BytesFree uint64 `json:"bytes_free"`
	Files     uint64 `json:"files"`
	FilesFree uint64 `json:"files_free"`
}

// Problem is something that a person should know or do.
type Problem struct {
	About string    `json:"about"` // "image compute", "node n01", "disk /var/lib/dim", "shared state"
	Text  string    `json:"text"`
	Hint  string    `json:"hint,omitempty"`
	Since time.Time `json:"since,omitzero"`
}

// Machine is one that asked for a boot and is in no description.
type Machine struct {
	MAC   string    `json:"mac"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Count int       `json:"count"`
	Asked string    `json:"asked"` // what it said it is: "PXE, x86_64 UEFI, 10.0.0.1"

	Archs   []int  `json:"architectures,omitempty"` // of its firmware, by RFC 4578
	UUID    string `json:"uuid,omitempty"`          // of its firmware, by RFC 4578
	Port    string `json:"switch_port,omitempty"`   // what a relay or a switch says in option 82
	Network string `json:"network,omitempty"`       // of the description, on which it asks; "": not known
	Server  string `json:"server"`                  // that it asked
}

// Mount is a tree shown as a local directory.
type Mount struct {
	What    string    `json:"what"` // node name, or NAME@VERSION
	Dir     string    `json:"dir"`  // as the caller sees it
	Started time.Time `json:"started"`
}
