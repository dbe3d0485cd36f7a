package forward

import (
	"context"
	"strings"

	"dim/internal/cluster"
	"dim/internal/control"
)

// idSeparator stands between the name of another server and the id of a load test there.
const idSeparator = ":"

// BeginStorm implements control.Backend.
func (b *Backend) BeginStorm(ctx context.Context, r control.StormRequest) (control.Storm, error) {
	if r.Server == "" || r.Server == string(b.Server) {
		return b.Backend.BeginStorm(ctx, r)
	}
	now := b.Follow.Now().Cluster
	if _, ok := now.Server(cluster.ServerName(r.Server)); !ok {
		return control.Storm{}, control.Errorf(control.NotFound, "storm: there is no server %s", r.Server).
			WithHint("dim status lists the servers")
	}
	if !b.isHead() {
		return control.Storm{}, control.Errorf(control.Unavailable, "storm: %s is not a head", b.Server).
			WithHint("run the command on a head, or on " + r.Server + " without --servers")
	}
	s, err := b.at(cluster.ServerName(r.Server)).BeginStorm(ctx, r)
	s.Remote = true
	if s.ID != "" {
		s.ID = r.Server + idSeparator + s.ID
	}
	return s, err
}

// StormUsage implements control.Backend.
func (b *Backend) StormUsage(ctx context.Context, id string) (control.StormUsage, error) {
	server, there, ok := strings.Cut(id, idSeparator)
	if !ok {
		return b.Backend.StormUsage(ctx, id)
	}
	return b.at(cluster.ServerName(server)).StormUsage(ctx, there)
}

// EndStorm implements control.Backend.
func (b *Backend) EndStorm(ctx context.Context, id string) (control.StormUsage, error) {
	server, there, ok := strings.Cut(id, idSeparator)
	if !ok {
		return b.Backend.EndStorm(ctx, id)
	}
	return b.at(cluster.ServerName(server)).EndStorm(ctx, there)
}
