package daemon

import (
	"context"

	"dim/internal/boot"
	"dim/internal/boot/delivery"
	"dim/internal/cluster"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/problems"
	"dim/internal/replica"
	"dim/internal/rollout"
)

// target returns the version that a node's replica is to show now, which is not always the one that it follows: it has booted already what it was
// to follow from its next boot on and the shared state does not know yet; or it is in the middle of a boot, and keeps what it was
// given the kernel of. held tells that it is the latter. It is called with adopting held.
func (d *daemon) target(now *declared, n *cluster.Node) (v image.Version, held bool, err error) {
	v, err = now.version(n)
	_, next := now.follows(n)
	boots := !next.IsZero()
	x := d.exports.node(n.Name)
	if !boots && x != nil && err == nil && x.from.number == v.Number && x.from.version == v.Digest {
		return v, false, nil // as before
	}
	booting := d.liveness.State(n.Name).Booting
	if !boots && !booting {
		return v, false, err
	}
	shows, known := d.set.Followed(string(n.Name), string(n.Image.Name))
	if !known || err == nil && same(shows, v) {
		return v, false, err
	}
	if w, ok := now.state.Resolve(next); boots && ok && same(shows, w) {
		d.booted.Store(true)
		return w, false, nil
	}
	if booting {
		return shows, true, nil
	}
	return v, false, err
}

func same(a, b image.Version) bool { return a.Number == b.Number && a.Digest == b.Digest }

// payloads implements delivery.Payloads.
type payloads struct{ d *daemon }

// Begin implements delivery.Payloads.
func (p payloads) Begin(ctx context.Context, n *cluster.Node, event boot.Event) (delivery.Payload, error) {
	p.d.pin(n)
	out, err := p.Current(ctx, n)
	if err == nil {
		p.d.liveness.Report(n.Name, event)
		p.d.saveBoots()
	}
	return out, err
}

// Current implements delivery.Payloads.
func (p payloads) Current(ctx context.Context, n *cluster.Node) (delivery.Payload, error) {
	v, err := p.d.shows(n)
	if err != nil {
		return delivery.Payload{}, err
	}
	return p.d.assets.payload(ctx, v, n.Image)
}

// pin makes the root of a node that begins to boot show the version that the node follows from this boot on. From now on until it
// runs the node shows that version, because its kernel is of it.
func (d *daemon) pin(n *cluster.Node) {
	now := d.declared()
	ref, next := now.follows(n)
	boots := !next.IsZero()
	if boots {
		ref = next
	}
	v, ok := now.state.Resolve(ref)
	x := d.exports.node(n.Name)
	if !ok || x == nil || same(x.fs.Version(), v) {
		return
	}
	d.adopting.Lock()
	defer d.adopting.Unlock()
	if d.declared() != now {
		return // it was decided anew just now; the node keeps what it shows, and that is what it will boot
	}
	x, move, err := d.place(newPlan(now), n, v)
	if err == nil && move != nil {
		var held []replica.Held
		if held, err = d.move(context.Background(), []replica.Move{*move}); len(held) > 0 {
			err = heldError(held[0])
		}
	}
	if err != nil {
		d.wrong.Set(problems.Node(n.Name), err)
		d.unsettled.Store(true)
		return
	}
	if x != nil {
		d.exports.replace(append(d.kept(now), x))
	}
	if boots {
		d.log.Info("node boots the version that it was to change to", "node", n.Name, "version", v.Ref().String())
		d.booted.Store(true)
	}
}

// promote tells the shared state which nodes have booted what they were to follow from their next boot on.
func (d *daemon) promote(ctx context.Context) {
	shared, err := d.reachable(ctx)
	if err != nil {
		return // they go on showing it
	}
	d.booted.Store(false)
	now, booted := d.declared(), coord.Refs{}
	for name := range now.state.Next {
		n, ok := now.cluster.Node(cluster.NodeName(name))
		if !ok {
			continue
		}
		_, next := now.follows(n)
		v, known := now.state.Resolve(next)
		if x := d.exports.node(n.Name); known && x != nil && same(x.fs.Version(), v) {
			booted[name] = next
		}
	}
	if len(booted) == 0 {
		return
	}
	if err = shared.Decide(ctx, func(s coord.State) (coord.Change, error) { return rollout.Booted(s, booted), nil }); err == nil {
		err = d.refresh(ctx, shared)
	}
	if err != nil {
		d.booted.Store(true)
		d.log.Warn("the shared state does not know yet what nodes have booted", "error", err)
	}
}
