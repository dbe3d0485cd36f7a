package control

import "time"

// Image is a summary of one image.
type Image struct {
	Name     string   `json:"image"`
	Arch     string   `json:"arch"`
	Master   string   `json:"master"`
	Versions int      `json:"version_count"`   // how many there are
	Newest   *Version `json:"newest"`          // null when there is none
	Current  int      `json:"current"`         // the version that nodes without a version of their own follow; 0: none
	Nodes    int      `json:"node_count"`      // how many nodes are declared to run the image
	Use      []Use    `json:"use"`             // which versions they show, those of most nodes first
	Durable  string   `json:"durability"`      // promise of replies to its nodes: "sync", "async-metadata", "async"
	Watch    *Watch   `json:"watch,omitempty"` // how its master is watched; nil: not at all
	Problem  string   `json:"error,omitempty"` // of the last capture
}

// Use is how many nodes show a version of an image.
type Use struct {
	Version int `json:"version"`                // 0: none, or it is not known
	Next    int `json:"next_version,omitempty"` // that they change to at their next boot; 0: they do not
	Count   int `json:"count"`
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
	Kernel  string    `json:"kernel"` // release of the kernel that it boots; empty: it has none
	// OtherKernels are releases of kernels that could be meant as well, in answers about one version. It is empty if
	// the description names one.
	OtherKernels []string `json:"other_kernels,omitempty"`

	Nodes   []string `json:"node_names"`      // nodes whose replicas follow it now
	Durable string   `json:"durability"`      // see Image
	Problem string   `json:"error,omitempty"` // why it cannot boot
	Watch   *Watch   `json:"watch,omitempty"` // how the master is watched, in answers about the newest version
}

// Installed is what is installed in a version, by the databases of its package managers.
type Installed struct {
	Image    string             `json:"image"`
	Number   int                `json:"version"`
	Packages []InstalledPackage `json:"packages"` // by name, architecture and version
	Unread   []string           `json:"unread"`   // databases that could not be read, each with the reason
}

// InstalledPackage is one package of a version.
type InstalledPackage struct {
	Name    string `json:"package"`
	Arch    string `json:"arch"`
	Version string `json:"package_version"`
}

// RemoveRequest is how to remove a version.
type RemoveRequest struct {
	DryRun bool `json:"dry_run"` // only report what would be removed
}

// PruneRequest asks to remove what nothing needs.
type PruneRequest struct {
	Image  string `json:"image"`   // "": all
	Keep   int    `json:"keep"`    // how many of the newest versions of an image stay in any case
	DryRun bool   `json:"dry_run"` // only report what would be removed
}

// PruneResult is what was removed, or would be.
type PruneResult struct {
	DryRun   bool          `json:"dry_run"`
	Versions []string      `json:"versions"` // removed: compute@3
	Kept     []KeptVersion `json:"kept"`     // only of a prune
	Objects  int           `json:"objects"`  // blobs and trees that no version refers to any more
	Bytes    uint64        `json:"bytes"`    // of these objects on the disk
}

// KeptVersion is a version that a prune keeps.
type KeptVersion struct {
	Version string `json:"ref"`
	Why     string `json:"why"`
}

// VerifyResult is the result of reading every object of a version or of the store.
type VerifyResult struct {
	Ref      string   `json:"ref"` // what was read: compute@12; empty: the whole store
	Objects  uint64   `json:"objects"`
	Bytes    uint64   `json:"bytes"`
	Digest   string   `json:"digest,omitempty"` // of the version
	Problems []string `json:"damage"`           // what is damaged now
	Replaced []string `json:"replaced"`         // what was damaged and has been brought anew from another server
	Seconds  float64  `json:"seconds"`
}

// VerifyAllResult tells whether all servers and nodes have a version as it is declared.
type VerifyAllResult struct {
	Ref     string           `json:"ref"`
	Digest  string           `json:"digest"`
	Servers []ServerVerified `json:"verified"`    // those whose nodes follow it, and those that have it besides
	Equal   int              `json:"equal_count"` // nodes that follow it and show it
	Differ  []NodeDiffers    `json:"differing"`   // nodes that follow it and do not show it, or nobody knows
}

// ServerVerified is what a server has of a version.
type ServerVerified struct {
	Server   string   `json:"server"`
	Objects  uint64   `json:"objects"`
	Bytes    uint64   `json:"bytes"`
	Problems []string `json:"damage"`   // empty: it has all of it
	Replaced []string `json:"replaced"` // what was damaged and has been brought anew from another server
}

// NodeDiffers is a node that does not show what it follows.
type NodeDiffers struct {
	Node string `json:"node"`
	Text string `json:"text"` // what is known of it
}
