package api

import (
	"context"

	"dim/internal/control"
)

// BeginStorm implements control.Backend.
func (api *API) BeginStorm(ctx context.Context, r control.StormRequest) (control.Storm, error) {
	return api.Storms.Begin(ctx, r)
}

// StormUsage implements control.Backend.
func (api *API) StormUsage(_ context.Context, id string) (control.StormUsage, error) {
	return api.Storms.Usage(id)
}

// EndStorm implements control.Backend.
func (api *API) EndStorm(_ context.Context, id string) (control.StormUsage, error) {
	return api.Storms.End(id)
}
