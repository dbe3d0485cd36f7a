package client

import (
	"context"
	"fmt"
	"net/http"

	"dim/internal/control"
)

// Status returns the daemon's status.
func (c *Client) Status(ctx context.Context) (control.Status, error) {
	return call[control.Status](ctx, c, http.MethodGet, "/v1/status", nil)
}

// Description returns the cluster description with a revision; 0: the applied one.
func (c *Client) Description(ctx context.Context, revision int64) (control.Description, error) {
	path := "/v1/description"
	if revision != 0 {
		path += fmt.Sprintf("?revision=%d", revision)
	}
	return call[control.Description](ctx, c, http.MethodGet, path, nil)
}

// Descriptions lists the descriptions that were applied, the latest first.
func (c *Client) Descriptions(ctx context.Context) ([]control.AppliedDescription, error) {
	return call[[]control.AppliedDescription](ctx, c, http.MethodGet, "/v1/descriptions", nil)
}

// Apply makes a description the applied one.
func (c *Client) Apply(ctx context.Context, r control.ApplyRequest) (control.ApplyResult, error) {
	return call[control.ApplyResult](ctx, c, http.MethodPut, "/v1/description", r)
}

// Learn binds machines to nodes.
func (c *Client) Learn(ctx context.Context, r control.LearnRequest) (control.LearnResult, error) {
	return call[control.LearnResult](ctx, c, http.MethodPost, "/v1/learn", r)
}

// Rollout begins a rollout.
func (c *Client) Rollout(ctx context.Context, r control.RolloutRequest) (control.Rollout, error) {
	return call[control.Rollout](ctx, c, http.MethodPost, "/v1/rollouts", r)
}

// Rollouts lists the rollouts, the latest first.
func (c *Client) Rollouts(ctx context.Context) ([]control.Rollout, error) {
	return call[[]control.Rollout](ctx, c, http.MethodGet, "/v1/rollouts", nil)
}

// PreviewOwn returns what moves would set aside on nodes that the server serves.
func (c *Client) PreviewOwn(ctx context.Context, r control.PreviewRequest) ([]control.OwnChanges, error) {
	return call[[]control.OwnChanges](ctx, c, http.MethodPost, "/v1/rollouts/preview", r)
}

// RolloutStatus returns one rollout with its nodes; 0 is the latest.
func (c *Client) RolloutStatus(ctx context.Context, id int) (control.Rollout, error) {
	return call[control.Rollout](ctx, c, http.MethodGet, rolloutPath(id), nil)
}

// ChangeRollout pauses, resumes, undoes or stops a rollout.
func (c *Client) ChangeRollout(ctx context.Context, id int, change control.RolloutChange) (control.Rollout, error) {
	return call[control.Rollout](ctx, c, http.MethodPost, rolloutPath(id), change)
}

// ConfirmNodes confirms what was done on nodes.
func (c *Client) ConfirmNodes(ctx context.Context, r control.ConfirmRequest) ([]control.ConfirmedNode, error) {
	return call[[]control.ConfirmedNode](ctx, c, http.MethodPost, "/v1/confirm", r)
}

func rolloutPath(id int) string { return fmt.Sprintf("/v1/rollouts/%d", id) }
