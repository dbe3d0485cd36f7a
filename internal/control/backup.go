package control

import "time"

// StageRequest asks for a copy of what one replica has on disk.
type StageRequest struct {
	Replica string `json:"replica"` // NODE/IMAGE
	// Known has the origins of files whose content the caller has: 16 bytes each, as trusted.dim.of of
	// docs/formats/layer.md. In the copy they have no content.
	Known []byte `json:"known,omitempty"`
}

// Staged is a copy of what one replica had on disk at one moment. It exists for as long as the call that asked for it.
type Staged struct {
	Path    string    `json:"path"` // a directory, from that of all replicas
	Time    time.Time `json:"time"` // the moment
	Image   string    `json:"image,omitempty"`
	Version int       `json:"version,omitempty"` // that the layer is over; 0: not known
	Digest  string    `json:"digest,omitempty"`
	InPlace bool      `json:"in_place,omitempty"` // it is no copy: nothing changes what the replica has
	Journal []byte    `json:"journal"`            // records for switches.log
	Held    float64   `json:"held_seconds"`       // how long calls of the node waited
}

// BackupState is what a server declares, knows and serves, as a backup keeps it.
type BackupState struct {
	Cluster  string   `json:"cluster"`
	Server   string   `json:"server"`
	Heads    []string `json:"heads"`             // the other heads, if the server is a head
	Replicas []string `json:"replicas"`          // NODE/IMAGE of those that have something on disk
	Journal  []byte   `json:"journal"`           // records for switches.log: all replicas as they are now
	Missing  string   `json:"missing,omitempty"` // why the state on disk may not be the newest; "": it is
}
