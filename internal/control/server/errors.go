package server

import (
	"errors"
	"net/http"

	"dim/internal/control"
)

// asError returns err as a *control.Error with err's whole message: Internal, unless err wraps another code.
func asError(err error) *control.Error {
	if e, ok := errors.AsType[*control.Error](err); ok {
		c := *e
		c.Message = err.Error()
		return &c
	}
	return &control.Error{Code: control.Internal, Message: err.Error()}
}

func httpStatus(c control.Code) int {
	switch c {
	case control.NotFound, control.Elsewhere:
		return http.StatusNotFound
	case control.Invalid:
		return http.StatusBadRequest
	case control.Conflict, control.Busy, control.Held:
		return http.StatusConflict
	case control.Unavailable:
		return http.StatusServiceUnavailable
	case control.Denied:
		return http.StatusForbidden
	}
	return http.StatusInternalServerError
}
