package daemon

import (
	"context"
	"fmt"
	"slices"

	"dim/internal/boot/delivery"
	"dim/internal/cluster"
	"dim/internal/daemon/sockets"
	"dim/internal/problems"
	"dim/internal/quantity"
)

// minFree is the part of a disk, in percent, that should be free. Nodes cannot take it.
const minFree = 5

// problemSources returns what tells problems of this server itself. me is how it is described in the state that its
// sockets were opened for.
func (d *daemon) problemSources(me *cluster.Server) []problems.Source {
	return []problems.Source{
		d.follow.Problems,
		func(context.Context) []problems.Problem { return d.serverProblems(me) },
		d.api.StoreProblems,
		func(context.Context) []problems.Problem { return d.bootProblems() },
		func(context.Context) []problems.Problem { return d.diskProblems() },
		d.files.clock.Problems,
		d.others.members.Problems,
		d.others.reporter.Refused,
		d.others.disk.Problems,
		d.content.keeper.Problems,
	}
}

func (d *daemon) serverProblems(listening *cluster.Server) []problems.Problem {
	var list []problems.Problem
	about := problems.Subject{Kind: problems.KindServer, Name: string(d.server)}
	if me, ok := d.follow.Cluster().Server(d.server); ok && !sameSockets(me, listening) {
		list = append(list, problems.Problem{
			About: about, Hint: "restart it",
			Text: "its addresses or ports in the description are others than those it listens on",
		})
	}
	if me, ok := d.follow.Cluster().Server(d.server); ok && me.Has(cluster.RoleHead) != d.follow.IsHead() {
		list = append(list, problems.Problem{
			About: about, Hint: "restart it", Text: "its roles in the description are others than those it runs with",
		})
	}
	if on, err := sockets.InterfacesWith(sockets.Addresses(listening)); listening.DHCP && err == nil && len(on) == 0 {
		list = append(list, problems.Problem{
			About: about, Text: "no interface has any of its addresses: DHCP answers nobody but relays",
			Hint: "give an interface the address; nothing has to be restarted",
		})
	}
	return list
}

// sameSockets reports whether two descriptions of a server need the same sockets.
func sameSockets(a, b *cluster.Server) bool {
	return slices.Equal(sockets.Addresses(a), sockets.Addresses(b)) && a.Ports == b.Ports && a.DHCP == b.DHCP
}

// bootProblems lists the programs for nodes that are not installed on this server.
func (d *daemon) bootProblems() []problems.Problem {
	c := d.follow.Cluster()
	me, ok := c.Server(d.server)
	if !ok || !me.Has(cluster.RoleImage) {
		return nil
	}
	about := problems.Of(problems.KindBoot)
	var list []problems.Problem
	if loaders := delivery.LoadersIn(d.Loaders); !loaders.Any() {
		list = append(list, problems.Problem{
			About: about, Text: "firmware gets no loader: no iPXE program is in " + loaders.Dir(),
			Hint: "apt-get install ipxe, or dim serve --loaders DIRECTORY",
		})
	}
	checked := map[string]bool{}
	for _, n := range c.Nodes {
		arch := n.Image.Arch
		if checked[arch] {
			continue
		}
		checked[arch] = true
		if err := d.bootfiles.Installed(arch); err != nil {
			list = append(list, problems.Problem{
				About: about, Text: "nodes cannot boot: " + err.Error(),
				Hint: "make build in DIM's sources leaves it in bin",
			})
		}
	}
	return list
}

func (d *daemon) diskProblems() []problems.Problem {
	var list []problems.Problem
	for _, disk := range d.api.Disks() {
		if disk.BytesFree*100 < disk.Bytes*minFree {
			list = append(list, problems.Problem{
				About: problems.Subject{Kind: problems.KindDisk, Name: disk.Path},
				Text:  fmt.Sprintf("%s of %s free", quantity.Size(disk.BytesFree), quantity.Size(disk.Bytes)),
				Hint:  "a node that writes gets \"no space left on device\" now: the rest is for the server",
			})
		}
	}
	return list
}
