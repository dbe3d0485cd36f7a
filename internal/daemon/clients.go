package daemon

import (
	"cmp"
	"context"
	"net/netip"
	"time"

	"dim/internal/admission"
	"dim/internal/caller"
	"dim/internal/cluster"
	"dim/internal/daemon/sockets"
	"dim/internal/dhcp"
)

// minTransfers is the number of TFTP transfers at a time, besides one for each node.
const minTransfers = 64

// clients is what this server keeps about the machines that reach it.
type clients struct {
	nfs, http *admission.Controller // their connections
	unknown   *dhcp.Machines        // machines that are not in the description
	mtus      *sockets.PathMTUs     // of the paths to TFTP clients
}

// answers is liveness.Connected.
func (c clients) answers(ctx context.Context, addrs []netip.Addr, since time.Time) bool {
	return admission.Answers(ctx, []*admission.Controller{c.nfs, c.http}, addrs, since)
}

// closed returns how many connections were refused, by service.
func (d *daemon) closed() map[string]uint64 {
	return map[string]uint64{
		"nfs": d.clients.nfs.Refused(), "http": d.clients.http.Refused(), "api": d.others.server.Refused(),
	}
}

// declared returns the description that holds now. It is empty before one is adopted.
func (d *daemon) declared() *cluster.Cluster {
	if d.follow != nil && d.follow.Now() != nil {
		return d.follow.Now().Cluster
	}
	return &cluster.Cluster{}
}

// nodes returns the number of declared nodes, with which the bounds of the services grow.
func (d *daemon) nodes() int { return len(d.declared().Nodes) }

// mtu returns the size of the largest packet that reaches a machine in one piece, by the description of its network and
// by the route to it.
func (d *daemon) mtu(client netip.Addr) int {
	size := d.clients.mtus.To(client, time.Now())
	if _, card, ok := d.declared().NodeByAddress(client); ok && card.Network.MTU > 0 {
		return min(cmp.Or(size, card.Network.MTU), card.Network.MTU)
	}
	return size
}

// known reports whether a client of TFTP may ask for files at all.
func (d *daemon) known(client netip.AddrPort) bool {
	_, err := caller.Resolve(d.declared(), caller.Peer{Remote: client})
	return err == nil
}
