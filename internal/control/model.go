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
	Digest    string         `json:"digest"`  // of the applied description
	Applied   time.Time      `json:"applied"` // when it was applied
	Coord     Coord          `json:"coord"`
	Services  []Service      `json:"services"` // what listens
	Disks     []Disk         `json:"disks"`    // where data is kept
	Images    []Image        `json:"images"`
	Nodes     int            `json:"nodes"`     // how many are declared
	Stages    map[string]int `json:"stages"`    // how many nodes are in each stage
	Machines  []Machine      `json:"machines"`  // unknown ones that asked for a boot
	Capturing []Progress     `json:"capturing"` // captures that run now
	Mounts    []Mount        `json:"mounts"`
	Rollouts  []Rollout      `json:"rollouts"` // those under way
	Problems  []Problem      `json:"problems"` // empty when all is well
}

// Coord is the state of the cluster's shared state.
type Coord struct {
	Kind     string `json:"kind"` // "embedded" or "external"
	OK       bool   `json:"ok"`
	Revision int64  `json:"revision"`
	Error    string `json:"error,omitempty"`
}

// Service is one thing that listens.
type Service struct {
	Name    string `json:"name"`    // "nfs", "http", "tftp", "dhcp"
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

// Description is a cluster description as it was applied: the XML file and the files that it names.
type Description struct {
	Main     string            `json:"main"`     // name of the XML file among Files
	Files    map[string][]byte `json:"files"`    // by name relative to Main's directory; base64 in JSON
	Digest   string            `json:"digest"`   // over all of it
	Revision int64             `json:"revision"` // changes with each apply
	Applied  time.Time         `json:"applied"`
	Problem  string            `json:"error,omitempty"` // why this server does not follow it
}

// Image is one image in short.
type Image struct {
	Name     string   `json:"image"`
	Arch     string   `json:"arch"`
	Master   string   `json:"master"`
	Versions int      `json:"versions"`        // how many there are
	Newest   *Version `json:"newest"`          // null when there is none
	Current  int      `json:"current"`         // the version that nodes follow which follow none of their own; 0: none
	Nodes    int      `json:"nodes"`           // how many nodes are to run it
	Durable  string   `json:"durability"`      // what replies to its nodes promise: "sync", "async-metadata", "async"
	Watch    *Watch   `json:"watch,omitempty"` // how its master is watched; not there: it is not
	Problem  string   `json:"error,omitempty"` // of the last capture
}

// Version is one version of an image.
type Version struct {
	Image   string    `json:"image"`
	Number  int       `json:"version"`
	Digest  string    `json:"digest"`
	Created time.Time `json:"created"`
	Master  string    `json:"master"`
	Parent  int       `json:"parent"` // 0: none
	Files   uint64    `json:"files"`  // names of all types
	Bytes   uint64    `json:"bytes"`  // content, each hard-linked file once
	Tags    []string  `json:"tags"`
	Kernel  string    `json:"kernel"`             // release of the one it boots, empty when it has none
	Nodes   []string  `json:"nodes"`              // whose replicas follow it now
	Durable string    `json:"durability"`         // of its image now: what replies to the nodes promise
	Problem string    `json:"error,omitempty"`    // why it cannot boot
	Watch   *Watch    `json:"watch,omitempty"`    // how the master is watched, when the newest was asked for
	Notes   []string  `json:"warnings,omitempty"` // what the capture had to leave out or to read again
}

// Change is one path that differs between two versions.
type Change struct {
	Path string `json:"path"` // see MarshalJSON about bytes that are not UTF-8
	Kind Kind   `json:"change"`
	Type string `json:"type"`           // of what is there now, or was, when it is gone: "file", "directory", …
	Size uint64 `json:"size"`           // bytes of content, of files
	Was  uint64 `json:"was,omitempty"`  // size before
	What string `json:"what,omitempty"` // which attributes differ: "mode owner time xattr"
}

// Kind is the way in which a path differs.
type Kind string

// The kinds of change.
const (
	Added      Kind = "added"
	Removed    Kind = "removed"
	Content    Kind = "content"    // other bytes, target, device or type
	Attributes Kind = "attributes" // only mode, owner, times or xattrs
)

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

// Machine is one that asked for a boot and is in no description.
type Machine struct {
	MAC   string    `json:"mac"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Count int       `json:"count"`
	Asked string    `json:"asked"` // what it said it is: "PXE, x86_64 UEFI, 10.0.0.1"
}

// Mount is a tree shown as a local directory.
type Mount struct {
	What    string    `json:"what"` // node name, or NAME@VERSION
	Dir     string    `json:"dir"`  // as the caller sees it
	Started time.Time `json:"started"`
}
