package server

import (
	"context"
	"net/http"
	"strconv"

	"dim/internal/control"
)

func handleRollouts(mux *http.ServeMux, b control.RolloutBackend) {
	mux.Handle("GET /v1/rollouts", answer(func(r *http.Request) ([]control.Rollout, error) {
		return b.Rollouts(r.Context())
	}))
	mux.Handle("POST /v1/rollouts", answer(withBody(b.Rollout)))
	mux.Handle("POST /v1/rollouts/preview", answer(withBody(b.PreviewOwn)))
	mux.Handle("GET /v1/rollouts/{id}", answer(func(r *http.Request) (control.Rollout, error) {
		id, err := rolloutID(r)
		if err != nil {
			return control.Rollout{}, err
		}
		return b.RolloutStatus(r.Context(), id)
	}))
	mux.Handle("POST /v1/rollouts/{id}", answer(func(r *http.Request) (control.Rollout, error) {
		id, err := rolloutID(r)
		if err != nil {
			return control.Rollout{}, err
		}
		return withBody(func(ctx context.Context, change control.RolloutChange) (control.Rollout, error) {
			return b.ChangeRollout(ctx, id, change)
		})(r)
	}))
	mux.Handle("POST /v1/confirm", answer(withBody(b.ConfirmNodes)))
}

func rolloutID(r *http.Request) (int, error) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil || id < 0 {
		return 0, control.Errorf(control.Invalid, "rollout %q: not a number", r.PathValue("id"))
	}
	return id, nil
}
