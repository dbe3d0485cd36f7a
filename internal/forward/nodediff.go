package forward

import (
	"context"
	"slices"

	"dim/internal/control"
	"dim/internal/control/client"
	"dim/internal/nodediff"
)

// NodeDiff implements control.Backend. Of nodes of two servers each server tells what its node has.
func (b *Backend) NodeDiff(ctx context.Context, x, y string) (control.NodeDiff, error) {
	serverX, _ := b.serverOf(x)
	serverY, _ := b.serverOf(y)
	if serverX == serverY {
		return ask(b, x, func() (control.NodeDiff, error) { return b.Backend.NodeDiff(ctx, x, y) },
			func(c *client.Client) (control.NodeDiff, error) { return c.NodeDiff(ctx, x, y) })
	}
	sideX, err := b.NodeSide(ctx, x)
	if err != nil {
		return control.NodeDiff{}, err
	}
	sideY, err := b.NodeSide(ctx, y)
	if err != nil {
		return control.NodeDiff{}, err
	}
	contents := func(node string) nodediff.Contents {
		return func(paths []control.Path) (digests []string, err error) {
			for some := range slices.Chunk(paths, control.MaxContents) {
				part, err := b.NodeContents(ctx, node, control.ContentsRequest{Paths: some})
				if err != nil {
					return nil, err
				}
				if len(part) != len(some) {
					return nil, control.Errorf(control.Internal, "compare %s: its server has answered %d of %d paths",
						node, len(part), len(some))
				}
				digests = append(digests, part...)
			}
			return digests, nil
		}
	}
	return nodediff.Of(sideX, sideY, contents(x), contents(y))
}

// NodeSide implements control.Backend.
func (b *Backend) NodeSide(ctx context.Context, node string) (control.NodeSide, error) {
	return ask(b, node, func() (control.NodeSide, error) { return b.Backend.NodeSide(ctx, node) },
		func(c *client.Client) (control.NodeSide, error) { return c.NodeSide(ctx, node) })
}

// NodeContents implements control.Backend.
func (b *Backend) NodeContents(ctx context.Context, node string, r control.ContentsRequest) ([]string, error) {
	return ask(b, node, func() ([]string, error) { return b.Backend.NodeContents(ctx, node, r) },
		func(c *client.Client) ([]string, error) { return c.NodeContents(ctx, node, r) })
}
