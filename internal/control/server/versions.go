package server

import (
	"context"
	"net/http"

	"dim/internal/control"
	"dim/internal/control/wire"
)

func handleImages(mux *http.ServeMux, b control.ImageBackend) {
	mux.Handle("GET /v1/images", answer(func(r *http.Request) ([]control.Image, error) {
		return b.Images(r.Context())
	}))
	mux.HandleFunc("POST /v1/captures", func(w http.ResponseWriter, r *http.Request) {
		req, err := body[control.CaptureRequest](r)
		if err != nil {
			refuse(w, err)
			return
		}
		out := newLines(w)
		done, err := b.Capture(r.Context(), req, out.progress)
		out.end(done, err)
	})
	mux.Handle("POST /v1/watches", answer(withBody(b.Watch)))
}

func handleVersions(mux *http.ServeMux, b control.VersionBackend) {
	mux.Handle("GET /v1/images/{image}/versions", answer(func(r *http.Request) ([]control.Version, error) {
		return b.Versions(r.Context(), r.PathValue("image"))
	}))
	mux.Handle("GET /v1/versions/{ref}", answer(func(r *http.Request) (control.Version, error) {
		return b.Version(r.Context(), r.PathValue("ref"))
	}))
	mux.Handle("GET /v1/versions/{ref}/packages", answer(func(r *http.Request) (control.Installed, error) {
		return b.Installed(r.Context(), r.PathValue("ref"))
	}))
	mux.Handle("DELETE /v1/versions/{ref}", answer(func(r *http.Request) (control.PruneResult, error) {
		how := control.RemoveRequest{DryRun: r.URL.Query().Has("dry_run")}
		return b.RemoveVersion(r.Context(), r.PathValue("ref"), how)
	}))
	mux.Handle("POST /v1/tags", answer(withBody(func(ctx context.Context, t wire.TagRequest) (control.Version, error) {
		return b.Tag(ctx, t.Ref, t.Tag)
	})))
	mux.Handle("DELETE /v1/tags/{ref}", answer(func(r *http.Request) (control.Version, error) {
		return b.Untag(r.Context(), r.PathValue("ref"))
	}))
}

func handleStore(mux *http.ServeMux, b control.StoreBackend) {
	mux.Handle("POST /v1/prune", answer(withBody(b.Prune)))
	mux.HandleFunc("POST /v1/verify", func(w http.ResponseWriter, r *http.Request) {
		out := newLines(w)
		done, err := b.Verify(r.Context(), r.URL.Query().Get("ref"), out.progress)
		out.end(done, err)
	})
	mux.HandleFunc("POST /v1/verify-all", func(w http.ResponseWriter, r *http.Request) {
		out := newLines(w)
		done, err := b.VerifyAll(r.Context(), r.URL.Query().Get("ref"), out.progress)
		out.end(done, err)
	})
}
