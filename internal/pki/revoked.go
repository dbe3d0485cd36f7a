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
	at := ""
	if !e.Time.IsZero() {
		at = " at " + e.Time.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("the identity of server %s was revoked%s", e.Name, at)
}

// revokedHeader is the header of an answer that tells a server when its identity has ended, in the form of RFC 3339.
const revokedHeader = "Dim-Revoked"

// SetHeader adds to the header of an answer that the identity of the caller has ended.
func (e *RevokedError) SetHeader(h http.Header) {
	h.Set(revokedHeader, e.Time.UTC().Format(time.RFC3339))
}

// EndedError is why another server refuses this one: by what that server knows, the identity of this one has ended.
type EndedError struct {
	Time time.Time // when it has ended; zero: not known
}

// Error implements error.
func (e *EndedError) Error() string {
	at := ""
	if !e.Time.IsZero() {
		at = " at " + e.Time.UTC().Format(time.RFC3339)
	}
	return "by what it knows, the identity of this server has ended" + at
}

// EndedIn returns the EndedError in the header of an answer, nil if there is none.
func EndedIn(h http.Header) *EndedError {
	at := h.Get(revokedHeader)
	if at == "" {
		return nil
	}
	e := &EndedError{}
	e.Time, _ = time.Parse(time.RFC3339, at) // zero if the text is no time
	return e
}
