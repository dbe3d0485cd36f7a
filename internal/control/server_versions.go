package control

import (
	"context"
	"net/http"
	"net/url"
)

// versionCalls are the calls of VersionsBackend, but diff.
func versionCalls(mux *http.ServeMux, b Backend) {
	h := handlers{b}
	mux.Handle("DELETE /v1/tags/{ref}", answer(func(r *http.Request) (Version, error) { return b.Untag(r.Context(), r.PathValue("ref")) }))
	mux.Handle("DELETE /v1/versions/{ref}", answer(func(r *http.Request) (Pruned, error) {
		return b.RemoveVersion(r.Context(), r.PathValue("ref"), Doing{DryRun: r.URL.Query().Has("dry_run")})
	}))
	mux.Handle("POST /v1/prune", answer(func(r *http.Request) (Pruned, error) {
		req, err := body[PruneRequest](r)
		if err != nil {
			return Pruned{}, err
		}
		return b.Prune(r.Context(), req)
	}))
	mux.HandleFunc("POST /v1/verify", h.verify)
}

func (h handlers) verify(w http.ResponseWriter, r *http.Request) {
	out := newLines(w)
	done, err := h.b.Verify(r.Context(), r.URL.Query().Get("ref"), func(p Progress) { _ = out.flush(line{Progress: &p}) })
	out.end(done, err)
}

// Untag removes the tag that ref, NAME@TAG, names, and returns the version that it named.
func (c *Client) Untag(ctx context.Context, ref string) (Version, error) {
	return call[Version](ctx, c, http.MethodDelete, "/v1/tags/"+url.PathEscape(ref), nil)
}

// RemoveVersion removes a version, see VersionsBackend.
func (c *Client) RemoveVersion(ctx context.Context, ref string, how Doing) (Pruned, error) {
	path := "/v1/versions/" + url.PathEscape(ref)
	if how.DryRun {
		path += "?dry_run"
	}
	return call[Pruned](ctx, c, http.MethodDelete, path, nil)
}

// Prune removes what nothing needs, see VersionsBackend.
func (c *Client) Prune(ctx context.Context, r PruneRequest) (Pruned, error) {
	return call[Pruned](ctx, c, http.MethodPost, "/v1/prune", r)
}

// Verify reads everything that a version leads to, or all when ref is "".
func (c *Client) Verify(ctx context.Context, ref string, progress func(Progress)) (Verified, error) {
	var done Verified
	err := c.follow(ctx, http.MethodPost, "/v1/verify?"+url.Values{"ref": {ref}}.Encode(), nil, &done, func(l line) {
		if l.Progress != nil {
			progress(*l.Progress)
		}
	})
	return done, err
}
