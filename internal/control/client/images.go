package client

import (
	"context"
	"net/http"
	"net/url"

	"dim/internal/control"
	"dim/internal/control/wire"
)

// Images lists the images.
func (c *Client) Images(ctx context.Context) ([]control.Image, error) {
	return call[[]control.Image](ctx, c, http.MethodGet, "/v1/images", nil)
}

// Capture makes a new version of an image.
func (c *Client) Capture(
	ctx context.Context, r control.CaptureRequest, progress func(control.Progress),
) (control.CaptureResult, error) {
	return stream[control.CaptureResult](ctx, c, request{http.MethodPost, "/v1/captures", r}, onProgress(progress))
}

// Watch declares whether the master of an image is watched.
func (c *Client) Watch(ctx context.Context, r control.WatchRequest) (control.Watch, error) {
	return call[control.Watch](ctx, c, http.MethodPost, "/v1/watches", r)
}

// Versions lists the versions of an image, oldest first.
func (c *Client) Versions(ctx context.Context, image string) ([]control.Version, error) {
	return call[[]control.Version](ctx, c, http.MethodGet, "/v1/images/"+url.PathEscape(image)+"/versions", nil)
}

// Version resolves a reference.
func (c *Client) Version(ctx context.Context, ref string) (control.Version, error) {
	return call[control.Version](ctx, c, http.MethodGet, versionPath(ref), nil)
}

// Installed lists the packages of the version that a reference names.
func (c *Client) Installed(ctx context.Context, ref string) (control.Installed, error) {
	return call[control.Installed](ctx, c, http.MethodGet, versionPath(ref)+"/packages", nil)
}

// RemoveVersion removes a version.
func (c *Client) RemoveVersion(ctx context.Context, ref string, r control.RemoveRequest) (control.PruneResult, error) {
	path := versionPath(ref)
	if r.DryRun {
		path += "?dry_run"
	}
	return call[control.PruneResult](ctx, c, http.MethodDelete, path, nil)
}

func versionPath(ref string) string { return "/v1/versions/" + url.PathEscape(ref) }

// Tag makes tag name the version ref.
func (c *Client) Tag(ctx context.Context, ref, tag string) (control.Version, error) {
	return call[control.Version](ctx, c, http.MethodPost, "/v1/tags", wire.TagRequest{Ref: ref, Tag: tag})
}

// Untag removes the tag that ref, NAME@TAG, names, and returns the version that it named.
func (c *Client) Untag(ctx context.Context, ref string) (control.Version, error) {
	return call[control.Version](ctx, c, http.MethodDelete, "/v1/tags/"+url.PathEscape(ref), nil)
}

// Prune removes what nothing needs.
func (c *Client) Prune(ctx context.Context, r control.PruneRequest) (control.PruneResult, error) {
	return call[control.PruneResult](ctx, c, http.MethodPost, "/v1/prune", r)
}

// Verify reads everything that a version refers to, or the whole store when ref is "".
func (c *Client) Verify(
	ctx context.Context, ref string, progress func(control.Progress),
) (control.VerifyResult, error) {
	q := request{http.MethodPost, "/v1/verify?" + url.Values{"ref": {ref}}.Encode(), nil}
	return stream[control.VerifyResult](ctx, c, q, onProgress(progress))
}

// VerifyAll verifies a version on all servers, and compares what their nodes show.
func (c *Client) VerifyAll(
	ctx context.Context, ref string, progress func(control.Progress),
) (control.VerifyAllResult, error) {
	q := request{http.MethodPost, "/v1/verify-all?" + url.Values{"ref": {ref}}.Encode(), nil}
	return stream[control.VerifyAllResult](ctx, c, q, onProgress(progress))
}

// Diff calls each for every change from one version to another, and returns a summary.
func (c *Client) Diff(ctx context.Context, from, to string, each func(control.Change)) (control.Comparison, error) {
	q := request{http.MethodGet, "/v1/diff?" + url.Values{"from": {from}, "to": {to}}.Encode(), nil}
	return stream[control.Comparison](ctx, c, q, onChange(each))
}
