package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"dim/internal/cluster"
	"dim/internal/cluster/nodeset"
	"dim/internal/control"
	"dim/internal/layers"
	"dim/internal/replica"
)

// Check implements control.Backend.
func (d *daemon) Check(_ context.Context, set string) ([]control.CheckResult, error) {
	now := d.declared()
	nodes := now.cluster.Nodes
	if set != "" {
		var err error
		if nodes, err = selectNodes(now.cluster, set); err != nil {
			return nil, err
		}
	}
	list := []control.CheckResult{}
	for _, n := range nodes {
		for _, r := range d.replicasOf(n) {
			c, err := layers.Of(r).Check()
			if err != nil {
				return list, fmt.Errorf("check %s: %w", n.Name, err)
			}
			list = append(list, checked(&c))
		}
	}
	return list, nil
}

// replicasOf returns the replicas of n that are served here, of its present image and of others.
func (d *daemon) replicasOf(n *cluster.Node) []*replica.Replica {
	var list []*replica.Replica
	for _, im := range d.cluster().Images {
		if r, ok := d.set.Find(replica.ReplicaTree(string(n.Name), string(im.Name))); ok {
			list = append(list, r)
		}
	}
	return list
}

func checked(c *layers.Checked) control.CheckResult {
	out := control.CheckResult{Node: c.Node, Image: c.Image, Entries: c.Entries, Bytes: c.Bytes, Saved: c.Saved}
	for _, p := range c.Problems {
		out.Problems = append(out.Problems, control.LayerProblem{Path: control.Path(p.Path), Text: p.Text, Repairable: p.Mends})
	}
	return out
}

// CheckReplicas checks the replicas in a data directory on which no daemon runs, and keeps one from starting meanwhile. set is a node set of
// names alone, or empty for all.
func CheckReplicas(data, set string) ([]control.CheckResult, error) {
	dir := layout(data).replicas()
	if _, err := os.Stat(filepath.Join(data, "lock")); errors.Is(err, fs.ErrNotExist) {
		return nil, control.Errorf(control.Unavailable, "no daemon has run on %s", data)
	}
	var names []string
	if set != "" {
		var err error
		if names, err = nodeset.Expand(set, nodeset.Options{}); err != nil {
			return nil, control.Errorf(control.Invalid, "%v", err).WithHint("without a daemon there are no groups: name the nodes")
		}
	}
	lock, err := lockData(data)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	list, err := layers.CheckDir(dir)
	if err != nil {
		return nil, err
	}
	out := []control.CheckResult{}
	for i := range list {
		if list[i].Node == "" && len(list[i].Problems) == 0 || list[i].Node != "" && names != nil && !slices.Contains(names, list[i].Node) {
			continue
		}
		out = append(out, checked(&list[i]))
	}
	return out, nil
}
