package control

import (
	"os"
	"path/filepath"
	"time"
)

// Description is a cluster description as it was applied: the XML file and the files that it names.
type Description struct {
	Main     string            `json:"main"`                 // name of the XML file among Files
	Files    map[string][]byte `json:"files"`                // by name relative to Main's directory; base64 in JSON
	Digest   string            `json:"digest"`               // over all of it
	Revision int64             `json:"description_revision"` // changes with each apply
	Applied  time.Time         `json:"applied"`
	Problem  string            `json:"error,omitempty"` // why this server does not follow it
}

// AppliedDescription is an entry of the history of descriptions.
type AppliedDescription struct {
	Revision int64     `json:"description_revision"`
	Current  bool      `json:"is_applied"` // nothing was applied since
	Time     time.Time `json:"applied"`
	Origin
	Summary string `json:"summary,omitempty"` // what it changed, in a line
	Digest  string `json:"digest"`
}

// Origin is where a description comes from, as the person says who applies it.
type Origin struct {
	By      string `json:"by,omitempty"`      // the person
	From    string `json:"from,omitempty"`    // the file, "HOST:PATH"; "": it is no file
	Message string `json:"message,omitempty"` // why
}

// HostPath returns where a file of this machine is, "HOST:PATH", as Origin.From has it; "" if that is not known.
func HostPath(file string) string {
	path, err := filepath.Abs(file)
	if err != nil {
		return ""
	}
	host, _ := os.Hostname()
	return host + ":" + path
}

// ApplyRequest asks to apply a description.
type ApplyRequest struct {
	Description // if its Revision is not 0, only when the applied description has that revision
	Origin
	DryRun bool `json:"dry_run"` // only report what would change
	Force  bool `json:"force"`   // also when it is the description of a cluster of another name
	// Yes consents to the removal of nodes and to ApplyResult.TakenBack.
	Yes bool `json:"yes,omitempty"`
	// Learned: the description has its own list of learned hardware addresses, or none. Otherwise it gets the list of
	// the applied description.
	Learned bool `json:"with_learned,omitempty"`
	// Renames are nodes of the applied description that this one has under other names. Nodes whose MAC both
	// descriptions state need not be among them.
	Renames []Rename `json:"renames,omitempty"`
	// LeaveLayers consents to ApplyResult.Left: these nodes start without what they have written.
	LeaveLayers bool `json:"leave_layers,omitempty"`
}

// NewNames returns the new names of renamed nodes by the old ones.
func (r *ApplyRequest) NewNames() map[string]string {
	names := make(map[string]string, len(r.Renames))
	for _, x := range r.Renames {
		names[x.From] = x.To
	}
	return names
}

// ApplyResult is what applying a description changed, or would change.
type ApplyResult struct {
	Cluster  string              `json:"cluster"`
	Revision int64               `json:"description_revision"` // of the applied description: the old one in a dry run
	DryRun   bool                `json:"dry_run"`
	Changes  []DescriptionChange `json:"changes"`
	Renames  []Rename            `json:"renames,omitempty"`
	// TakenBack are changes of others that the description takes back: its file was not made from what is applied now,
	// but from an earlier description, Base. It is applied only with ApplyRequest.Yes.
	TakenBack []DescriptionChange  `json:"taken_back,omitempty"`
	Since     []AppliedDescription `json:"applied_since,omitempty"` // who has applied what after Base, the latest first
	// Left are the nodes that the description gives to a server that does not have their layers. It is applied only
	// with ApplyRequest.LeaveLayers.
	Left []LeftLayers `json:"layers_left,omitempty"`
	// Refused says why the description would not be applied, and Hint what to do. Only a dry run has them. If all that
	// is missing is a person's consent, by ApplyRequest.Yes and ApplyRequest.LeaveLayers, Asks has the reasons.
	Refused string   `json:"refused_because,omitempty"`
	Hint    string   `json:"hint,omitempty"`
	Asks    []string `json:"asks,omitempty"`
}

// Rename is a node that has another name in a description, and stays the same node: what it has written, and what is
// declared for it, follow it.
type Rename struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// LeftLayers are nodes whose layers stay on one server, while another one is to serve them.
type LeftLayers struct {
	Nodes string `json:"nodes"` // node set
	Count int    `json:"count"`
	From  string `json:"from"`           // the server that has their layers
	To    string `json:"to"`             // the server that the description gives them to
	Gone  bool   `json:"gone,omitempty"` // the description does not have the server From: nobody can ask it to let go
}

// DescriptionChange is a change between two descriptions of some objects of one kind.
type DescriptionChange struct {
	Subject   string     `json:"subject"` // "cluster", "node", "image", "server", "network", "group", "file"
	Kind      ChangeKind `json:"change"`  // Added, Removed, Renamed or Changed
	Names     string     `json:"names"`   // of the objects, as a node set; "": the cluster itself
	Count     int        `json:"count"`   // of the objects
	Attribute string     `json:"attribute,omitempty"`
	From      string     `json:"from,omitempty"`
	To        string     `json:"to,omitempty"`
	Note      string     `json:"note,omitempty"` // what a person should know about it
	Effect    Effect     `json:"takes_effect,omitempty"`
	Up        int        `json:"up_count,omitempty"` // of the nodes that it is about: those that run now
}

// Effect is when a change of a description takes effect.
type Effect string

// The effects. A change without one does nothing by itself.
const (
	EffectNow     Effect = "now"
	EffectBoot    Effect = "boot"    // at the next boot of each node; a node that runs goes on as before
	EffectReboot  Effect = "reboot"  // a node that runs loses its root, and has to be booted
	EffectCapture Effect = "capture" // with the next capture of the image
	EffectRestart Effect = "restart" // when the server is restarted
)
