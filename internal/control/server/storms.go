package server

import (
	"net/http"

	"dim/internal/control"
)

func handleStorms(mux *http.ServeMux, b control.StormBackend) {
	mux.Handle("POST /v1/storms", answer(withBody(b.BeginStorm)))
	mux.Handle("GET /v1/storms/{id}", answer(func(r *http.Request) (control.StormUsage, error) {
		return b.StormUsage(r.Context(), r.PathValue("id"))
	}))
	mux.Handle("DELETE /v1/storms/{id}", answer(func(r *http.Request) (control.StormUsage, error) {
		return b.EndStorm(r.Context(), r.PathValue("id"))
	}))
}
