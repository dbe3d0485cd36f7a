package control

import (
	"encoding/json"
	"unicode/utf8"
)

// Change is one path that differs between two versions, or between a node and its version.
type Change struct {
	Path string     `json:"path"` // see MarshalJSON about bytes that are not UTF-8
	Kind ChangeKind `json:"change"`
	Type string     `json:"type"`           // of what is there now, or was there: "file", "directory", …
	Size uint64     `json:"size"`           // bytes of content, for files
	Was  uint64     `json:"was,omitempty"`  // size before
	What string     `json:"what,omitempty"` // attributes that differ, "mode owner time xattr", or both types
}

// ChangeKind is the way in which a path differs.
type ChangeKind string

// The kinds of change.
const (
	Added      ChangeKind = "added"
	Removed    ChangeKind = "removed"
	Content    ChangeKind = "content"    // other bytes, target, device or type
	Attributes ChangeKind = "attributes" // only mode, owner, times or xattrs
	Changed    ChangeKind = "changed"    // an attribute of an object of a description
	Renamed    ChangeKind = "renamed"    // a node of a description
)

// Comparison is the summary of the differences between two versions.
type Comparison struct {
	From     string             `json:"from"` // compute@11
	To       string             `json:"to"`
	Counts   map[ChangeKind]int `json:"counts"`
	Packages []PackageChange    `json:"packages"`
	Verdict  Verdict            `json:"effect"`
	Warnings []string           `json:"unread"` // package databases that cannot be read
}

// PackageChange is one package that differs between two versions.
type PackageChange struct {
	Name string `json:"package"`
	Arch string `json:"arch"`
	From string `json:"from"` // version; empty: the package is added
	To   string `json:"to"`   // version; empty: the package is removed
}

// Verdict is what a change of version means for a node that runs.
type Verdict struct {
	Data     int       `json:"at_once"`  // paths that take effect at once
	Load     int       `json:"load"`     // paths that take effect when a daemon has read them again
	Programs int       `json:"programs"` // paths that take effect when the programs that use them start again
	Boot     int       `json:"boot"`     // paths that take effect at the next boot
	Restart  []Restart `json:"restart"`  // services that run replaced programs or libraries
	Reload   []Reload  `json:"reload"`   // commands after which changes take effect
	Init     bool      `json:"init"`     // the init process runs replaced programs or libraries
	Reboot   bool      `json:"reboot"`   // a part takes effect at the next boot
	// Unknown is why programs and package databases were not looked at: restart, init and the packages that differ are
	// then not known. It is empty if they were.
	Unknown string `json:"not_known_because,omitempty"`
}

// Reload is a command that makes changes take effect on a node that runs.
type Reload struct {
	Command string `json:"command"`
	Paths   int    `json:"path_count"`
}

// Restart is a service that runs replaced code until it is restarted.
type Restart struct {
	Unit    string   `json:"unit"`
	Because []string `json:"because"` // packages, and paths that belong to no package
}

// NodeDiff is why two nodes show different roots.
type NodeDiff struct {
	A     NodeDiffSide   `json:"a"`
	B     NodeDiffSide   `json:"b"`
	Paths []NodeDiffPath `json:"paths"` // node files and files of their own that differ
}

// NodeDiffSide is one of two nodes that are compared.
type NodeDiffSide struct {
	Node    string `json:"node"`
	Image   string `json:"image"`
	Version int    `json:"version"`
}

// NodeDiffPath is a path at which two nodes differ for another reason than their versions.
type NodeDiffPath struct {
	Path Path   `json:"path"`
	Of   string `json:"of"`   // "node file": it was rendered for the node; "own": the node has written it
	A    string `json:"in_a"` // what the first node has there: "added, 5 B", "removed", …; "": what its version has
	B    string `json:"in_b"`
}

// NodeSide is what a node has besides its version, as it is compared with another node.
type NodeSide struct {
	NodeDiffSide
	Has []NodeHas `json:"has"` // in no order
}

// NodeHas is what a node has at one path for another reason than its version.
type NodeHas struct {
	Path       Path   `json:"path"`
	Of         string `json:"of"`          // see NodeDiffPath
	Text       string `json:"text"`        // see NodeDiffPath.A
	HasContent bool   `json:"has_content"` // two that are the same in all else may differ in their content
}

// The values of NodeHas.Of and NodeDiffPath.Of.
const (
	OfNodeFile = "node file"
	OfOwn      = "own"
)

// ContentsRequest asks for the contents of files that a node has written.
type ContentsRequest struct {
	Paths []Path `json:"paths"` // MaxContents at most
}

// MaxContents is how many files one ContentsRequest may name.
const MaxContents = 100

// Path is a path on a node. In JSON, a path that is not valid UTF-8 is an object with two keys: "text" is the path
// with U+FFFD for each invalid byte, and "bytes" is the path in base64.
type Path string

// MarshalJSON adds "path_bytes", the path in base64, when the path is not valid UTF-8. "path" has U+FFFD for each
// invalid byte then.
func (c Change) MarshalJSON() ([]byte, error) {
	type plain Change
	w := struct {
		plain
		Raw []byte `json:"path_bytes,omitempty"`
	}{plain: plain(c)}
	if !utf8.ValidString(c.Path) {
		w.Raw = []byte(c.Path)
	}
	return json.Marshal(w)
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (c *Change) UnmarshalJSON(b []byte) error {
	type plain Change
	var w struct {
		plain
		Raw []byte `json:"path_bytes"`
	}
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*c = Change(w.plain)
	if w.Raw != nil {
		c.Path = string(w.Raw)
	}
	return nil
}

// MarshalJSON keeps every byte, see Path.
func (p Path) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(p)) {
		return json.Marshal(string(p))
	}
	return json.Marshal(struct {
		Text string `json:"text"`
		Raw  []byte `json:"bytes"`
	}{string(p), []byte(p)})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (p *Path) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var raw struct {
			Text string `json:"text"`
			Raw  []byte `json:"bytes"`
		}
		err := json.Unmarshal(b, &raw)
		*p = Path(raw.Raw)
		return err
	}
	return json.Unmarshal(b, (*string)(p))
}
