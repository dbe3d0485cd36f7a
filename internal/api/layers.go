package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"dim/internal/cluster"
	"dim/internal/cluster/nodeset"
	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/layer"
	"dim/internal/layers"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// Check implements control.Backend.
func (api *API) Check(_ context.Context, set string) ([]control.CheckResult, error) {
	now := api.Follow.Now()
	nodes := now.Cluster.Nodes
	if set != "" {
		var err error
		if nodes, err = now.Select(set); err != nil {
			return nil, err
		}
	}
	list := []control.CheckResult{}
	for _, n := range nodes {
		for _, r := range api.replicasOf(n) {
			c, err := layers.Of(r).Check()
			if err != nil {
				return list, fmt.Errorf("check %s: %w", n.Name, err)
			}
			list = append(list, checked(&c))
		}
	}
	return list, nil
}

// replicasOf returns the replicas of n that are served here: of its present image and of former ones.
func (api *API) replicasOf(n *cluster.Node) []*replica.Replica {
	var list []*replica.Replica
	for _, im := range api.Follow.Cluster().Images {
		if r, ok := api.Set.Find(replica.ReplicaTree(string(n.Name), string(im.Name))); ok {
			list = append(list, r)
		}
	}
	return list
}

func checked(c *layers.Checked) control.CheckResult {
	out := control.CheckResult{Node: c.Node, Image: c.Image, Entries: c.Entries, Bytes: c.Bytes, Saved: c.Saved}
	for _, p := range c.Problems {
		out.Problems = append(out.Problems, control.LayerProblem{
			Path: control.Path(p.Path), Text: p.Text, Repairable: p.Repairable,
		})
	}
	return out
}

// replicaOf returns the replica of a node's present image. The error is a control.Error when this server has none.
func (api *API) replicaOf(node string) (*replica.Replica, error) {
	if served, ok := api.Serving.Node(cluster.NodeName(node)); ok {
		return served.Replica, nil
	}
	if _, ok := api.Follow.Cluster().Node(cluster.NodeName(node)); !ok {
		return nil, noSuchNode(node)
	}
	return nil, control.Errorf(control.NotFound, "node %s: this server has no replica of it", node).
		WithHint("dim node show " + node + " tells its servers; ask there")
}

// Saved implements control.Backend.
func (api *API) Saved(_ context.Context, node string) ([]control.SavedEntry, error) {
	r, err := api.replicaOf(node)
	if err != nil {
		return nil, err
	}
	list, err := layers.Of(r).Saved()
	return savedList(layers.Of(r), list), err
}

func savedList(of layers.Layer, list []layer.SetAside) []control.SavedEntry {
	out := make([]control.SavedEntry, len(list))
	for i := range list {
		out[i] = saved(of, &list[i])
	}
	return out
}

func saved(of layers.Layer, a *layer.SetAside) control.SavedEntry {
	return control.SavedEntry{
		Path: "/" + control.Path(a.Path), Stamp: a.ID(), Time: a.Stamp.UTC(), Kind: a.What(),
		Type: typeName(a.Type), Size: a.Size, Entries: a.Entries, Why: a.Why, Image: a.Image,
		Conflicts: a.Conflicts, Expires: of.Expires(a.Stamp).UTC().Truncate(time.Second),
	}
}

// typeName returns the name of a type for people; "" for none.
func typeName(t vfs.Type) string {
	names := map[vfs.Type]image.Type{
		vfs.Regular: image.Regular, vfs.Directory: image.Directory, vfs.Symlink: image.Symlink,
		vfs.CharDevice: image.CharDevice, vfs.BlockDevice: image.BlockDevice, vfs.FIFO: image.FIFO,
	}
	if t == vfs.Socket {
		return "socket"
	}
	if n, ok := names[t]; ok {
		return n.String()
	}
	return ""
}

// Restore implements control.Backend.
func (api *API) Restore(_ context.Context, node string, q control.RestoreRequest) ([]control.RestoredEntry, error) {
	r, err := api.replicaOf(node)
	if err != nil {
		return nil, err
	}
	list, err := layers.Of(r).Restore(layers.RestoreOptions{
		Path: string(q.Path), From: q.From, To: string(q.To), Dry: q.DryRun,
	})
	out := make([]control.RestoredEntry, len(list))
	for i, b := range list {
		out[i] = control.RestoredEntry{
			Saved: saved(layers.Of(r), &b.Saved), Path: "/" + control.Path(b.Path), Displaced: b.Displaced,
		}
		if !q.DryRun {
			api.Log.Info("a set-aside copy came back", "node", node, "path", "/"+b.Path, "stamp", b.Saved.ID())
		}
	}
	if errors.Is(err, layers.ErrNotSaved) {
		return nil, control.Errorf(control.NotFound, "%v", err).WithHint("dim node saved " + node + " lists what is")
	}
	api.Residents.Push.Wake(cluster.NodeName(node))
	return out, err
}

// Forget implements control.Backend.
func (api *API) Forget(_ context.Context, node string, q control.ForgetRequest) ([]control.SavedEntry, error) {
	r, err := api.replicaOf(node)
	if err != nil {
		return nil, err
	}
	list, err := layers.Of(r).Forget(layers.ForgetOptions{
		Path: string(q.Path), From: q.From, Before: q.Before, Dry: q.DryRun,
	})
	if err == nil && !q.DryRun && len(list) > 0 {
		api.Log.Info("set-aside copies removed", "node", node, "count", len(list))
	}
	return savedList(layers.Of(r), list), err
}

// NodeChanges implements control.Backend.
func (api *API) NodeChanges(_ context.Context, node string, yield func(control.Change) bool) error {
	r, err := api.replicaOf(node)
	if err != nil {
		return err
	}
	list, err := layers.Of(r).Diff("")
	if err != nil {
		return err
	}
	for _, o := range list {
		c := control.Change{
			Path: "/" + o.Path, Kind: control.ChangeKind(o.Kind), Type: typeName(o.Type), Size: o.Size, Was: o.Was,
			What: o.Attrs,
		}
		if o.Kind != layers.Changed {
			c.Was = 0
		}
		if !yield(c) {
			return nil
		}
	}
	return nil
}

// Reset implements control.Backend.
func (api *API) Reset(_ context.Context, node string, q control.ResetRequest) ([]control.SavedEntry, error) {
	r, err := api.replicaOf(node)
	if err != nil {
		return nil, err
	}
	if len(q.Paths) == 0 && !q.DryRun && !q.Force && api.Liveness.State(cluster.NodeName(node)).MayRun {
		return nil, control.Errorf(control.Conflict,
			"reset %s: it may be running: what it wrote would vanish from under its services", node).
			WithHint("switch it off first, name the paths, or add --force and boot it again afterwards")
	}
	paths := make([]string, len(q.Paths))
	for i, p := range q.Paths {
		paths[i] = string(p)
	}
	list, err := layers.Of(r).Reset(layers.ResetOptions{Paths: paths, Dry: q.DryRun})
	if err == nil && !q.DryRun && len(list) > 0 {
		api.Log.Info("a node's own files were set aside", "node", node, "count", len(list), "stamp", list[0].ID())
	}
	api.Residents.Push.Wake(cluster.NodeName(node))
	return savedList(layers.Of(r), list), err
}

// CheckReplicas checks the replicas in a directory that no daemon has open. set is a node set of names alone, or empty
// for all.
func CheckReplicas(dir, set string) ([]control.CheckResult, error) {
	var names []string
	if set != "" {
		var err error
		if names, err = nodeset.Expand(set, nodeset.Options{}); err != nil {
			return nil, control.Errorf(control.Invalid, "%v", err).
				WithHint("without a daemon there are no groups: name the nodes")
		}
	}
	list, err := layers.CheckDir(dir)
	if err != nil {
		return nil, err
	}
	out := []control.CheckResult{}
	for i := range list {
		switch c := &list[i]; {
		case c.Node == "" && len(c.Problems) == 0:
		case c.Node != "" && names != nil && !slices.Contains(names, c.Node):
		default:
			out = append(out, checked(c))
		}
	}
	return out, nil
}
