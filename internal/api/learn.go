package api

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"

	"dim/internal/cluster"
	"dim/internal/cluster/learned"
	"dim/internal/control"
)

// Learn implements control.Backend.
func (api *API) Learn(ctx context.Context, r control.LearnRequest) (out control.LearnResult, err error) {
	if shared, err := api.Follow.Change(ctx); err == nil {
		err = api.Follow.Refresh(ctx, shared)
		if err != nil && !r.DryRun {
			return out, err
		}
	}
	now := api.Follow.Now()
	in := now.State.Description
	if in == nil {
		return out, control.Errorf(control.NotFound, "no cluster description has been applied")
	}
	if r.Revision != 0 && r.Revision != in.Revision {
		return out, control.Errorf(control.Conflict, "learn: somebody has applied another description in the meantime").
			WithHint("run the command again")
	}
	l := learning{cluster: now.Cluster, facts: now.Cluster.Learned(), out: &out}
	l.nodes = now.Cluster.Nodes
	if r.Nodes != "" {
		if l.nodes, err = now.Select(r.Nodes); err != nil {
			return out, err
		}
	}
	out = control.LearnResult{DryRun: r.DryRun, Revision: in.Revision, Bound: []control.Binding{}, Left: []string{}}
	if err := l.decide(&r); err != nil {
		return out, err
	}
	a := control.ApplyRequest{Description: described(in), Origin: r.Origin, Learned: true, DryRun: r.DryRun}
	setLearned(&a.Description, learned.Format(l.facts))
	done, err := api.Apply(ctx, a)
	if e, ok := errors.AsType[*control.Error](err); ok && e.Code == control.Held {
		err = control.Errorf(control.Conflict, "%s", e.Message).
			WithHint("dim node learn --undo takes back the learned MACs of several nodes together")
	}
	if err == nil {
		out.Revision = done.Revision
	}
	return out, err
}

// learning decides what a LearnRequest binds.
type learning struct {
	cluster *cluster.Cluster
	nodes   []*cluster.Node      // those that the request is about
	facts   []learned.Fact       // all of the cluster
	bound   []*cluster.Interface // the cards to which this request has given a hardware address
	out     *control.LearnResult
}

func (l *learning) decide(r *control.LearnRequest) error {
	switch r.Mode {
	case control.LearnUndo:
		return l.undo()
	case control.LearnRebind:
		return l.rebind(r)
	case control.LearnFree:
		return l.learn(r)
	}
	return control.Errorf(control.Invalid, "learn: the mode %q is not known", r.Mode)
}

// learn gives each machine to the first node on its network with a card of its kind that has no hardware address yet.
func (l *learning) learn(r *control.LearnRequest) error {
	for i := range r.Machines {
		m := &r.Machines[i]
		mac, err := l.unknown(m)
		if err != nil {
			return err
		}
		if n, card := l.free(m, mac); n != nil {
			l.bind(n, card, mac)
			continue
		}
		l.out.Left = append(l.out.Left, m.MAC)
	}
	if len(l.out.Bound) > 0 {
		return nil
	}
	return control.Errorf(control.NotFound, "learn: no node without a MAC is left for these machines").
		WithHint("dim node rebind NODE MAC gives a node another machine")
}

// rebind gives a machine to a node in place of the one that it has.
func (l *learning) rebind(r *control.LearnRequest) error {
	if len(l.nodes) != 1 || len(r.Machines) != 1 {
		return control.Errorf(control.Invalid, "rebind: %d nodes and %d machines: must be one node and one machine",
			len(l.nodes), len(r.Machines))
	}
	n, m := l.nodes[0], &r.Machines[0]
	mac, err := l.unknown(m)
	if err != nil {
		return err
	}
	card := cardFor(n, m, mac, func(*cluster.Interface) bool { return true })
	switch {
	case card != nil:
		l.bind(n, card, mac)
		return nil
	case len(mac) == lenGUID:
		return control.Errorf(control.Conflict,
			"rebind %s: machine %s asks over InfiniBand, and %s has no such card there", n.Name, m.MAC, n.Name).
			WithHint("declare it: <interface name=\"ib0\" type=\"infiniband\" …>")
	}
	return control.Errorf(control.Conflict, "rebind %s: machine %s asks on network %s, and %s boots on network %s",
		n.Name, m.MAC, m.Network, n.Name, n.Boot().Network.Name).
		WithHint("connect it to network " + n.Boot().Network.Name)
}

// undo gives nodes the hardware addresses that the description states.
func (l *learning) undo() error {
	kept := []learned.Fact{}
	for _, f := range l.facts {
		about := func(n *cluster.Node) bool { return string(n.Name) == f.Node }
		if !slices.ContainsFunc(l.nodes, about) {
			kept = append(kept, f)
			continue
		}
		l.out.Bound = append(l.out.Bound, control.Binding{
			Node: f.Node, Interface: f.Interface, MAC: f.Stated.String(), Was: f.MAC.String(),
		})
	}
	l.facts = kept
	if len(l.out.Bound) > 0 {
		return nil
	}
	return control.Errorf(control.NotFound, "learn: no MAC of these nodes was learned").
		WithHint("dim cluster log lists what was learned, and dim cluster undo takes it back")
}

// unknown returns the hardware address of a machine that is no node yet.
func (l *learning) unknown(m *control.Machine) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(m.MAC)
	if err != nil || len(mac) != lenGUID && (len(mac) != 6 || mac[0]&1 != 0) || slices.Max(mac) == 0 {
		return nil, control.Errorf(control.Invalid,
			"learn %q: neither the MAC of an Ethernet card nor the GUID of a port", m.MAC).
			WithHint("write six bytes, such as 52:54:00:4d:00:01, or the eight of the GUID of an InfiniBand port")
	}
	bound := slices.ContainsFunc(l.out.Bound, func(b control.Binding) bool { return b.MAC == mac.String() })
	if n, card, ok := l.cluster.NodeByMAC(mac); ok {
		return nil, control.Errorf(control.Conflict, "learn %s: it is %s of node %s", mac, card.Name, n.Name).
			WithHint("dim node rebind gives that node another machine; then this one is free")
	} else if bound {
		return nil, control.Errorf(control.Invalid, "learn %s: it is given twice", mac)
	}
	return mac, nil
}

// lenGUID is the length in bytes of the GUID of a port, by which a client on InfiniBand is known.
const lenGUID = 8

// free returns the first node with a card that a machine can become and that has no hardware address yet, and the card.
func (l *learning) free(m *control.Machine, mac net.HardwareAddr) (*cluster.Node, *cluster.Interface) {
	isFree := func(card *cluster.Interface) bool { return card.MAC == nil && !slices.Contains(l.bound, card) }
	for _, n := range l.nodes {
		if card := cardFor(n, m, mac, isFree); card != nil {
			return n, card
		}
	}
	return nil, nil
}

// cardFor returns the first card of a node that suits and that a machine can become: for Ethernet the one from which
// the node boots, for InfiniBand any. It is on the network on which the machine asks, if that is known. nil: there is
// none.
func cardFor(
	n *cluster.Node, m *control.Machine, mac net.HardwareAddr, suits func(*cluster.Interface) bool,
) *cluster.Interface {
	cards := n.Interfaces[:1]
	if len(mac) == lenGUID {
		cards = n.Interfaces[1:]
	}
	for _, card := range cards {
		isKind := card == n.Boot() || card.InfiniBand && card.Bond == "" && card.Network != nil
		if isKind && (m.Network == "" || m.Network == card.Network.Name) && suits(card) {
			return card
		}
	}
	return nil
}

// bind adds the fact that a card of a node has a hardware address. If the description states it, there is nothing to
// learn.
func (l *learning) bind(n *cluster.Node, card *cluster.Interface, mac net.HardwareAddr) {
	l.bound = append(l.bound, card)
	f := learned.Fact{Node: string(n.Name), Interface: card.Name, MAC: mac, Stated: card.MAC}
	same := func(x learned.Fact) bool { return x.Node == f.Node && x.Interface == f.Interface }
	if i := slices.IndexFunc(l.facts, same); i >= 0 {
		f.Stated = l.facts[i].Stated
	}
	if bytes.Equal(f.Stated, mac) {
		l.facts = slices.DeleteFunc(slices.Clone(l.facts), same)
	} else {
		l.facts = learned.With(l.facts, f)
	}
	l.out.Bound = append(l.out.Bound, control.Binding{
		Node: f.Node, Interface: f.Interface, MAC: mac.String(), Was: card.MAC.String(),
	})
}
