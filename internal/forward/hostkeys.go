package forward

import (
	"context"
	"fmt"

	"dim/internal/control"
)

// HostKeys implements control.Backend: it asks all servers that have nodes.
func (b *Backend) HostKeys(ctx context.Context) ([]control.HostKey, error) {
	if !b.isHead() {
		return b.Backend.HostKeys(ctx)
	}
	var others []share
	c := b.Follow.Now().Cluster
	for _, s := range c.Servers {
		if s.Name != b.Server && len(c.NodesOf(s.Name)) > 0 {
			others = append(others, share{server: s.Name})
		}
	}
	look, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	return gather(others,
		func() ([]control.HostKey, error) { return b.Backend.HostKeys(ctx) },
		func(s share) ([]control.HostKey, error) { return b.at(s.server).HostKeys(look) },
		func(s share, err error) control.HostKey {
			return control.HostKey{Problem: fmt.Sprintf("server %s: %v", s.server, err)}
		})
}
