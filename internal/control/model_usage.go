package control

// NodeUsage is what a node has cost its server: calls since the server started, and room on the disk.
type NodeUsage struct {
	Calls    uint64 `json:"calls"`
	Errors   uint64 `json:"errors"` // calls that were answered with an error, such as that a name does not exist
	Received uint64 `json:"received_bytes"`
	Sent     uint64 `json:"sent_bytes"`
	Files    uint64 `json:"layer_files"` // names in its layer
	Layer    uint64 `json:"layer_bytes"`
}
