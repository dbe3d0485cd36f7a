package client

import (
	"context"
	"net/http"
	"net/url"

	"dim/internal/control"
)

// Nodes lists the nodes of a node set; "" is all.
func (c *Client) Nodes(ctx context.Context, set string) ([]control.Node, error) {
	return call[[]control.Node](ctx, c, http.MethodGet, "/v1/nodes?"+nodeSet(set), nil)
}

// Node returns one node with its details.
func (c *Client) Node(ctx context.Context, name string) (control.Node, error) {
	return call[control.Node](ctx, c, http.MethodGet, "/v1/nodes/"+url.PathEscape(name), nil)
}

// Machines lists the machines that are not in the description.
func (c *Client) Machines(ctx context.Context) ([]control.Machine, error) {
	return call[[]control.Machine](ctx, c, http.MethodGet, "/v1/machines", nil)
}

// Check checks the replicas of a set of nodes.
func (c *Client) Check(ctx context.Context, set string) ([]control.Checked, error) {
	return call[[]control.Checked](ctx, c, http.MethodGet, "/v1/check?"+nodeSet(set), nil)
}

// Saved lists the entries of a node that were set aside.
func (c *Client) Saved(ctx context.Context, node string) ([]control.Saved, error) {
	return call[[]control.Saved](ctx, c, http.MethodGet, nodePath(node, "saved"), nil)
}

// Restore brings set-aside entries back.
func (c *Client) Restore(ctx context.Context, node string, r control.RestoreRequest) ([]control.Restored, error) {
	return call[[]control.Restored](ctx, c, http.MethodPost, nodePath(node, "restore"), r)
}

// Forget removes set-aside entries for good.
func (c *Client) Forget(ctx context.Context, node string, r control.ForgetRequest) ([]control.Saved, error) {
	return call[[]control.Saved](ctx, c, http.MethodPost, nodePath(node, "forget"), r)
}

// Reset sets aside what a node has of its own.
func (c *Client) Reset(ctx context.Context, node string, r control.ResetRequest) ([]control.Saved, error) {
	return call[[]control.Saved](ctx, c, http.MethodPost, nodePath(node, "reset"), r)
}

// Layers lists snapshots.
func (c *Client) Layers(ctx context.Context, set string) ([]control.Layer, error) {
	return call[[]control.Layer](ctx, c, http.MethodGet, "/v1/layers?"+nodeSet(set), nil)
}

// Rewind makes a node's layer what it was.
func (c *Client) Rewind(ctx context.Context, node string, r control.RewindRequest) (control.Rewound, error) {
	return call[control.Rewound](ctx, c, http.MethodPost, nodePath(node, "rewind"), r)
}

// Own calls each for everything that a node has of its own.
func (c *Client) Own(ctx context.Context, node string, each func(control.Change)) error {
	_, err := stream[struct{}](ctx, c, request{http.MethodGet, nodePath(node, "own"), nil}, onChange(each))
	return err
}

// Differ reports why two nodes differ.
func (c *Client) Differ(ctx context.Context, a, b string) (control.Difference, error) {
	return call[control.Difference](ctx, c, http.MethodGet, nodePath(a, "differ/"+url.PathEscape(b)), nil)
}

func nodePath(node, call string) string { return "/v1/nodes/" + url.PathEscape(node) + "/" + call }

func nodeSet(set string) string { return url.Values{"set": {set}}.Encode() }
