package oncrpc

import "encoding/binary"

// Constants of RFC 5531 section 9.
const (
	msgCall  = 0
	msgReply = 1

	rpcVersion = 2

	replyAccepted = 0
	replyDenied   = 1

	deniedMismatch = 0
	deniedAuth     = 1

	authBodyMax = 400

	// lastFragment marks a record's last fragment (RFC 5531 section 11).
	lastFragment = 1 << 31
)

// Flavors of credentials.
const (
	AuthNone = 0
	AuthSys  = 1
)

// GroupsMax is the number of supplementary groups that AUTH_SYS carries (RFC 5531 appendix A).
const GroupsMax = 16

// Accept is the outcome of a call that was authenticated, accept_stat of RFC 5531.
type Accept uint32

// The outcomes.
const (
	Success      Accept = 0
	ProgUnavail  Accept = 1
	ProgMismatch Accept = 2
	ProcUnavail  Accept = 3
	GarbageArgs  Accept = 4
	SystemErr    Accept = 5
)

// Deny is why a call was not authenticated, auth_stat of RFC 5531; 0 is none.
type Deny uint32

// The reasons.
const (
	BadCred      Deny = 1
	RejectedCred Deny = 2
	BadVerf      Deny = 3
	TooWeak      Deny = 5
)

// header is a decoded call header.
type header struct {
	program, version, proc uint32
}

// Cred is who calls, by an AUTH_SYS credential. Groups aliases the memory of the call.
type Cred struct {
	Flavor uint32
	UID    uint32
	GID    uint32
	Groups []uint32
	groups [GroupsMax]uint32
}

// Reply header sizes: record mark, xid, type, stat, verifier (flavor, length), accept_stat.
const (
	markSize   = 4
	replyStart = markSize + 24
)

// decodeCred reads the credential and the verifier of a call.
func (c *Cred) decode(d *Decoder) Deny {
	c.Flavor = d.Uint32()
	body := NewDecoder(d.Opaque(authBodyMax))
	d.Uint32() // verifier: AUTH_NONE and AUTH_SYS calls carry none, whatever it is means nothing
	d.Opaque(authBodyMax)
	c.UID, c.GID, c.Groups = 0, 0, nil
	switch c.Flavor {
	case AuthNone:
		return 0
	case AuthSys:
		return c.decodeSys(&body)
	}
	return RejectedCred
}

func (c *Cred) decodeSys(d *Decoder) Deny {
	d.Uint32()    // stamp
	d.Opaque(255) // machine name
	c.UID = d.Uint32()
	c.GID = d.Uint32()
	n := d.Uint32()
	if n > GroupsMax {
		return BadCred
	}
	for i := range n {
		c.groups[i] = d.Uint32()
	}
	if !d.OK() {
		return BadCred
	}
	c.Groups = c.groups[:n]
	return 0
}

// beginReply appends room for the record mark and an accepted, successful reply's header.
func beginReply(e *Encoder, xid uint32) {
	p := e.Extend(replyStart)
	_ = p[replyStart-1]
	binary.BigEndian.PutUint32(p[4:], xid)
	binary.BigEndian.PutUint32(p[8:], msgReply)
	binary.BigEndian.PutUint32(p[12:], replyAccepted)
	binary.BigEndian.PutUint64(p[16:], 0) // verifier AUTH_NONE, empty
	binary.BigEndian.PutUint32(p[24:], uint32(Success))
}

// endReply fills in the record mark of the reply that starts at offset at and is followed by so many more bytes.
func endReply(e *Encoder, at, more int) {
	e.PutUint32(at, uint32(e.Len()-at-markSize+more)|lastFragment)
}

// refuse replaces the reply that starts at offset at by one with another outcome than Success.
func refuse(e *Encoder, at int, outcome Accept, low, high uint32) {
	e.Truncate(at + replyStart - 4)
	e.Uint32(uint32(outcome))
	if outcome == ProgMismatch {
		e.Uint32(low)
		e.Uint32(high)
	}
}

// deny replaces the reply that starts at offset at by a denial.
func deny(e *Encoder, at int, why Deny) {
	e.Truncate(at + 12)
	e.Uint32(replyDenied)
	e.Uint32(deniedAuth)
	e.Uint32(uint32(why))
}

// denyVersion replaces the reply that starts at offset at by RPC_MISMATCH.
func denyVersion(e *Encoder, at int) {
	e.Truncate(at + 12)
	e.Uint32(replyDenied)
	e.Uint32(deniedMismatch)
	e.Uint32(rpcVersion)
	e.Uint32(rpcVersion)
}
