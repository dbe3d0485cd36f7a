package api

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/control"
	"dim/internal/layer"
)

// Status implements control.Backend.
func (api *API) Status(ctx context.Context) (control.Status, error) {
	now := api.Follow.Now()
	s := control.Status{
		Server: string(api.Server), Program: api.Program, PID: unix.Getpid(), Started: api.Started, Data: api.Data,
		Cluster: now.Cluster.Name, Nodes: len(now.Cluster.Nodes), Stages: api.Stages(),
		Disks: api.Disks(), Services: api.Services, Capturing: api.Masters.Capturing(), Problems: []control.Problem{},
	}
	s.Applied = control.Applied{Digest: now.Digest.String(), Revision: revision(now)}
	if now.State.Description != nil {
		s.Applied.Time = now.State.Description.Applied
	}
	s.Servers = api.servers(now)
	if q := now.Cluster.Quota; q != nil {
		s.Quota = &control.Quota{Bytes: q.Bytes, Files: q.Files}
	}
	var err error
	s.Coord = api.Follow.Health(ctx)
	if s.Images, err = api.Images(ctx); err != nil {
		return s, err
	}
	if s.Machines, err = api.Machines(ctx); err != nil {
		return s, err
	}
	if s.Mounts, err = api.Mounts(ctx); err != nil {
		return s, err
	}
	active, err := now.Rollouts().Active()
	if err != nil {
		return s, err
	}
	for i := range active {
		s.Rollouts = append(s.Rollouts, api.rollout(now, &active[i]))
	}
	s.Expires = api.removals()
	for _, p := range api.Problems.All(ctx) {
		s.Problems = append(s.Problems, control.Problem{
			About: p.About.String(), Text: p.Text, Hint: p.Hint, Since: p.Since.Round(time.Second),
		})
	}
	return s, nil
}

// removals returns what is removed next after its time.
func (api *API) removals() []control.Removal {
	list := []control.Removal{}
	for _, r := range api.Expiry.Next() {
		list = append(list, control.Removal{
			Node: r.Node, Image: r.Image, Snapshot: r.Snapshot, Stamp: layer.StampName(r.Stamp), Expires: r.Expires,
		})
	}
	return list
}
