package api

import (
	"context"
	"errors"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/layers"
)

// Snapshots implements control.Backend.
func (api *API) Snapshots(_ context.Context, set string) ([]control.Snapshot, error) {
	now := api.Follow.Now()
	nodes := now.Cluster.Nodes
	if set != "" {
		var err error
		if nodes, err = now.Select(set); err != nil {
			return nil, err
		}
	}
	list := []control.Snapshot{}
	for _, n := range nodes {
		if !api.Serving.Serves(n) {
			continue
		}
		snapshots, err := layers.Snapshots(api.Set, string(n.Name))
		if err != nil {
			return nil, err
		}
		for i := range snapshots {
			list = append(list, snapshotOf(&snapshots[i]))
		}
		for _, r := range api.replicasOf(n) {
			if text := r.SnapshotProblem(); text != "" {
				v := r.Version()
				list = append(list, control.Snapshot{
					Node: string(n.Name), Image: v.Image, Versions: []string{v.Ref().String()}, Problem: text,
				})
			}
		}
	}
	return list, nil
}

func snapshotOf(s *layers.Snapshot) control.Snapshot {
	out := control.Snapshot{
		Node: s.Node, Image: s.Image, Stamp: s.ID(), Time: s.Stamp.UTC(), Versions: []string{}, Why: s.Why,
		Files: s.Files, Bytes: s.Bytes, Copied: s.Copied,
	}
	for _, v := range s.Over {
		out.Versions = append(out.Versions, v.Ref().String())
	}
	return out
}

// RestoreSnapshot implements control.Backend.
func (api *API) RestoreSnapshot(
	_ context.Context, node string, q control.RestoreSnapshotRequest,
) (out control.RestoredSnapshot, err error) {
	r, err := api.replicaOf(node)
	if err != nil {
		return out, err
	}
	if !q.DryRun && !q.Force && api.Liveness.State(cluster.NodeName(node)).MayRun {
		return out, control.Errorf(control.Conflict,
			"restore %s: it may be running: its services would find other files than they left", node).
			WithHint("switch it off first, or add --force and boot it again afterwards")
	}
	done, err := layers.Of(r).RestoreSnapshot(layers.RestoreSnapshotOptions{To: q.To, Dry: q.DryRun})
	if errors.Is(err, layers.ErrNoSnapshot) {
		return out, control.Errorf(control.NotFound, "restore %s: %v", node, err).
			WithHint("dim node snapshots " + node + " lists them")
	}
	if done == nil {
		return out, err
	}
	out = control.RestoredSnapshot{
		Snapshot: snapshotOf(&done.Snapshot), Undo: done.Undo, Paths: make([]control.RestoredPath, len(done.Paths)),
		Unknown: done.Unknown, Copies: done.Copies,
	}
	for i, p := range done.Paths {
		out.Paths[i] = control.RestoredPath{
			Path: "/" + control.Path(p.Path), What: p.What, Kind: string(p.Kind), Displaced: p.Displaced,
			Conflicts: p.Conflicts,
		}
	}
	if !q.DryRun {
		api.Log.Info("a node's layer was restored",
			"node", node, "stamp", out.Snapshot.Stamp, "paths", len(out.Paths))
		api.Residents.Push.Wake(cluster.NodeName(node))
	}
	return out, err
}
