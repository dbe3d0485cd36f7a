package daemon

import (
	"context"
	"errors"

	"dim/internal/cluster"
	"dim/internal/fleet"
	"dim/internal/follow"
	"dim/internal/follow/stream"
	"dim/internal/peer"
)

// heads returns the other heads.
func (d *daemon) heads() []stream.Head {
	var list []stream.Head
	for _, s := range d.declared().Servers {
		if s.Has(cluster.RoleHead) && s.Name != d.server {
			client, url := d.others.client.To(s.Name)
			list = append(list, stream.Head{Name: s.Name, Client: client, URL: url})
		}
	}
	return list
}

// lead lets other servers follow this head and report to it.
func (d *daemon) lead() {
	states := stream.NewServer(stream.ServerOptions{
		Caller: calling, Confirm: d.follow.Confirm, Answers: d.follow.Answers, Log: d.Log,
	})
	adopt := func(_ context.Context, now *follow.Declared) { states.Adopt(now.State, now.Cluster) }
	d.follow.Subscribe(adopt)
	adopt(context.Background(), d.follow.Now())
	d.others.server.Handle("GET "+stream.Path, peer.Servers, states)
	reports := &fleet.Receiver{Fleet: d.others.fleet, Caller: calling, Marked: d.others.members.Marked}
	d.others.server.Handle("POST "+fleet.Path, peer.Servers, reports)
	d.others.server.Handle("POST "+fleet.ChangesPath, peer.Servers, reports)
}

// calling returns which server makes a request.
func calling(ctx context.Context) (cluster.ServerName, error) {
	id, ok := peer.From(ctx)
	if !ok {
		return "", errors.New("the caller has no certificate")
	}
	return id.Name, nil
}
