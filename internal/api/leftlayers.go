package api

import (
	"context"
	"fmt"

	"dim/internal/cluster"
	"dim/internal/cluster/nodeset"
	"dim/internal/control"
	"dim/internal/leftover"
)

// RemoveLayers implements control.Backend.
func (api *API) RemoveLayers(_ context.Context, q control.RemoveLayersRequest) ([]control.RemovedLayer, error) {
	var names []string
	if q.Nodes == "" && !q.DryRun {
		return nil, control.Errorf(control.Invalid, "remove files of nodes: no nodes are named")
	}
	if q.Nodes != "" {
		var err error
		if names, err = nodeset.Expand(q.Nodes, nodeset.Options{}); err != nil {
			return nil, control.Errorf(control.Invalid, "%v", err).
				WithHint("nodes that the description no longer has are in no group: name them")
		}
	}
	now := api.Follow.Cluster()
	for _, name := range names {
		if _, declared := now.Node(cluster.NodeName(name)); declared {
			return nil, control.Errorf(control.Conflict, "remove files of %s: the description has this node", name).
				WithHint("remove it from the description first; dim node reset " + name + " sets aside what it wrote")
		}
	}
	declared := func(node string) bool {
		_, ok := now.Node(cluster.NodeName(node))
		return ok
	}
	list, err := leftover.List(api.Set, declared, names)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 && q.Nodes != "" {
		return nil, control.Errorf(control.NotFound, "no files of %s are left", q.Nodes).
			WithHint("dim node rm --dry-run lists the nodes of which files are left")
	}
	out := []control.RemovedLayer{}
	for _, l := range list {
		if !q.DryRun {
			if err := api.Set.RemoveLayer(l.Node, l.Image); err != nil {
				return out, err
			}
			api.Log.Info("files of a removed node are gone", "node", l.Node, "image", l.Image, "bytes", l.Bytes)
		}
		out = append(out, control.RemovedLayer{
			Server: string(api.Server), Node: l.Node, Image: l.Image, Entries: l.Entries, Bytes: l.Bytes,
		})
	}
	return out, nil
}

// Accept implements control.Backend.
func (api *API) Accept(
	ctx context.Context, node string, q control.AcceptRequest,
) (out control.AcceptedLayer, err error) {
	n, ok := api.Follow.Cluster().Node(cluster.NodeName(node))
	if !ok {
		return out, noSuchNode(node)
	}
	im := string(n.Image.Name)
	copy, doubtful := api.Set.Doubt(node, im)
	if !doubtful {
		return out, control.Errorf(control.Conflict, "accept the files of %s: they are not in doubt", node)
	}
	v, known := api.Set.Followed(node, im)
	if !known {
		if v, err = api.Follow.Now().Version(n); err != nil {
			return out, err
		}
	}
	out = control.AcceptedLayer{Node: node, Image: im, Version: v.Ref().String(), Copy: copy}
	has, err := leftover.Of(api.Set, node, im)
	if out.Entries, out.Bytes = has.Entries, has.Bytes; err != nil || q.DryRun {
		return out, err
	}
	if err := api.Set.Accept(node, im); err != nil {
		return out, err
	}
	api.Log.Warn("the files of a node are accepted after damage to the journal", "node", node, "version", v.Ref())
	api.Serving.Reconcile(ctx)
	if _, still := api.Set.Doubt(node, im); still {
		return out, fmt.Errorf("serve %s: dim node show %[1]s tells why it is not served", node)
	}
	return out, nil
}
