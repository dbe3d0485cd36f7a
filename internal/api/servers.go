package api

import (
	"context"
	"net/netip"
	"slices"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/follow"
)

// Servers implements control.Backend.
func (api *API) Servers(context.Context) ([]control.Server, error) {
	return api.servers(api.Follow.Now()), nil
}

// servers returns the servers of the description, with what they reported.
func (api *API) servers(now *follow.Declared) []control.Server {
	nodes := map[cluster.ServerName]int{}
	for _, n := range now.Cluster.Nodes {
		nodes[n.Server().Name]++
	}
	var heads []string // where servers report to, if not here
	if !api.Follow.IsHead() {
		for _, s := range now.Cluster.Servers {
			if s.Has(cluster.RoleHead) {
				heads = append(heads, string(s.Name))
			}
		}
	}
	members := api.Follow.Members()
	list := make([]control.Server, 0, len(now.Cluster.Servers))
	for _, s := range now.Cluster.Servers {
		heard, ok := api.Fleet.Last(s.Name)
		joined := now.State.Servers[string(s.Name)]
		made := control.Server{
			Name: string(s.Name), Nodes: nodes[s.Name], HasReported: ok || s.Name == api.Server, Reported: heard.At,
			Observed: api.reported(s),
			Address:  netip.AddrPortFrom(s.Address(), s.Ports.API).String(),
			ID:       joined.ID, Joined: joined.Joined, Drained: joined.Drained, Member: memberRole(members, s.Name),
		}
		if ok && heard.Store == now.State.Store {
			made.Behind = max(0, now.State.Revision-heard.Revision)
		}
		if s.Name != api.Server {
			made.KnownTo = heads
		}
		for _, r := range s.Roles {
			made.Roles = append(made.Roles, string(r))
		}
		list = append(list, made)
	}
	return list
}

// memberRole returns what a server is in the shared state.
func memberRole(members []control.Member, name cluster.ServerName) string {
	i := slices.IndexFunc(members, func(m control.Member) bool { return m.Server == string(name) })
	switch {
	case i < 0:
		return ""
	case members[i].Leads:
		return "leads"
	case members[i].Votes:
		return "votes"
	}
	return "catches up"
}

// NewToken implements control.Backend.
func (api *API) NewToken(ctx context.Context, r control.TokenRequest) (control.Token, error) {
	return api.Members.NewToken(ctx, r)
}

// ChangeServer implements control.Backend.
func (api *API) ChangeServer(
	ctx context.Context, name string, change control.ServerChange,
) (control.ServerChanged, error) {
	now := api.Follow.Now()
	list := api.servers(now)
	i := slices.IndexFunc(list, func(s control.Server) bool { return s.Name == name })
	if i < 0 {
		// A server that was taken out of the description can still be removed.
		joined, ok := now.State.Servers[name]
		if !ok {
			return control.ServerChanged{}, control.Errorf(control.NotFound, "no such server: %s", name).
				WithHint("dim server ls lists them")
		}
		list, i = []control.Server{{Name: name, ID: joined.ID, Joined: joined.Joined, Drained: joined.Drained}}, 0
	}
	if list[i].ID == "" {
		return control.ServerChanged{}, control.Errorf(control.NotFound, "server %s has not joined", name).
			WithHint("dim token --for " + name)
	}
	note, err := api.Members.Change(ctx, cluster.ServerName(name), change)
	return control.ServerChanged{Server: list[i], DryRun: change.DryRun, Note: note}, err
}
