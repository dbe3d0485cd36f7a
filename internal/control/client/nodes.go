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

// NodeBoots returns the last boots of a node.
func (c *Client) NodeBoots(ctx context.Context, node string) (control.NodeBoots, error) {
	return call[control.NodeBoots](ctx, c, http.MethodGet, nodePath(node, "boots"), nil)
}

// NodeFiles returns the files that are rendered for a node; "" is all of them.
func (c *Client) NodeFiles(ctx context.Context, node, path string) ([]control.NodeFile, error) {
	at := nodePath(node, "rendered?"+url.Values{"path": {path}}.Encode())
	return call[[]control.NodeFile](ctx, c, http.MethodGet, at, nil)
}

// HostKeys lists the public keys of the ssh servers of all nodes.
func (c *Client) HostKeys(ctx context.Context) ([]control.HostKey, error) {
	return call[[]control.HostKey](ctx, c, http.MethodGet, "/v1/host-keys", nil)
}

// Machines lists the machines that are not in the description.
func (c *Client) Machines(ctx context.Context) ([]control.Machine, error) {
	return call[[]control.Machine](ctx, c, http.MethodGet, "/v1/machines", nil)
}

// Check checks the replicas of a set of nodes.
func (c *Client) Check(ctx context.Context, set string) ([]control.CheckResult, error) {
	return call[[]control.CheckResult](ctx, c, http.MethodGet, "/v1/check?"+nodeSet(set), nil)
}

// Saved lists the entries of a node that were set aside.
func (c *Client) Saved(ctx context.Context, node string) ([]control.SavedEntry, error) {
	return call[[]control.SavedEntry](ctx, c, http.MethodGet, nodePath(node, "saved"), nil)
}

// Restore brings set-aside entries back.
func (c *Client) Restore(ctx context.Context, node string, r control.RestoreRequest) ([]control.RestoredEntry, error) {
	return call[[]control.RestoredEntry](ctx, c, http.MethodPost, nodePath(node, "restore"), r)
}

// Forget removes set-aside entries for good.
func (c *Client) Forget(ctx context.Context, node string, r control.ForgetRequest) ([]control.SavedEntry, error) {
	return call[[]control.SavedEntry](ctx, c, http.MethodPost, nodePath(node, "forget"), r)
}

// Reset sets aside the changes of a node.
func (c *Client) Reset(ctx context.Context, node string, r control.ResetRequest) ([]control.SavedEntry, error) {
	return call[[]control.SavedEntry](ctx, c, http.MethodPost, nodePath(node, "reset"), r)
}

// RemoveLayers removes all files of nodes that the description no longer has.
func (c *Client) RemoveLayers(ctx context.Context, r control.RemoveLayersRequest) ([]control.RemovedLayer, error) {
	return call[[]control.RemovedLayer](ctx, c, http.MethodPost, "/v1/layers/remove", r)
}

// Accept serves a node with files that were in doubt.
func (c *Client) Accept(ctx context.Context, node string, r control.AcceptRequest) (control.AcceptedLayer, error) {
	return call[control.AcceptedLayer](ctx, c, http.MethodPost, nodePath(node, "accept"), r)
}

// Snapshots lists the snapshots of the layers of a set of nodes.
func (c *Client) Snapshots(ctx context.Context, set string) ([]control.Snapshot, error) {
	return call[[]control.Snapshot](ctx, c, http.MethodGet, "/v1/snapshots?"+nodeSet(set), nil)
}

// RestoreSnapshot makes a node's layer what it was at a snapshot.
func (c *Client) RestoreSnapshot(
	ctx context.Context, node string, r control.RestoreSnapshotRequest,
) (control.RestoredSnapshot, error) {
	return call[control.RestoredSnapshot](ctx, c, http.MethodPost, nodePath(node, "restore-snapshot"), r)
}

// NodeChanges calls each for every difference between a node and its version.
func (c *Client) NodeChanges(ctx context.Context, node string, each func(control.Change)) error {
	_, err := stream[struct{}](ctx, c, request{http.MethodGet, nodePath(node, "changes"), nil}, onChange(each))
	return err
}

// NodeDiff reports why two nodes show different roots.
func (c *Client) NodeDiff(ctx context.Context, a, b string) (control.NodeDiff, error) {
	return call[control.NodeDiff](ctx, c, http.MethodGet, nodePath(a, "diff/"+url.PathEscape(b)), nil)
}

// NodeSide returns what a node has besides its version.
func (c *Client) NodeSide(ctx context.Context, node string) (control.NodeSide, error) {
	return call[control.NodeSide](ctx, c, http.MethodGet, nodePath(node, "side"), nil)
}

// NodeContents returns the digests of files that a node has.
func (c *Client) NodeContents(ctx context.Context, node string, r control.ContentsRequest) ([]string, error) {
	return call[[]string](ctx, c, http.MethodPost, nodePath(node, "contents"), r)
}

func nodePath(node, call string) string { return "/v1/nodes/" + url.PathEscape(node) + "/" + call }

func nodeSet(set string) string { return url.Values{"set": {set}}.Encode() }
