package control

import (
	"net/http"
	"strconv"
)

// handleRollouts adds the calls about rollouts.
func handleRollouts(mux *http.ServeMux, b Backend) {
	mux.Handle("GET /v1/rollouts", answer(func(r *http.Request) ([]Rollout, error) { return b.Rollouts(r.Context()) }))
	mux.Handle("POST /v1/rollouts", answer(func(r *http.Request) (Rollout, error) {
		in, err := body[RolloutRequest](r)
		if err != nil {
			return Rollout{}, err
		}
		return b.Rollout(r.Context(), in)
	}))
	mux.Handle("GET /v1/rollouts/{id}", answer(func(r *http.Request) (Rollout, error) {
		id, err := rolloutID(r)
		if err != nil {
			return Rollout{}, err
		}
		return b.RolloutStatus(r.Context(), id)
	}))
	mux.Handle("POST /v1/rollouts/{id}", answer(func(r *http.Request) (Rollout, error) {
		id, err := rolloutID(r)
		if err != nil {
			return Rollout{}, err
		}
		in, err := body[RolloutChange](r)
		if err != nil {
			return Rollout{}, err
		}
		return b.ChangeRollout(r.Context(), id, in)
	}))
}

func rolloutID(r *http.Request) (int, error) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil || id < 0 {
		return 0, Errorf(Invalid, "rollout %q: not a number", r.PathValue("id"))
	}
	return id, nil
}
