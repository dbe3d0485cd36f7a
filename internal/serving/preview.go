package serving

import (
	"context"
	"fmt"

	"dim/internal/cluster"
	"dim/internal/image"
	"dim/internal/layer"
	"dim/internal/replica"
)

// Preview returns what a switch of nodes to version v would set aside of what they have of their own. Nodes without a
// root here are left out.
func (s *Server) Preview(ctx context.Context, nodes []*cluster.Node, v image.Version) ([]layer.SetAside, error) {
	p := newPlan(s.Declared.Now())
	var moves []replica.Move
	for _, n := range nodes {
		r, ok := s.Set.Find(treeOf(n))
		if !ok || !s.Serves(n) {
			continue
		}
		spec, err := s.spec(p, n, n.Image, v)
		if err != nil {
			return nil, fmt.Errorf("render files of %s: %w", n.Name, err)
		}
		moves = append(moves, replica.Move{
			Replica: r, Version: v, Files: spec.Files, Keep: spec.Keep, Shared: spec.Shared, Rules: spec.Rules,
		})
	}
	return s.Set.Preview(ctx, moves)
}
