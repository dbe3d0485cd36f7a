package control

import "context"

// VersionsBackend is what the API asks of the daemon about versions beyond making and listing them. See Backend.
type VersionsBackend interface {
	// Diff yields what differs between two versions, in order of path, until yield returns false, and tells what it means.
	Diff(ctx context.Context, from, to string, yield func(Change) bool) (Comparison, error)
	// Untag removes the tag that ref, NAME@TAG, names.
	Untag(ctx context.Context, ref string) (Version, error)
	// RemoveVersion removes a version, NAME@NUMBER, and what it alone led to. One that is in use is a Conflict.
	RemoveVersion(ctx context.Context, ref string, how Doing) (Pruned, error)
	// Prune removes the versions that nothing needs, and what no version leads to. While objects come in it is Busy, with the versions gone.
	Prune(ctx context.Context, r PruneRequest) (Pruned, error)
	// Verify reads everything that a version leads to, or all that the store has when ref is "", and tells what is not what its digest says.
	Verify(ctx context.Context, ref string, progress func(Progress)) (Verified, error)
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

// Comparison is what two versions differ in, as a whole.
type Comparison struct {
	From     string          `json:"from"` // compute@11
	To       string          `json:"to"`
	Counts   map[Kind]int    `json:"counts"`
	Packages []PackageChange `json:"packages"`
	Verdict  Verdict         `json:"verdict"`
	Warnings []string        `json:"warnings"` // package databases that cannot be read
}

// PackageChange is one package that differs.
type PackageChange struct {
	Name string `json:"package"`
	Arch string `json:"arch"`
	From string `json:"from"` // version; empty: it was not there
	To   string `json:"to"`   // version; empty: it is gone
}

// Verdict tells what a change means for a node that runs the version before.
type Verdict struct {
	Data     int       `json:"data"`     // paths in effect at once
	Programs int       `json:"programs"` // paths in effect when what uses them is started again
	Boot     int       `json:"boot"`     // paths in effect at the next boot
	Restart  []Restart `json:"restart"`  // services that run replaced programs or libraries
	Init     bool      `json:"init"`     // so does the init process itself
	Reboot   bool      `json:"reboot"`   // a part waits for the next boot
}

// Restart is a service that runs replaced code until it is started again.
type Restart struct {
	Unit    string   `json:"unit"`
	Because []string `json:"because"` // packages, and paths that are no package's
}

// Secret is something in a version that should be one machine's alone, and that every node would have.
type Secret struct {
	Path string `json:"path"`
	Kind string `json:"kind"` // "SSH host key", "private key"
}
