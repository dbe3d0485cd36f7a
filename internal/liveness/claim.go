package liveness

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"dim/internal/boot"
	"dim/internal/cluster"
)

// Connected reports whether a machine with one of the addresses has acknowledged something after the given time, on a
// connection that its superuser opened. It may block for a few seconds.
type Connected func(ctx context.Context, addrs []netip.Addr, since time.Time) bool

const (
	// claimAge is the age at which a claim is decided that nobody has asked about: the loader of a node that boots asks
	// before.
	claimAge = 2 * time.Second
	// claimBatch bounds how many claims are decided at a time.
	claimBatch = 256
)

// Boots reports whether a node that asks for boot files boots: it does unless it runs. A claim is decided first, which
// takes a few seconds if the node had connections that are silent now. A node that runs and has made no claim does not
// boot.
func (t *Tracker) Boots(ctx context.Context, n *cluster.Node) bool {
	c := t.claim(n.Name)
	if c == nil {
		return t.Stage(n.Name) != boot.StageRunning
	}
	var addrs []netip.Addr
	for _, card := range n.Interfaces {
		if card.Address.IsValid() {
			addrs = append(addrs, card.Address)
		}
	}
	alive := t.answers(ctx, addrs, c.Time)
	if ctx.Err() != nil {
		return false
	}
	return t.decide(n.Name, c, alive)
}

// claim returns a node's claim, nil when there is none.
func (t *Tracker) claim(node cluster.NodeName) *boot.Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.nodes[node]; r != nil {
		return r.claim
	}
	return nil
}

// decide ends a claim, if it is still there, and reports whether the node boots.
func (t *Tracker) decide(node cluster.NodeName, c *boot.Event, alive bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.nodes[node]
	switch {
	case r == nil || r.claim == nil || !r.claim.Time.Equal(c.Time):
		return r != nil && !r.runs() // it was decided meanwhile
	case alive || r.lastCall.After(c.Time):
		r.claim = nil
		t.log.Warn("boot request not believed: the node still runs", "node", node)
		return false
	}
	r.begin()
	t.changed[node] = true
	return true
}

// decideClaims decides claims that nobody has asked about, and returns when that is done.
func (t *Tracker) decideClaims(ctx context.Context, nodes []*cluster.Node) {
	var wg sync.WaitGroup
	defer wg.Wait()
	count := 0
	for _, n := range nodes {
		if c := t.claim(n.Name); c == nil || t.now().Sub(c.Time) < claimAge {
			continue
		}
		if count++; count > claimBatch {
			return
		}
		wg.Go(func() { t.Boots(ctx, n) })
	}
}
