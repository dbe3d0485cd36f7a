package daemon

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"dim/internal/boot"
	"dim/internal/cluster"
)

// silent is the stage of a node that ran, has been quiet for a while and answers no ping: it is off, has crashed, or its network is down.
const silent = "silent"

const (
	// quiet is after how long without a sign of life a node that runs is asked. An idle one makes calls more often than that.
	quiet = time.Minute
	// askedAgain is how soon a node that has not answered is asked again.
	askedAgain = 10 * time.Second
	// unanswered is after how many pings in a row a node counts as silent.
	unanswered = 3
	// pulseEvery and pulseMost keep what asks a whole cluster that has lost its power below the size of the kernel's table of neighbours,
	// 1,024 by default: one that is full would cost the nodes that live.
	pulseEvery = 2 * time.Second
	pulseMost  = 64
)

// pulse knows of nodes that ran which of them answer. A node that is silent is not asked again; whatever it does by itself shows that it is back.
type pulse struct {
	ping func(map[netip.Addr]cluster.NodeName) ([]netip.Addr, error)
	now  func() time.Time

	mu    sync.Mutex
	beats map[cluster.NodeName]beat
}

// beat is what asking one node has brought.
type beat struct {
	asked    time.Time
	answered time.Time
	missed   int // pings in a row
}

func newPulse() *pulse {
	return &pulse{ping: ping[cluster.NodeName], now: time.Now, beats: map[cluster.NodeName]beat{}}
}

// silent reports whether node, which gave its last sign of life by itself at that time, has answered no ping since.
func (p *pulse) silent(node cluster.NodeName, heard time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.beats[node]
	return b.missed >= unanswered && b.asked.After(heard)
}

// due reports whether node is to be asked.
func (p *pulse) due(node cluster.NodeName, heard time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	b, now := p.beats[node], p.now()
	switch {
	case now.Sub(heard) < quiet || now.Sub(b.answered) < quiet:
		return false
	case b.asked.Before(heard):
		delete(p.beats, node)
		return true
	}
	return b.missed < unanswered && now.Sub(b.asked) >= askedAgain
}

// ask pings nodes and notes which answer.
func (p *pulse) ask(nodes map[netip.Addr]cluster.NodeName) error {
	at := p.now()
	up, err := p.ping(nodes)
	if err != nil {
		return err // nobody was asked
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range nodes {
		b := p.beats[name]
		p.beats[name] = beat{asked: at, missed: b.missed + 1}
	}
	for _, addr := range up {
		p.beats[nodes[addr]] = beat{asked: at, answered: at}
	}
	return nil
}

// feel asks the nodes of this server that ran and are quiet, until ctx ends.
func (d *daemon) feel(ctx context.Context) error {
	tick := time.NewTicker(pulseEvery)
	defer tick.Stop()
	from, failing := 0, false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var nodes map[netip.Addr]cluster.NodeName
		if nodes, from = d.quietNodes(from); len(nodes) == 0 {
			continue
		}
		err := d.pulse.ask(nodes)
		if err != nil && !failing {
			d.log.Warn("nodes cannot be asked whether they are up", "error", err)
		}
		failing = err != nil
	}
}

// quietNodes returns the next few nodes that are to be asked, and where to go on.
func (d *daemon) quietNodes(from int) (map[netip.Addr]cluster.NodeName, int) {
	nodes, found := d.cluster().Nodes, map[netip.Addr]cluster.NodeName{}
	for i := range nodes {
		n := nodes[(from+i)%len(nodes)]
		if e, ok := d.tracker.Last(n.Name); ok && e.Stage == boot.StageRunning && d.pulse.due(n.Name, d.heard(n.Name)) {
			if found[n.Address()] = n.Name; len(found) == pulseMost {
				return found, from + i + 1
			}
		}
	}
	return found, from
}

// heard returns when a node gave a sign of life by itself last.
func (d *daemon) heard(node cluster.NodeName) time.Time {
	e, _ := d.tracker.Last(node)
	last := e.Last
	if x := d.exports.node(node); x != nil {
		if call := time.Unix(0, x.lastCall.Load()); call.After(last) {
			last = call
		}
	}
	if said, ok := d.push.Get(node); ok && said.Heard.After(last) {
		last = said.Heard
	}
	return last
}

// isSilent reports whether a node that ran is silent now.
func (d *daemon) isSilent(node cluster.NodeName) bool { return d.pulse.silent(node, d.heard(node)) }
