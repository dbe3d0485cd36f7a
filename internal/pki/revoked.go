package pki

import (
	"fmt"
	"net/http"
	"time"

	"dim/internal/cluster"
)

// RevokedError is why a server is refused whose identity has ended.
type RevokedError struct {
	Name cluster.ServerName
	Time time.Time // when it has ended; zero: not known
}

// Error implements error.
func (e *RevokedError) Error() string {
	return fmt.Sprintf("the identity of server %s was revoked at %s", e.Name, e.Time.UTC().Format(time.RFC3339))
}

// revokedHeader is the header of an answer that tells a server when its identity has ended, in the form of RFC 3339.
const revokedHeader = "Dim-Revoked"

// Tell adds to the header of an answer that the identity of the caller has ended.
func (e *RevokedError) Tell(h http.Header) { h.Set(revokedHeader, e.Time.UTC().Format(time.RFC3339)) }

// ToldRevoked returns the RevokedError that an answer tells, nil if it tells none.
func ToldRevoked(h http.Header) *RevokedError {
	at := h.Get(revokedHeader)
	if at == "" {
		return nil
	}
	e := &RevokedError{}
	e.Time, _ = time.Parse(time.RFC3339, at) // of a text that is none the time is not known
	return e
}
