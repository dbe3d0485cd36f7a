package control

import "context"

// VersionsBackend is what the API asks of the daemon about versions beyond making and listing them. See Backend.
type VersionsBackend interface {
	// Diff yields what differs between two versions, in order of path, until yield returns false, and tells what it means.
	Diff(ctx context.Context, from, to string, yield func(Change) bool) (Comparison, error)
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
