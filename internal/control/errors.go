package control

import "fmt"

// Error is a failure as the API reports it.
type Error struct {
	Code    Code     `json:"code"`
	Message string   `json:"message"`
	Hint    string   `json:"hint,omitempty"`    // what to do about it
	Details []string `json:"details,omitempty"` // all problems of an Invalid input, one each
}

// Code is the kind of an Error.
type Code string

// The codes.
const (
	Internal    Code = "internal"    // the daemon's or the machine's fault
	NotFound    Code = "not-found"   // no such image, version, node
	Invalid     Code = "invalid"     // the request is not valid
	Conflict    Code = "conflict"    // it was changed by another call in the meantime
	Busy        Code = "busy"        // the same operation is in progress
	Unavailable Code = "unavailable" // cannot be done now: no quorum, no daemon
	Held        Code = "held"        // it needs a person's confirmation
	Denied      Code = "denied"      // the caller is not the superuser
	Elsewhere   Code = "elsewhere"   // what it needs is not on this server
)

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Errorf makes an *Error with a formatted message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithHint returns e with a hint added.
func (e *Error) WithHint(hint string) *Error {
	c := *e
	c.Hint = hint
	return &c
}
