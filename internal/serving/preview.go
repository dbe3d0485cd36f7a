package serving

import (
	"context"
	"fmt"

	"dim/internal/cluster"
	"dim/internal/image"
	"dim/internal/layer"
	"dim/internal/pkgdb"
	"dim/internal/replica"
)

// Preview is what a switch of nodes would do to what they have of their own.
type Preview struct {
	Aside []layer.SetAside
	Left  map[cluster.NodeName]string // why nodes would stay because of their packages
	Kept  map[cluster.NodeName]string // which packages would stay the nodes'
}

// Preview returns what a switch of nodes to version v would do. Nodes without a root here are left out.
func (s *Server) Preview(
	ctx context.Context, nodes []*cluster.Node, v image.Version, on pkgdb.OnConflict,
) (out Preview, err error) {
	p := newPlan(s.Declared.Now())
	out.Left, out.Kept = map[cluster.NodeName]string{}, map[cluster.NodeName]string{}
	var moves []replica.Move
	for _, n := range nodes {
		r, ok := s.Set.Find(treeOf(n))
		if !ok || !s.Serves(n) {
			continue
		}
		spec, err := s.spec(p, n, n.Image, v)
		if err != nil {
			return out, fmt.Errorf("render files of %s: %w", n.Name, err)
		}
		conflicts, err := s.packages(p, n, r, v)
		if err != nil {
			return out, err
		}
		move := replica.Move{
			Replica: r, Version: v, Files: spec.Files, Keep: spec.Keep, Shared: spec.Shared, Rules: spec.Rules,
		}
		if left := addPackages(&move, &conflicts, func() pkgdb.OnConflict { return on }); left != "" {
			out.Left[n.Name] = left
			continue
		}
		if kept := keptText(&conflicts, &move); kept != "" {
			out.Kept[n.Name] = kept
		}
		moves = append(moves, move)
	}
	out.Aside, err = s.Set.Preview(ctx, moves)
	return out, err
}
