package control

import "time"

// Server is a server of the description, as this one knows it.
type Server struct {
	Name        string `json:"server"`
	Nodes       int    `json:"node_count"`   // how many nodes it serves, as their first server
	HasReported bool   `json:"has_reported"` // it is this server, or has reported to it

	// KnownTo are the heads, which know how the server is: on an image server, which gets no reports, for all others.
	KnownTo []string `json:"known_to,omitempty"`

	Reported time.Time `json:"reported,omitzero"`  // when its last report arrived
	Observed *Observed `json:"observed,omitempty"` // what it reported last

	Roles   []string  `json:"roles"`            // that the description gives to it
	Address string    `json:"api"`              // host:port where other servers reach it
	ID      string    `json:"identity"`         // of its certificate; "": it has not joined
	Joined  time.Time `json:"joined,omitzero"`  // when it got that identity
	Drained time.Time `json:"drained,omitzero"` // since when it boots no nodes

	// Member is what it is in the shared state: "leads", "votes" or "catches up". "": it takes no part, or this server
	// does not know.
	Member string `json:"member,omitempty"`
	Behind int64  `json:"revisions_behind,omitempty"` // changes of the shared state that it had not adopted yet
}

// TokenRequest asks for a token with which one machine can join the cluster.
type TokenRequest struct {
	Roles []string      `json:"roles"` // that it may have; none: "image"
	For   string        `json:"for"`   // the server of the description that it may be; "": any
	Valid time.Duration `json:"valid"` // in nanoseconds; 0: an hour
}

// Token lets one machine join the cluster, once.
type Token struct {
	Token   string    `json:"token"`
	URL     string    `json:"url"`      // of this head, for the machine that joins
	For     string    `json:"for"`      // the server that may join; "": any
	Roles   []string  `json:"roles"`    // that it may have
	Expires time.Time `json:"deadline"` // until when it can be used
}

// Recovery is what a head does to go on without the others, which are lost for ever.
type Recovery struct {
	Server   string    `json:"server"`        // this head
	Heads    []string  `json:"removed_heads"` // heads whose identities end
	Revision int64     `json:"revision"`      // of the declared state that this head has kept
	Kept     time.Time `json:"kept"`          // when it kept that
	Done     bool      `json:"recovered"`     // false: this is a plan
}

// ServerChange changes what a server is in the cluster.
type ServerChange struct {
	Do     string `json:"do"` // "remove", "drain", "undrain", "accept-older"
	DryRun bool   `json:"dry_run"`
}

// ServerChanged is what a ServerChange did, or would do.
type ServerChanged struct {
	Server Server `json:"changed_server"` // as it was before
	DryRun bool   `json:"dry_run"`
	Note   string `json:"note,omitempty"` // what a person should know about it
}
