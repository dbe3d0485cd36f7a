package daemon

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/boot/delivery"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/problems"
	"dim/internal/rollout"
)

// lowDisk is the part of a disk, in percent, below which its room is a problem.
const lowDisk = 5

// strangerFor is for how long a machine that is not in the description and asked for a boot is a problem; it is listed for longer.
const strangerFor = time.Hour

// Status implements control.Backend.
func (d *daemon) Status(ctx context.Context) (control.Status, error) {
	now := d.declared()
	s := control.Status{
		Server: string(d.server), Program: d.config.Program, PID: unix.Getpid(), Started: d.started, Data: d.config.Data,
		Cluster: now.cluster.Name, Digest: now.digest.String(), Nodes: len(now.cluster.Nodes), Stages: map[string]int{},
		Disks: d.disks(), Services: d.services, Problems: []control.Problem{},
	}
	if now.state.Description != nil {
		s.Applied = now.state.Description.Applied
	}
	var err error
	s.Coord = d.coordStatus(ctx, now)
	if s.Images, err = d.Images(ctx); err != nil {
		return s, err
	}
	nodes, err := d.Nodes(ctx, "")
	if err != nil {
		return s, err
	}
	for _, n := range nodes {
		s.Stages[n.Stage]++
	}
	if s.Machines, err = d.Machines(ctx); err != nil {
		return s, err
	}
	if s.Mounts, err = d.Mounts(ctx); err != nil {
		return s, err
	}
	active, err := rollout.Active(now.state)
	if err != nil {
		return s, err
	}
	for i := range active {
		s.Rollouts = append(s.Rollouts, d.rolled(now, &active[i]))
	}
	d.mu.Lock()
	for _, p := range d.captures {
		s.Capturing = append(s.Capturing, p)
	}
	d.mu.Unlock()
	for _, p := range d.wrong.All(ctx) {
		s.Problems = append(s.Problems, control.Problem{About: p.About.String(), Text: p.Text, Hint: p.Hint, Since: p.Since.Round(time.Second)})
	}
	return s, nil
}

func (d *daemon) coordStatus(ctx context.Context, now *declared) control.Coord {
	d.hasStarted(ctx)
	c := control.Coord{Kind: "embedded", Revision: now.state.Revision}
	if len(d.config.Endpoints) > 0 {
		c.Kind = "external"
	}
	_, err := d.reachable(ctx)
	if c.OK = err == nil; err != nil {
		c.Error = err.Error()
	}
	return c
}

func (d *daemon) disks() []control.Disk {
	var fs unix.Statfs_t
	if unix.Statfs(d.config.Data, &fs) != nil {
		return nil
	}
	size := uint64(fs.Bsize)
	return []control.Disk{{
		Path: d.config.Data, Bytes: fs.Blocks * size, BytesFree: fs.Bavail * size, Files: fs.Files, FilesFree: fs.Ffree,
	}}
}

// addSources lets the list of problems ask everything here that can tell some at any time.
func (d *daemon) addSources() {
	for _, s := range []problems.Source{
		d.stateProblems, d.serverProblems, d.bootProblems, d.diskProblems, d.imageProblems, d.rolloutProblems, d.nodeProblems,
		d.pushProblems, d.machineProblems,
	} {
		d.wrong.Add(s)
	}
}

// stateProblems tells what is wrong with the description and the shared state.
func (d *daemon) stateProblems(ctx context.Context) []problems.Problem {
	var list []problems.Problem
	if now := d.declared(); now.problem != "" {
		list = append(list, problems.Problem{
			About: problems.Of(problems.KindDescription), Text: now.problem, Hint: "the server follows the one before",
		})
	}
	if _, lost := d.reachable(ctx); lost != nil {
		d.mu.Lock()
		since := d.coordSince
		d.mu.Unlock()
		list = append(list, problems.Problem{
			About: problems.Of(problems.KindSharedState), Text: lost.Error(), Hint: d.coordHint(lost), Since: since,
		})
	}
	return list
}

func (d *daemon) serverProblems(context.Context) []problems.Problem {
	if me, ok := d.cluster().Server(d.server); !ok || sameSockets(me, d.listening) {
		return nil
	}
	return []problems.Problem{{
		About: problems.Subject{Kind: problems.KindServer, Name: string(d.server)}, Hint: "restart it",
		Text: "its addresses or ports in the description are others than those it listens on",
	}}
}

// bootProblems tells which programs for nodes are not installed on this server.
func (d *daemon) bootProblems(context.Context) []problems.Problem {
	now := d.declared()
	me, ok := now.cluster.Server(d.server)
	if !ok || !me.Has(cluster.RoleImage) {
		return nil
	}
	about := problems.Of(problems.KindBoot)
	var list []problems.Problem
	if loaders := delivery.LoadersIn(d.config.Loaders); !loaders.Any() {
		list = append(list, problems.Problem{
			About: about, Text: "firmware gets no loader: no iPXE program is in " + loaders.Dir(),
			Hint: "apt-get install ipxe, or dim serve --loaders DIRECTORY",
		})
	}
	asked := map[string]bool{}
	for _, n := range now.cluster.Nodes {
		if arch := n.Image.Arch; !asked[arch] {
			asked[arch] = true
			if err := d.assets.installed(arch); err != nil {
				list = append(list, problems.Problem{
					About: about, Text: "nodes cannot boot: " + err.Error(), Hint: "make build in DIM's sources leaves it in bin",
				})
			}
		}
	}
	return list
}

// sameSockets reports whether two descriptions of a server amount to the same sockets.
func sameSockets(a, b *cluster.Server) bool {
	return slices.Equal(addresses(a), addresses(b)) && a.Ports == b.Ports && a.DHCP == b.DHCP
}

func (d *daemon) diskProblems(context.Context) []problems.Problem {
	var list []problems.Problem
	for _, disk := range d.disks() {
		if disk.BytesFree*100 < disk.Bytes*lowDisk {
			list = append(list, problems.Problem{
				About: problems.Subject{Kind: problems.KindDisk, Name: disk.Path},
				Text:  fmt.Sprintf("%d of %d bytes free", disk.BytesFree, disk.Bytes),
				Hint:  "a node that writes gets \"no space left on device\" when it is full",
			})
		}
	}
	return list
}

// imageProblems tells which images nodes cannot boot.
func (d *daemon) imageProblems(ctx context.Context) []problems.Problem {
	images, err := d.Images(ctx)
	if err != nil {
		return nil
	}
	var list []problems.Problem
	for _, im := range images {
		switch {
		case im.Nodes == 0:
		case im.Newest == nil:
			list = append(list, problems.Problem{
				About: problems.Image(im.Name), Text: "it has no version yet", Hint: "dim image capture " + im.Name,
			})
		case im.Newest.Problem != "":
			list = append(list, problems.Problem{
				About: problems.Image(im.Name), Text: "its newest version cannot boot: " + im.Newest.Problem,
			})
		}
	}
	return list
}

func (d *daemon) rolloutProblems(context.Context) []problems.Problem {
	active, err := rollout.Active(d.declared().state)
	if err != nil {
		return []problems.Problem{{About: problems.Subject{Kind: problems.KindRollout}, Text: err.Error()}}
	}
	var list []problems.Problem
	for i := range active {
		if r := &active[i]; r.State == rollout.Paused {
			list = append(list, problems.Problem{
				About: problems.Subject{Kind: problems.KindRollout, Name: strconv.Itoa(r.ID)}, Text: "paused: " + r.Reason, Since: r.Since,
				Hint: fmt.Sprintf("dim rollout status %d, then resume, undo or stop it", r.ID),
			})
		}
	}
	return list
}

// nodeProblems tells which boots do not get on.
func (d *daemon) nodeProblems(context.Context) []problems.Problem {
	now := d.declared()
	var list []problems.Problem
	for _, n := range now.cluster.Nodes {
		about := problems.Node(n.Name)
		if s := d.node(now, n); s.Problem != "" && d.wrong.Text(about) == "" {
			list = append(list, problems.Problem{About: about, Text: s.Stage + ": " + s.Problem, Since: s.Since})
		}
	}
	return list
}

// machineProblems tells which machines ask for a boot and are not in the description.
func (d *daemon) machineProblems(ctx context.Context) []problems.Problem {
	machines, err := d.Machines(ctx)
	if err != nil {
		return nil
	}
	var list []problems.Problem
	for _, m := range machines {
		if time.Since(m.Last) > strangerFor {
			continue
		}
		list = append(list, problems.Problem{
			About: problems.Subject{Kind: problems.KindMachine, Name: m.MAC}, Text: "asks for a boot and is not answered: " + m.Asked,
			Since: m.First, Hint: "if it is a node, write its MAC into the description",
		})
	}
	return list
}
