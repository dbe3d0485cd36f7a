package control

// LearnMode is what a LearnRequest does.
type LearnMode string

// The modes.
const (
	// LearnFree gives machines to nodes without a hardware address, both in their order.
	LearnFree LearnMode = "learn"
	// LearnRebind gives one machine to one node, in place of the one that it has.
	LearnRebind LearnMode = "rebind"
	// LearnUndo takes back what was learned of nodes.
	LearnUndo LearnMode = "undo"
)

// LearnRequest asks to bind machines to nodes by their hardware addresses.
type LearnRequest struct {
	Origin
	Mode     LearnMode `json:"mode"`
	Nodes    string    `json:"nodes,omitempty"` // a node set; "": all
	Machines []Machine `json:"machines,omitempty"`
	Revision int64     `json:"description_revision,omitempty"` // if not 0, only when the applied description has it
	DryRun   bool      `json:"dry_run"`
}

// LearnResult is what was bound, or would be.
type LearnResult struct {
	Revision int64     `json:"description_revision"` // of the applied description: the old one in a dry run
	DryRun   bool      `json:"dry_run"`
	Bound    []Binding `json:"bound"`
	Left     []string  `json:"machines_left"` // hardware addresses of machines for which there is no node
}

// Binding is the hardware address of a card of a node.
type Binding struct {
	Node      string `json:"node"`
	Interface string `json:"interface"`
	MAC       string `json:"mac,omitempty"`          // "": none any more
	Was       string `json:"replaced_mac,omitempty"` // before; "": none
}
