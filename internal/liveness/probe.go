package liveness

import (
	"context"
	"net/netip"
	"time"

	"dim/internal/boot"
	"dim/internal/cluster"
	"dim/internal/periodic"
)

const (
	// probeAfter is how long a node that runs may be quiet before it is probed. An idle one makes calls more often than
	// that.
	probeAfter = time.Minute
	// probeRetry is how soon a node that has not answered is probed again.
	probeRetry = 10 * time.Second
	// probeTries is how many probes in a row a node may miss before it counts as silent.
	probeTries = 3
	// probeInterval and probeBatch bound how fast a whole cluster that has lost its power is probed: below the size of
	// the kernel's table of neighbours, 1,024 by default. A full table would cost the nodes that live.
	probeInterval = 2 * time.Second
	probeBatch    = 64
)

// probe is the outcome of a node's last probes.
type probe struct {
	sent     time.Time
	answered time.Time
	missed   int      // in a row
	neighbor neighbor // at the last one that was missed
}

// cause returns why a node is silent, as far as it is known.
func (p *probe) cause() string {
	switch p.neighbor {
	case neighborAnswers:
		return "made no call since, and answers ARP but no ping: a firewall of its own, or its kernel hangs"
	case neighborSilent:
		return "made no call since, and answers neither ping nor ARP: it is off, unplugged or has crashed"
	}
	return "made no call since, and answers no ping"
}

// silent reports whether a node that was last seen at that time has missed all its probes since.
func (p *probe) silent(seen time.Time) bool { return p.missed >= probeTries && p.sent.After(seen) }

// due reports whether a node that was last seen at that time is to be probed. A silent one is not probed again:
// whatever it does by itself shows that it is back.
func (p *probe) due(seen, now time.Time) bool {
	switch {
	case now.Sub(seen) < probeAfter || now.Sub(p.answered) < probeAfter:
		return false
	case p.sent.Before(seen):
		return true
	}
	return p.missed < probeTries && now.Sub(p.sent) >= probeRetry
}

// Probe probes nodes that ran and are quiet, and decides claims, until ctx ends. nodes returns all that there are.
func (t *Tracker) Probe(ctx context.Context, nodes func() []*cluster.Node) error {
	from, failing := 0, false
	return periodic.Run(ctx, probeInterval, func(ctx context.Context) {
		t.decideClaims(ctx, nodes())
		t.countBooting()
		t.checkClocks(nodes())
		var batch map[netip.Addr]cluster.NodeName
		if batch, from = t.quiet(nodes(), from); len(batch) == 0 {
			return
		}
		err := t.probe(batch)
		if err != nil && !failing {
			t.log.Warn("nodes cannot be probed", "error", err)
		}
		failing = err != nil
	})
}

// countBooting counts the nodes that boot.
func (t *Tracker) countBooting() {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.booting = 0
	for _, r := range t.nodes {
		if len(r.events) > 0 && givenKernel(r.last()) && now.Sub(r.last().Last) < bootTimeout {
			t.booting++
		}
	}
}

// quiet returns the next few nodes that are to be probed, and where to go on.
func (t *Tracker) quiet(nodes []*cluster.Node, from int) (batch map[netip.Addr]cluster.NodeName, next int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	batch = map[netip.Addr]cluster.NodeName{}
	for i := range nodes {
		n := nodes[(from+i)%len(nodes)]
		r := t.nodes[n.Name]
		if r == nil || !r.started() || !r.probe.due(r.lastSeen(), now) {
			continue
		}
		if batch[n.Address()] = n.Name; len(batch) == probeBatch {
			return batch, from + i + 1
		}
	}
	return batch, from
}

// probe probes nodes and notes which answer.
func (t *Tracker) probe(batch map[netip.Addr]cluster.NodeName) error {
	addrs := make([]netip.Addr, 0, len(batch))
	for a := range batch {
		addrs = append(addrs, a)
	}
	sent := t.now()
	up, err := t.ping(addrs)
	if err != nil {
		return err // no probe was sent
	}
	var table map[netip.Addr]neighbor
	if len(up) < len(batch) {
		if table, err = t.neighbors(); err != nil {
			t.log.Debug("neighbors not read", "error", err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for addr, name := range batch {
		r := t.nodes[name]
		if r == nil {
			continue // forgotten meanwhile
		}
		p := &r.probe
		if p.sent.Before(r.lastSeen()) {
			p.missed = 0 // what was missed before the node was seen again
		}
		p.sent, p.neighbor = sent, table[addr]
		p.missed++
	}
	for _, addr := range up {
		if r := t.nodes[batch[addr]]; r != nil {
			r.probe.answered, r.probe.missed = sent, 0
		}
	}
	return nil
}

// Answering returns which of nodes are up: it has made an NFS call after the given time, or answers an echo request
// now. A node in the middle of a boot is not. Nodes of which nothing is known are asked, too. After an error the answer
// is incomplete.
func (t *Tracker) Answering(nodes []*cluster.Node, after time.Time) (up map[cluster.NodeName]bool, err error) {
	up = map[cluster.NodeName]bool{}
	quiet := map[netip.Addr][]cluster.NodeName{}
	for _, n := range nodes {
		switch s := t.State(n.Name); {
		case s.Stage != boot.StageRunning && s.Stage != Silent && s.Stage != Off:
		case s.LastCall.After(after):
			up[n.Name] = true
		default:
			quiet[n.Address()] = append(quiet[n.Address()], n.Name)
		}
	}
	if len(quiet) == 0 {
		return up, nil
	}
	addrs := make([]netip.Addr, 0, len(quiet))
	for a := range quiet {
		addrs = append(addrs, a)
	}
	answers, err := t.ping(addrs)
	for _, a := range answers {
		for _, name := range quiet[a] {
			up[name] = true
		}
	}
	return up, err
}
