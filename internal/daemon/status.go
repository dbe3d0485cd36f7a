package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/control"
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
		Disks: d.disks(), Services: d.services,
	}
	if now.state.Description != nil {
		s.Applied = now.state.Description.Applied
	}
	var lost, err error
	s.Coord, lost = d.coordStatus(ctx, now)
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
	s.Problems = append(d.own(now, lost), d.problems(&s, nodes)...)
	return s, nil
}

func (d *daemon) coordStatus(ctx context.Context, now *declared) (control.Coord, error) {
	d.hasStarted(ctx)
	c := control.Coord{Kind: "embedded", Revision: now.state.Revision}
	if len(d.config.Endpoints) > 0 {
		c.Kind = "external"
	}
	_, err := d.reachable(ctx)
	if c.OK = err == nil; err != nil {
		c.Error = err.Error()
	}
	return c, err
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

// own lists what is wrong with this server itself; lost is what is wrong with the shared state.
func (d *daemon) own(now *declared, lost error) []control.Problem {
	list := []control.Problem{}
	if now.problem != "" {
		list = append(list, control.Problem{About: "description", Text: now.problem, Hint: "the server follows the one before"})
	}
	if lost != nil {
		d.mu.Lock()
		since := d.coordSince
		d.mu.Unlock()
		list = append(list, control.Problem{About: "shared state", Text: lost.Error(), Hint: d.coordHint(lost), Since: since})
	}
	if me, ok := now.cluster.Server(d.server); ok && !sameSockets(me, d.listening) {
		list = append(list, control.Problem{
			About: "server " + string(d.server), Text: "its addresses or ports in the description are others than those it listens on", Hint: "restart it",
		})
	}
	return append(list, d.missing(now)...)
}

// missing lists the programs for nodes that are not installed on this server.
func (d *daemon) missing(now *declared) []control.Problem {
	me, ok := now.cluster.Server(d.server)
	if !ok || !me.Has(cluster.RoleImage) {
		return nil
	}
	var list []control.Problem
	if dir, found := boot.FindLoaders(d.config.Loaders); !found {
		list = append(list, control.Problem{
			About: "boot", Text: "firmware gets no loader: no iPXE program is in " + dir, Hint: "apt-get install ipxe, or dim serve --loaders DIRECTORY",
		})
	}
	asked := map[string]bool{}
	for _, n := range now.cluster.Nodes {
		if arch := n.Image.Arch; !asked[arch] {
			asked[arch] = true
			if err := d.assets.installed(arch); err != nil {
				list = append(list, control.Problem{
					About: "boot", Text: "nodes cannot boot: " + err.Error(), Hint: "make build in DIM's sources leaves it in bin",
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

// problems lists what a person should know or do about what is served.
func (d *daemon) problems(s *control.Status, nodes []control.Node) []control.Problem {
	list := []control.Problem{}
	for _, disk := range s.Disks {
		if disk.BytesFree*100 < disk.Bytes*lowDisk {
			list = append(list, control.Problem{
				About: "disk " + disk.Path, Text: fmt.Sprintf("%d of %d bytes free", disk.BytesFree, disk.Bytes),
				Hint: "a node that writes gets \"no space left on device\" when it is full",
			})
		}
	}
	for _, im := range s.Images {
		if im.Newest == nil && im.Nodes > 0 {
			list = append(list, control.Problem{About: "image " + im.Name, Text: "it has no version yet", Hint: "dim image capture " + im.Name})
		}
		if im.Newest != nil && im.Newest.Problem != "" && im.Nodes > 0 {
			list = append(list, control.Problem{About: "image " + im.Name, Text: "its newest version cannot boot: " + im.Newest.Problem})
		}
	}
	for _, r := range s.Rollouts {
		if r.State == string(rollout.Paused) {
			list = append(list, control.Problem{
				About: fmt.Sprintf("rollout %d", r.ID), Text: "paused: " + r.Reason, Since: r.Since,
				Hint: fmt.Sprintf("dim rollout status %d, then resume, undo or stop it", r.ID),
			})
		}
	}
	for _, n := range nodes {
		if n.Problem != "" && d.failed("node "+n.Name) == "" {
			list = append(list, control.Problem{About: "node " + n.Name, Text: n.Stage + ": " + n.Problem, Since: n.Since})
		}
	}
	list = append(append(list, d.failureList()...), d.deaf()...)
	for _, m := range s.Machines {
		if time.Since(m.Last) > strangerFor {
			continue
		}
		list = append(list, control.Problem{
			About: "machine " + m.MAC, Text: "asks for a boot and is not answered: " + m.Asked, Since: m.First,
			Hint: "if it is a node, write its MAC into the description",
		})
	}
	return list
}

func (d *daemon) failureList() []control.Problem {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []control.Problem
	for about, f := range d.failures {
		list = append(list, control.Problem{About: about, Text: f.text, Since: f.since.Round(time.Second)})
	}
	slices.SortFunc(list, func(a, b control.Problem) int { return strings.Compare(a.About, b.About) })
	return list
}
