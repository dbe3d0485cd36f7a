package client

import (
	"context"
	"net/http"
	"net/url"

	"dim/internal/control"
)

// BeginStorm asks for roots for a load test.
func (c *Client) BeginStorm(ctx context.Context, r control.StormRequest) (control.Storm, error) {
	return call[control.Storm](ctx, c, http.MethodPost, "/v1/storms", r)
}

// StormUsage returns what the server has used so far, and tells it that the load test goes on.
func (c *Client) StormUsage(ctx context.Context, id string) (control.StormUsage, error) {
	return call[control.StormUsage](ctx, c, http.MethodGet, "/v1/storms/"+url.PathEscape(id), nil)
}

// EndStorm lets the server remove the roots of a load test.
func (c *Client) EndStorm(ctx context.Context, id string) (control.StormUsage, error) {
	return call[control.StormUsage](ctx, c, http.MethodDelete, "/v1/storms/"+url.PathEscape(id), nil)
}
