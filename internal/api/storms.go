package api

import (
	"context"

	"dim/internal/control"
	"dim/internal/peer"
)

// BeginStorm implements control.Backend. It is a head that makes the load if a head asks.
func (api *API) BeginStorm(ctx context.Context, r control.StormRequest) (control.Storm, error) {
	maker, _ := peer.From(ctx)
	return api.Storms.Begin(ctx, r, maker.Name)
}

// StormUsage implements control.Backend.
func (api *API) StormUsage(_ context.Context, id string) (control.StormUsage, error) {
	return api.Storms.Usage(id)
}

// EndStorm implements control.Backend.
func (api *API) EndStorm(_ context.Context, id string) (control.StormUsage, error) {
	return api.Storms.End(id)
}
