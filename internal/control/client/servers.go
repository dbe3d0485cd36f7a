package client

import (
	"context"
	"net/http"
	"net/url"

	"dim/internal/control"
)

// Servers lists the servers of the description.
func (c *Client) Servers(ctx context.Context) ([]control.Server, error) {
	return call[[]control.Server](ctx, c, http.MethodGet, "/v1/servers", nil)
}

// ChangeServer removes, drains or undrains a server.
func (c *Client) ChangeServer(ctx context.Context, name string, r control.ServerChange) (control.ServerChanged, error) {
	return call[control.ServerChanged](ctx, c, http.MethodPost, "/v1/servers/"+url.PathEscape(name), r)
}

// NewToken makes a token with which one machine can join.
func (c *Client) NewToken(ctx context.Context, r control.TokenRequest) (control.Token, error) {
	return call[control.Token](ctx, c, http.MethodPost, "/v1/tokens", r)
}
