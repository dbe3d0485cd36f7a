package api

import (
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/fleet"
	"dim/internal/reporting"
)

// pushed returns what is known of the resident process on n; nil when it has not called.
func (api *API) pushed(n *cluster.Node) *control.Push {
	if n.Server().Name != api.Server {
		return api.pushedThere(n)
	}
	said, ok := api.Residents.Push.Status(n.Name)
	if !ok {
		return nil
	}
	out := &control.Push{
		Reported: said.Called, Memory: said.Memory, Omitted: said.Omitted,
		Mounts: []control.NodeMount{}, Stale: []control.Process{}, Restart: reporting.Restart(said.Stale),
	}
	out.State, out.UnitsRead = api.Residents.State(n.Name, &said)
	for _, m := range said.Mounts {
		out.Mounts = append(out.Mounts, control.NodeMount{Path: "/" + m.Path, Type: m.Type})
	}
	for _, p := range said.Stale {
		out.Stale = append(out.Stale, control.Process{
			PID: p.PID, Name: p.Name, Unit: p.Unit, Path: "/" + p.Path, More: p.More,
		})
	}
	return out
}

// pushedThere is pushed for a node of another server, by the last report of that. It has no mounts, and no processes.
func (api *API) pushedThere(n *cluster.Node) *control.Push {
	said, at, ok := api.Fleet.LastNode(n)
	r := &said.Resident
	if !ok || r.Reported.IsZero() {
		return nil
	}
	out := &control.Push{
		State: r.State, Reported: r.Reported, Memory: r.Memory, Omitted: r.Omitted, UnitsRead: r.UnitsRead,
		Mounts: []control.NodeMount{}, Stale: []control.Process{}, Restart: r.Restart.List(),
	}
	if !fleet.Fresh(at) {
		out.State = control.PushLost
	}
	return out
}
