package control

import "time"

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
	Kernel  string    `json:"kernel"`          // release of the one it boots, empty when it has none
	Nodes   []string  `json:"nodes"`           // whose replicas follow it now
	Durable string    `json:"durability"`      // of its image now: what replies to the nodes promise
	Problem string    `json:"error,omitempty"` // why it cannot boot
	Watch   *Watch    `json:"watch,omitempty"` // how the master is watched, when the newest was asked for
}

// Doing tells whether a change is to be made, or only what it would be.
type Doing struct {
	DryRun bool `json:"dry_run"`
}

// PruneRequest asks for a prune.
type PruneRequest struct {
	Image string `json:"image"` // "": all
	Keep  int    `json:"keep"`  // how many of the newest versions of an image stay in any case
	Doing
}

// Pruned is what was removed, or would be.
type Pruned struct {
	DryRun   bool          `json:"dry_run"`
	Versions []string      `json:"versions"` // removed: compute@3
	Kept     []KeptVersion `json:"kept"`     // by a prune
	Objects  int           `json:"objects"`  // blobs and trees that no version led to any more
	Bytes    uint64        `json:"bytes"`    // of them on the disk
}

// KeptVersion is a version that stays.
type KeptVersion struct {
	Version string `json:"version"`
	Why     string `json:"why"`
}

// Verified is the result of reading everything.
type Verified struct {
	Ref      string   `json:"version"` // what was read: compute@12; empty: all
	Objects  uint64   `json:"objects"`
	Bytes    uint64   `json:"bytes"`
	Problems []string `json:"problems"`
	Seconds  float64  `json:"seconds"`
}
