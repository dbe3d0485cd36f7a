package control

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"
	"unicode/utf8"
)

// NodeStates is the part of Backend about what nodes have of their own.
type NodeStates interface {
	// Saved lists what was set aside of a node's own, the latest first.
	Saved(ctx context.Context, node string) ([]Saved, error)
	// Restore brings set-aside entries of a node back. When nothing fits it is NotFound.
	Restore(ctx context.Context, node string, r RestoreRequest) ([]Restored, error)
	// Own yields what a node has of its own, in order of path, until yield returns false.
	Own(ctx context.Context, node string, yield func(Change) bool) error
	// Differ tells why two nodes differ.
	Differ(ctx context.Context, a, b string) (Difference, error)
	// Reset sets aside what a node has of its own. One that may be running is a Conflict, unless the request says Force or names paths.
	Reset(ctx context.Context, node string, r ResetRequest) ([]Saved, error)
	// Check compares what is on the disk of each node of a set ("" is all) with what the format demands and with what is served.
	Check(ctx context.Context, set string) ([]Checked, error)
	// Layers lists the snapshots of the layers of a set of nodes ("" is all), by node, the latest of each image first.
	Layers(ctx context.Context, set string) ([]Layer, error)
	// Rewind makes a node's layer what it was at a snapshot. One that is not there is NotFound; a node that may be running is a Conflict, unless the
	// request says Force.
	Rewind(ctx context.Context, node string, r RewindRequest) (Rewound, error)
	// Forget removes what was set aside for good.
	Forget(ctx context.Context, node string, r ForgetRequest) ([]Saved, error)
}

// Path is a path on a node. One that is not valid UTF-8 is in JSON an object: "text", with U+FFFD in the place of each wrong byte, and
// "bytes", the path in base64.
type Path string

// Saved is one entry of a node's own that was set aside.
type Saved struct {
	Path    Path      `json:"path"`
	Stamp   string    `json:"stamp"` // names the switch, reset or restore that did it
	Time    time.Time `json:"time"`
	Kind    string    `json:"kind"`    // "entry", "removal", "opaque", "attributes"
	Type    string    `json:"type"`    // of an entry: "file", "directory", …
	Size    uint64    `json:"size"`    // bytes of content, of a directory with all that is in it
	Entries int       `json:"entries"` // in a directory
	Why     string    `json:"why"`     // "switch compute@1 compute@2", "reset", "restore"
	Image   string    `json:"image"`
}

// RestoreRequest says what is to come back.
type RestoreRequest struct {
	Path   Path   `json:"path"`
	From   string `json:"from,omitempty"` // the stamp, or how it begins; "": of each path the latest
	To     Path   `json:"to,omitempty"`   // a directory of the node to put it in
	DryRun bool   `json:"dry_run,omitempty"`
}

// Restored is an entry that came back.
type Restored struct {
	Saved     Saved `json:"saved"`
	Path      Path  `json:"path"`      // where it stands now
	Displaced bool  `json:"displaced"` // what the node had there was set aside
}

// ForgetRequest says what is to be removed.
type ForgetRequest struct {
	Path   Path      `json:"path,omitempty"`
	From   string    `json:"from,omitempty"`
	Before time.Time `json:"before,omitzero"`
	DryRun bool      `json:"dry_run,omitempty"`
}

// ResetRequest says what of a node's own is to go.
type ResetRequest struct {
	Paths  []Path `json:"paths"` // empty: everything
	DryRun bool   `json:"dry_run,omitempty"`
	Force  bool   `json:"force,omitempty"` // also when the node may be running
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

// Holding is what a node has of its own, and may have; a bound of 0 is none.
type Holding struct {
	Bytes    uint64 `json:"bytes"`
	BytesMax uint64 `json:"bytes_max"`
	Files    uint64 `json:"files"`
	FilesMax uint64 `json:"files_max"`
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

// stateCalls adds the calls of NodeStates.
func stateCalls(mux *http.ServeMux, b NodeStates) {
	mux.Handle("GET /v1/nodes/{node}/saved", answer(func(r *http.Request) ([]Saved, error) {
		return b.Saved(r.Context(), r.PathValue("node"))
	}))
	mux.Handle("POST /v1/nodes/{node}/restore", answer(onNode(b.Restore)))
	mux.Handle("POST /v1/nodes/{node}/rewind", answer(onNode(b.Rewind)))
	mux.Handle("GET /v1/layers", answer(func(r *http.Request) ([]Layer, error) {
		return b.Layers(r.Context(), r.URL.Query().Get("set"))
	}))
	mux.Handle("POST /v1/nodes/{node}/forget", answer(onNode(b.Forget)))
	mux.Handle("POST /v1/nodes/{node}/reset", answer(onNode(b.Reset)))
	mux.Handle("GET /v1/check", answer(func(r *http.Request) ([]Checked, error) {
		return b.Check(r.Context(), r.URL.Query().Get("set"))
	}))
	mux.HandleFunc("GET /v1/nodes/{node}/own", func(w http.ResponseWriter, r *http.Request) {
		out := newLines(w)
		out.end(struct{}{}, b.Own(r.Context(), r.PathValue("node"), func(c Change) bool { return out.send(line{Change: &c}) == nil }))
	})
	mux.Handle("GET /v1/nodes/{node}/differ/{other}", answer(func(r *http.Request) (Difference, error) {
		return b.Differ(r.Context(), r.PathValue("node"), r.PathValue("other"))
	}))
}

// onNode makes a call of one that takes a node and a body.
func onNode[In, Out any](do func(context.Context, string, In) (Out, error)) func(*http.Request) (Out, error) {
	return func(r *http.Request) (Out, error) {
		in, err := body[In](r)
		if err != nil {
			var none Out
			return none, err
		}
		return do(r.Context(), r.PathValue("node"), in)
	}
}

func nodePath(node, call string) string { return "/v1/nodes/" + url.PathEscape(node) + "/" + call }

// Saved lists what was set aside of a node's own.
func (c *Client) Saved(ctx context.Context, node string) ([]Saved, error) {
	return call[[]Saved](ctx, c, http.MethodGet, nodePath(node, "saved"), nil)
}

// Restore brings set-aside entries back, see Backend.
func (c *Client) Restore(ctx context.Context, node string, r RestoreRequest) ([]Restored, error) {
	return call[[]Restored](ctx, c, http.MethodPost, nodePath(node, "restore"), r)
}

// Forget removes what was set aside, see Backend.
func (c *Client) Forget(ctx context.Context, node string, r ForgetRequest) ([]Saved, error) {
	return call[[]Saved](ctx, c, http.MethodPost, nodePath(node, "forget"), r)
}

// Reset sets aside what a node has of its own, see Backend.
func (c *Client) Reset(ctx context.Context, node string, r ResetRequest) ([]Saved, error) {
	return call[[]Saved](ctx, c, http.MethodPost, nodePath(node, "reset"), r)
}

// Own calls each for everything that a node has of its own.
func (c *Client) Own(ctx context.Context, node string, each func(Change)) error {
	var end struct{}
	return c.follow(ctx, http.MethodGet, nodePath(node, "own"), nil, &end, func(l line) {
		if l.Change != nil {
			each(*l.Change)
		}
	})
}

// Differ tells why two nodes differ.
func (c *Client) Differ(ctx context.Context, a, b string) (Difference, error) {
	return call[Difference](ctx, c, http.MethodGet, nodePath(a, "differ/"+url.PathEscape(b)), nil)
}

// Check checks the replicas of a set of nodes, see Backend.
func (c *Client) Check(ctx context.Context, set string) ([]Checked, error) {
	return call[[]Checked](ctx, c, http.MethodGet, "/v1/check?"+url.Values{"set": {set}}.Encode(), nil)
}
