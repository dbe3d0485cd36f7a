package server

import (
	"net/http"

	"dim/internal/control"
	"dim/internal/control/wire"
)

func handleBackup(mux *http.ServeMux, b control.BackupBackend) {
	mux.Handle("POST /v1/backup/state", answer(func(r *http.Request) (control.BackupState, error) {
		return b.BackupState(r.Context())
	}))
	mux.HandleFunc("POST /v1/backup/stage", func(w http.ResponseWriter, r *http.Request) {
		out := newLines(w)
		q, err := body[control.StageRequest](r)
		if err == nil {
			// The client ends the call by closing the connection, and so does its death.
			err = b.Stage(r.Context(), q, func(s control.Staged) {
				if out.send(wire.Line{Staged: &s}) == nil {
					_ = http.NewResponseController(w).Flush()
				}
			})
		}
		out.end(struct{}{}, err)
	})
}
