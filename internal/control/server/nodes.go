package server

import (
	"net/http"

	"dim/internal/control"
)

func handleNodes(mux *http.ServeMux, b control.NodeBackend) {
	mux.Handle("GET /v1/nodes", answer(func(r *http.Request) ([]control.Node, error) {
		return b.Nodes(r.Context(), r.URL.Query().Get("set"))
	}))
	mux.Handle("GET /v1/nodes/{node}", answer(func(r *http.Request) (control.Node, error) {
		return b.Node(r.Context(), r.PathValue("node"))
	}))
	mux.Handle("GET /v1/nodes/{node}/boots", answer(func(r *http.Request) (control.NodeBoots, error) {
		return b.NodeBoots(r.Context(), r.PathValue("node"))
	}))
	mux.Handle("GET /v1/nodes/{node}/rendered", answer(func(r *http.Request) ([]control.NodeFile, error) {
		return b.NodeFiles(r.Context(), r.PathValue("node"), r.URL.Query().Get("path"))
	}))
	mux.Handle("GET /v1/machines", answer(func(r *http.Request) ([]control.Machine, error) {
		return b.Machines(r.Context())
	}))
	mux.Handle("GET /v1/host-keys", answer(func(r *http.Request) ([]control.HostKey, error) {
		return b.HostKeys(r.Context())
	}))
	mux.Handle("GET /v1/check", answer(func(r *http.Request) ([]control.CheckResult, error) {
		return b.Check(r.Context(), r.URL.Query().Get("set"))
	}))
}

func handleSaved(mux *http.ServeMux, b control.SavedBackend) {
	mux.Handle("GET /v1/nodes/{node}/saved", answer(func(r *http.Request) ([]control.SavedEntry, error) {
		return b.Saved(r.Context(), r.PathValue("node"))
	}))
	mux.Handle("POST /v1/nodes/{node}/restore", answer(withNode(b.Restore)))
	mux.Handle("POST /v1/nodes/{node}/forget", answer(withNode(b.Forget)))
	mux.Handle("POST /v1/nodes/{node}/reset", answer(withNode(b.Reset)))
	mux.Handle("POST /v1/nodes/{node}/accept", answer(withNode(b.Accept)))
	mux.Handle("POST /v1/layers/remove", answer(withBody(b.RemoveLayers)))
}

func handleSnapshots(mux *http.ServeMux, b control.SnapshotBackend) {
	mux.Handle("GET /v1/snapshots", answer(func(r *http.Request) ([]control.Snapshot, error) {
		return b.Snapshots(r.Context(), r.URL.Query().Get("set"))
	}))
	mux.Handle("POST /v1/nodes/{node}/restore-snapshot", answer(withNode(b.RestoreSnapshot)))
}

func handleDiffs(mux *http.ServeMux, b control.DiffBackend) {
	mux.HandleFunc("GET /v1/diff", func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		out := newLines(w)
		summary, err := b.Diff(r.Context(), q.Get("from"), q.Get("to"), out.change)
		out.end(summary, err)
	})
	mux.HandleFunc("GET /v1/nodes/{node}/changes", func(w http.ResponseWriter, r *http.Request) {
		out := newLines(w)
		out.end(struct{}{}, b.NodeChanges(r.Context(), r.PathValue("node"), out.change))
	})
	mux.Handle("GET /v1/nodes/{node}/diff/{other}", answer(func(r *http.Request) (control.NodeDiff, error) {
		return b.NodeDiff(r.Context(), r.PathValue("node"), r.PathValue("other"))
	}))
	mux.Handle("GET /v1/nodes/{node}/side", answer(func(r *http.Request) (control.NodeSide, error) {
		return b.NodeSide(r.Context(), r.PathValue("node"))
	}))
	mux.Handle("POST /v1/nodes/{node}/contents", answer(withNode(b.NodeContents)))
}
