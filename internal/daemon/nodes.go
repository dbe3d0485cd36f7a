package daemon

import (
	"context"
	"slices"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/layers"
	"dim/internal/problems"
)

// Nodes implements control.Backend.
func (d *daemon) Nodes(_ context.Context, set string) ([]control.Node, error) {
	now := d.declared()
	nodes := now.cluster.Nodes
	if set != "" {
		var err error
		if nodes, err = selectNodes(now.cluster, set); err != nil {
			return nil, err
		}
	}
	list := make([]control.Node, 0, len(nodes))
	for _, n := range nodes {
		list = append(list, d.node(now, n))
	}
	return list, nil
}

// Node implements control.Backend.
func (d *daemon) Node(_ context.Context, name string) (control.Node, error) {
	now := d.declared()
	n, ok := now.cluster.Node(cluster.NodeName(name))
	if !ok {
		return control.Node{}, control.Errorf(control.NotFound, "node %s: there is none of that name", name).WithHint("dim node ls lists the nodes")
	}
	out := d.node(now, n)
	out.Details = d.details(n)
	out.Details.Push = d.pushed(n)
	if x := d.exports.node(n.Name); x != nil {
		saved, err := layers.Of(x.fs).Saved()
		if err != nil {
			return out, err
		}
		out.Details.Saved = len(saved)
		if out.Details.Usage, err = x.usage(); err != nil {
			return out, err
		}
		holding, err := x.fs.QuotaUse()
		if err != nil {
			return out, err
		}
		out.Details.Quota = control.QuotaUsage(holding)
		snapshots, err := layers.Snapshots(d.set, name)
		if err != nil {
			return out, err
		}
		for _, s := range snapshots {
			sum := &out.Details.Snapshots
			sum.Count, sum.Bytes, sum.Copied = sum.Count+1, sum.Bytes+s.Bytes, sum.Copied+s.Copied
		}
	}
	return out, nil
}

func (d *daemon) node(now *declared, n *cluster.Node) control.Node {
	card := n.Boot()
	wanted, next := now.follows(n)
	out := control.Node{
		Name: string(n.Name), Index: n.Index, Image: string(n.Image.Name), Wanted: wanted.String(),
		Address: card.Address.String(), MAC: card.MAC.String(), Problem: d.wrong.Text(problems.Node(n.Name)),
	}
	if !next.IsZero() {
		out.Next = next.String()
	}
	if x := d.exports.node(n.Name); x != nil {
		out.Version = x.fs.Version().Number
	}
	s := d.liveness.State(n.Name)
	out.Stage, out.Since, out.Text, out.LastCall = string(s.Stage), s.Since, s.Detail, s.LastCall
	if s.Error != "" {
		out.Problem = s.Error
	}
	return out
}

func (d *daemon) details(n *cluster.Node) *control.NodeDetails {
	out := &control.NodeDetails{
		Servers: []string{}, Groups: []string{}, Position: n.Position, Files: []string{}, Append: n.Image.Kernel.Append, Durable: string(n.Image.Durability), Stages: []control.Stage{},
	}
	for _, s := range n.Servers {
		out.Servers = append(out.Servers, string(s.Name))
	}
	for _, g := range n.Groups {
		out.Groups = append(out.Groups, g.Name)
	}
	for _, card := range n.Interfaces {
		out.Interfaces = append(out.Interfaces, control.Interface{
			Name: card.Name, Network: card.Network.Name, Address: card.Address.String(), MAC: card.MAC.String(),
		})
	}
	if x := d.exports.node(n.Name); x != nil {
		for _, p := range x.paths {
			out.Files = append(out.Files, "/"+p)
		}
		slices.Sort(out.Files)
	}
	for _, e := range d.liveness.State(n.Name).Events {
		out.Stages = append(out.Stages, stage(e))
	}
	return out
}

func stage(e boot.Event) control.Stage {
	text := e.Detail
	if e.Error != "" {
		text = e.Error
	}
	return control.Stage{Name: string(e.Stage), Time: e.Time, Text: text}
}

// Machines implements control.Backend.
func (d *daemon) Machines(context.Context) ([]control.Machine, error) {
	list := []control.Machine{}
	for _, m := range d.machines.List() {
		asked := m.VendorClass
		for _, part := range []string{m.UserClass, m.HostName, m.Reason} {
			if part != "" {
				asked += ", " + part
			}
		}
		list = append(list, control.Machine{MAC: m.MAC.String(), First: m.First, Last: m.Last, Count: m.Count, Asked: asked})
	}
	return list, nil
}
