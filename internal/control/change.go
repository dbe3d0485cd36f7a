package control

import (
	"encoding/json"
	"unicode/utf8"
)

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

// Difference is why two nodes show something else.
type Difference struct {
	A     Side   `json:"a"`
	B     Side   `json:"b"`
	Paths []Diff `json:"paths"` // node files and own files that differ
}

// Side is one of two nodes.
type Side struct {
	Node    string `json:"node"`
	Image   string `json:"image"`
	Version int    `json:"version"`
}

// Diff is a path at which two nodes differ for another reason than their versions.
type Diff struct {
	Path Path   `json:"path"`
	Of   string `json:"of"` // "node file", "own"
	A    string `json:"a"`  // what the first has there: "added, 5 B", "removed", …; "": nothing special
	B    string `json:"b"`
}

// Path is a path on a node. One that is not valid UTF-8 is in JSON an object: "text", with U+FFFD in the place of each wrong byte, and
// "bytes", the path in base64.
type Path string

// MarshalJSON adds "path_bytes", the path in base64, when the path is not valid UTF-8; "path" then has U+FFFD in the
// place of each wrong byte.
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

// MarshalJSON keeps every byte.
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
