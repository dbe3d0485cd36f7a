package api

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/liveness"
	"dim/internal/quantity"
	"dim/internal/timeline"
)

const (
	// maxNeighbors bounds the nodes that a boot is compared with.
	maxNeighbors = 200
	// nearMAC is the largest difference between the MAC of an unknown machine and that of a node at which both can be
	// cards of one machine, which have successive MACs.
	nearMAC = 8
)

// NodeBoots implements control.Backend.
func (api *API) NodeBoots(_ context.Context, name string) (out control.NodeBoots, err error) {
	now := api.Follow.Now()
	n, ok := now.Cluster.Node(cluster.NodeName(name))
	if !ok {
		return out, noSuchNode(name)
	}
	if s := n.Server().Name; s != api.Server {
		return out, control.Errorf(control.Elsewhere, "server %s serves %s and knows its boots", s, name).
			WithHint("ask on " + string(s) + ", or on a head")
	}
	node := api.node(now, n)
	out = control.NodeBoots{Node: name, Server: string(api.Server), Stage: node.Stage}
	others, who := api.neighbors(now.Cluster, n)
	if len(others) >= timeline.MinCompared {
		out.Compared = who
	}
	var boots []timeline.Boot
	for i, b := range api.Liveness.History(n.Name) {
		boots = append(boots, timelineOf(i, b.Events, others))
		out.Boots = append(out.Boots, nodeBoot(&boots[i], b.Ended.Text))
	}
	out.Finding, out.Hint, out.Well = api.finding(n, &node, boots, compared{others, who})
	return out, nil
}

// timelineOf returns a boot of a node compared with those of others. The latest one has the index 0: if it goes on, its
// last step lasts until now.
func timelineOf(index int, events []boot.Event, others []timeline.Boot) timeline.Boot {
	var until time.Time
	if index == 0 {
		until = time.Now()
	}
	t := timeline.Of(events, until)
	t.Compare(others)
	return t
}

// neighbors returns the last complete boots of the nodes of this server that are nearest to a node in the taxonomy and
// have its image, and says which they are: "15 nodes of rack 2".
func (api *API) neighbors(c *cluster.Cluster, n *cluster.Node) (boots []timeline.Boot, who string) {
	for depth := len(c.Levels) - 1; depth >= 0; depth-- {
		boots = api.completeBoots(c, n, c.Levels[:depth])
		if len(boots) < timeline.MinCompared && depth > 0 {
			continue
		}
		var places []string
		for _, l := range c.Levels[:depth] {
			places = append(places, fmt.Sprintf("%s %d", l.Name, n.Position[l.Name]))
		}
		who = quantity.Plural(len(boots), "node") + " of " +
			cmp.Or(strings.Join(places, ", "), "image "+string(n.Image.Name))
		break
	}
	return boots, who
}

// completeBoots returns the last complete boots of other nodes of this server with the image of n and its position in
// some levels.
func (api *API) completeBoots(c *cluster.Cluster, n *cluster.Node, levels []cluster.Level) (list []timeline.Boot) {
	for _, other := range c.NodesOf(api.Server) {
		elsewhere := func(l cluster.Level) bool { return other.Position[l.Name] != n.Position[l.Name] }
		if other == n || other.Image != n.Image || slices.ContainsFunc(levels, elsewhere) {
			continue
		}
		for _, b := range api.Liveness.History(other.Name) {
			if t := timeline.Of(b.Events, time.Time{}); t.Ran && len(t.Steps) > 1 {
				list = append(list, t)
				break
			}
		}
		if len(list) == maxNeighbors {
			break
		}
	}
	return list
}

// finding says what is wrong with a node or slow in its last boot, or that nothing is.
func (api *API) finding(
	n *cluster.Node, node *control.Node, boots []timeline.Boot, with compared,
) (text, hint string, well bool) {
	if len(boots) == 0 || !boots[0].Ran || node.Stage == string(liveness.Silent) {
		if text = api.otherMAC(n, node.Since); text != "" {
			return text, "correct the MAC in the description, or add that card to the node", false
		}
	}
	switch {
	case node.Problem != "":
		return node.Problem, node.Hint, false
	case node.Stage == string(liveness.Silent):
		return "it ran, and is silent now: " + cmp.Or(node.Text, "it does not answer"), "", false
	case len(boots) == 0:
		return "it has not asked for a boot", "is it switched on, and does it boot from the network? " +
			"dim node unknown lists machines that ask and are in no description", false
	}
	last := &boots[0]
	if f, slow := last.Slowest(with.boots, with.who); slow {
		return f.Text, f.Hint, false
	}
	took := timeline.Span(last.Took)
	switch {
	case len(last.Steps) == 1 && last.Ran:
		return "it runs; its boot was not seen, because it ran before this server", "", true
	case last.Ran:
		return "it ran " + took + " after its first request", "", true
	}
	return fmt.Sprintf("it has been booting for %s, and no step has passed its time limit", took), "", true
}

// compared are the boots that others were compared with, and the nodes that they are of.
type compared struct {
	boots []timeline.Boot
	who   string
}

// otherMAC names an unknown machine that has asked since a time and whose MAC is closest to that of a card of the node,
// of all cards in the description; "" if there is none.
func (api *API) otherMAC(n *cluster.Node, since time.Time) string {
	c := api.Follow.Cluster()
	for _, m := range api.Unknown.List() {
		if _, _, known := c.NodeByMAC(m.MAC); known || len(m.MAC) != macSize || m.Last.Before(since) {
			continue
		}
		if node, card := closest(c, m.MAC); node == n {
			return fmt.Sprintf("a machine asks by DHCP from %s, which is not in the description; "+
				"closest is %s of %s, %s", m.MAC, card.Name, n.Name, card.MAC)
		}
	}
	return ""
}

// macSize is the size of the MACs that are compared: Ethernet's.
const macSize = 6

// closest returns the card whose MAC is closest to that of a machine: at most nearMAC away, or else with one other
// hexadecimal digit, as after a typing error. It returns nil if there is none.
func closest(c *cluster.Cluster, mac net.HardwareAddr) (*cluster.Node, *cluster.Interface) {
	number := binary.BigEndian.Uint64(append(make([]byte, 8-macSize), mac...))
	for d := uint64(1); d <= nearMAC; d++ {
		for _, other := range []uint64{number - d, number + d} {
			if n, card, ok := c.NodeByMAC(binary.BigEndian.AppendUint64(nil, other)[8-macSize:]); ok {
				return n, card
			}
		}
	}
	for digit := range 2 * macSize {
		for bits := byte(1); bits < 16; bits++ {
			other := slices.Clone(mac)
			other[digit/2] ^= bits << (4 * (digit % 2))
			if n, card, ok := c.NodeByMAC(other); ok {
				return n, card
			}
		}
	}
	return nil, nil
}

// nodeBoot returns what the API shows of a boot, which ended for that reason.
func nodeBoot(b *timeline.Boot, ended string) control.NodeBoot {
	out := control.NodeBoot{Began: b.Began, Took: b.Took.Seconds(), Ran: b.Ran, Ended: ended}
	for i := range b.Steps {
		s := &b.Steps[i]
		step := control.BootStep{
			Stage: string(s.Stage), Time: s.Began, After: s.Began.Sub(b.Began).Seconds(), Took: s.Took.Seconds(),
			Median: s.Median.Seconds(), Slow: s.Slow, Count: s.Count, Text: s.Text, Error: s.Error,
		}
		out.Steps = append(out.Steps, step)
	}
	return out
}
