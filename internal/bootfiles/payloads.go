package bootfiles

import (
	"context"

	"dim/internal/boot"
	"dim/internal/boot/delivery"
	"dim/internal/cluster"
	"dim/internal/image"
)

// Roots decides which versions nodes boot. serving.Server implements it.
type Roots interface {
	// Begin switches the root of a node that begins to boot to the version of this boot.
	Begin(context.Context, *cluster.Node)
	// Boots returns the version whose kernel a node is to boot.
	Boots(*cluster.Node) (image.Version, error)
}

// Payloads implements delivery.Payloads: what nodes boot is what their roots show.
type Payloads struct {
	Builder *Builder
	Roots   Roots
	Started func(cluster.NodeName, boot.Event) // makes durable that a node boots
	Ready   <-chan struct{}                    // closed when the nodes have their roots
}

// await waits until the nodes have their roots.
func (p Payloads) await(ctx context.Context) error {
	select {
	case <-p.Ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Begin implements delivery.Payloads. Until Started has returned the node does not count as booting, and a switch may
// move its root while the payload is built. Then the payload is made again, of the version that the root is held at
// now.
func (p Payloads) Begin(ctx context.Context, n *cluster.Node, event boot.Event) (delivery.Payload, error) {
	if err := p.await(ctx); err != nil {
		return delivery.Payload{}, err
	}
	p.Roots.Begin(ctx, n)
	for {
		v, err := p.Roots.Boots(n)
		if err != nil {
			return delivery.Payload{}, err
		}
		out, err := p.Builder.payload(ctx, v, n.Image)
		if err != nil {
			return out, err
		}
		p.Started(n.Name, event)
		if now, err := p.Roots.Boots(n); err != nil || now.Digest == v.Digest {
			return out, err
		}
	}
}

// Current implements delivery.Payloads.
func (p Payloads) Current(ctx context.Context, n *cluster.Node) (delivery.Payload, error) {
	if err := p.await(ctx); err != nil {
		return delivery.Payload{}, err
	}
	v, err := p.Roots.Boots(n)
	if err != nil {
		return delivery.Payload{}, err
	}
	return p.Builder.payload(ctx, v, n.Image)
}
