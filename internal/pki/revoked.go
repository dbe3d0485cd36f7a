package pki

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"time"

	"dim/internal/cluster"
)

// RevokedError is why a server is refused whose identity has ended.
type RevokedError struct {
	Name cluster.ServerName
	Time time.Time // when it has ended; zero: not known

	// Head is the head that goes on without it, and Proof that of Authority.ProveEnd. "": all heads have removed it.
	// Servers that are no heads pass both on.
	Head  cluster.ServerName
	Proof string
}

// Error implements error.
func (e *RevokedError) Error() string {
	at := ""
	if !e.Time.IsZero() {
		at = " at " + e.Time.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("the identity of server %s was revoked%s", e.Name, at)
}

// Headers of an answer that tell a server when its identity has ended, in the form of RFC 3339, and which head goes on.
const (
	revokedHeader = "Dim-Revoked"
	goesOnHeader  = "Dim-Goes-On"
	proofHeader   = "Dim-Goes-On-Proof"
)

// SetHeader adds to the header of an answer that the identity of the caller has ended.
func (e *RevokedError) SetHeader(h http.Header) {
	h.Set(revokedHeader, e.Time.UTC().Format(time.RFC3339))
	if e.Proof != "" {
		h.Set(goesOnHeader, string(e.Head))
		h.Set(proofHeader, e.Proof)
	}
}

// EndedError is why another server refuses this one: by what that server knows, the identity of this one has ended.
type EndedError struct {
	Time time.Time // when it has ended; zero: not known

	// Head is the head that goes on without this server. It counts only with Authority.Proves.
	Head  cluster.ServerName
	Proof string
}

// Error implements error.
func (e *EndedError) Error() string {
	at := ""
	if !e.Time.IsZero() {
		at = " at " + e.Time.UTC().Format(time.RFC3339)
	}
	return "by what it knows, the identity of this server has ended" + at
}

// ProveEnd returns the proof that a head goes on without a server, whose identity it has ended. Heads can make it, and
// check it, because they have the authority.
func (a *Authority) ProveEnd(id string, head cluster.ServerName, at time.Time) (proof string, err error) {
	digest := endDigest(id, head, at)
	signature, err := ecdsa.SignASN1(rand.Reader, a.servers.key, digest[:])
	return base64.StdEncoding.EncodeToString(signature), err
}

// Proves reports whether e has a proof that a head goes on without the server with an identity.
func (a *Authority) Proves(e *EndedError, id string) bool {
	signature, err := base64.StdEncoding.DecodeString(e.Proof)
	digest := endDigest(id, e.Head, e.Time)
	return err == nil && ecdsa.VerifyASN1(&a.servers.key.PublicKey, digest[:], signature)
}

// endDigest is what ProveEnd signs. The first word keeps it apart from certificates, which the same key signs.
func endDigest(id string, head cluster.ServerName, at time.Time) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "end of identity %s\ngoes on %s\ntime %s\n", id, head,
		at.UTC().Format(time.RFC3339)))
}

// EndedIn returns the EndedError in the header of an answer, nil if there is none.
func EndedIn(h http.Header) *EndedError {
	at := h.Get(revokedHeader)
	if at == "" {
		return nil
	}
	e := &EndedError{Head: cluster.ServerName(h.Get(goesOnHeader)), Proof: h.Get(proofHeader)}
	e.Time, _ = time.Parse(time.RFC3339, at) // zero if the text is no time
	return e
}
