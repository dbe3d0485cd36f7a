package control

import "time"

// Observed is what a server reported of itself last.
type Observed struct {
	Up       bool           `json:"up"` // it reports
	Started  time.Time      `json:"started"`
	Program  string         `json:"program"`        // version of dim
	Revision int64          `json:"revision"`       // of the declared state that it has adopted
	Versions []HeldVersion  `json:"held_versions"`  // that it has, or gets
	Stages   map[string]int `json:"stage_counts"`   // how many of its nodes are in each stage
	Shows    map[string]int `json:"version_counts"` // how many of its nodes show each version; "": none
	Clock    float64        `json:"clock_seconds"`  // by how much its clock is ahead of this server's
	Problems []Problem      `json:"problems"`
}

// HeldVersion is a version that a server has, or gets.
type HeldVersion struct {
	Version string `json:"ref"` // NAME@NUMBER
	Digest  string `json:"digest"`

	Missing *Missing `json:"missing,omitempty"` // nil: the server has all of it
}

// Missing is what a server lacks of a version.
type Missing struct {
	Files   int     `json:"missing_files"`             // at most, while it is not known yet
	Bytes   uint64  `json:"missing_bytes"`             // the same
	Left    float64 `json:"seconds_left"`              // until all is here; 0: not known
	Problem string  `json:"missing_problem,omitempty"` // why it did not come
}
