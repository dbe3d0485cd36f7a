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

// acceptStat is the accept_stat of RFC 5531: the outcome of a call that was authenticated.
type acceptStat uint32

const (
	success      acceptStat = 0
	progUnavail  acceptStat = 1
	progMismatch acceptStat = 2
	procUnavail  acceptStat = 3
	garbageArgs  acceptStat = 4
)

// authStat is the auth_stat of RFC 5531: why a call was not authenticated.
type authStat uint32

const (
	authOK       authStat = 0
	badCred      authStat = 1
	rejectedCred authStat = 2
	tooWeak      authStat = 5
)

// header is a decoded call header.
type header struct {
	program, version, proc uint32
}

// Cred is the credential of a call: AUTH_SYS, or AUTH_NONE with all else zero. Groups aliases the memory of the call.
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

// decode reads the credential and the verifier of a call.
func (c *Cred) decode(d *Decoder) authStat {
	c.Flavor = d.Uint32()
	body := NewDecoder(d.Opaque(authBodyMax))
	d.Uint32() // the verifier, which has no meaning with AUTH_NONE and AUTH_SYS
	d.Opaque(authBodyMax)
	c.UID, c.GID, c.Groups = 0, 0, nil
	switch c.Flavor {
	case AuthNone:
		return authOK
	case AuthSys:
		return c.decodeSys(&body)
	}
	return rejectedCred
}

func (c *Cred) decodeSys(d *Decoder) authStat {
	d.Uint32()    // stamp
	d.Opaque(255) // machine name
	c.UID = d.Uint32()
	c.GID = d.Uint32()
	n := d.Uint32()
	if n > GroupsMax {
		return badCred
	}
	for i := range n {
		c.groups[i] = d.Uint32()
	}
	if !d.OK() {
		return badCred
	}
	c.Groups = c.groups[:n]
	return authOK
}

// beginReply appends room for the record mark and an accepted, successful reply's header.
func beginReply(e *Encoder, xid uint32) {
	p := e.Extend(replyStart)
	_ = p[replyStart-1]
	binary.BigEndian.PutUint32(p[4:], xid)
	binary.BigEndian.PutUint32(p[8:], msgReply)
	binary.BigEndian.PutUint32(p[12:], replyAccepted)
	binary.BigEndian.PutUint64(p[16:], 0) // verifier AUTH_NONE, empty
	binary.BigEndian.PutUint32(p[24:], uint32(success))
}

// endReply fills in the record mark of the reply that starts at offset at. After those in e, more bytes of it follow.
func endReply(e *Encoder, at, more int) {
	e.PutUint32(at, uint32(e.Len()-at-markSize+more)|lastFragment)
}

// refusal is an outcome other than success.
type refusal struct {
	outcome   acceptStat
	low, high uint32 // the versions of the program, for progMismatch
}

// refuse replaces the reply that starts at offset at by a refusal.
func refuse(e *Encoder, at int, no refusal) {
	e.Truncate(at + replyStart - 4)
	e.Uint32(uint32(no.outcome))
	if no.outcome == progMismatch {
		e.Uint32(no.low)
		e.Uint32(no.high)
	}
}

// deny replaces the reply that starts at offset at by a denial.
func deny(e *Encoder, at int, why authStat) {
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
