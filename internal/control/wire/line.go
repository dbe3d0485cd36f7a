// Package wire is what packages server and client must agree on besides the vocabulary: where the socket is, and the
// parts of the protocol that are not one JSON object for one call.
package wire

import "dim/internal/control"

// Line is one line of an answer that consists of many: exactly one field is set. The last line is the result or the
// error.
type Line struct {
	Progress *control.Progress `json:"progress,omitempty"`
	Change   *control.Change   `json:"change,omitempty"`
	Staged   *control.Staged   `json:"staged,omitempty"`
	Result   any               `json:"result,omitempty"`
	Error    *control.Error    `json:"error,omitempty"`
}

// TagRequest is the body of POST /v1/tags.
type TagRequest struct {
	Ref string `json:"ref"`
	Tag string `json:"tag"`
}

// MountProtocol is the protocol that a mount request upgrades its connection to. The client sends one byte together
// with the open /dev/fuse (unix(7), SCM_RIGHTS). The server answers with one Line, and keeps the connection open for
// as long as it serves the mount.
const MountProtocol = "dim-mount"
