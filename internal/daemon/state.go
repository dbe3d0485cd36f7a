package daemon

import (
	"context"
	"errors"
	"time"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/layer"
	"dim/internal/layers"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// replicaOf finds the replica of a node's present image, which this server must serve.
func (d *daemon) replicaOf(node string) (*replica.Replica, error) {
	if x := d.exports.node(cluster.NodeName(node)); x != nil {
		return x.fs, nil
	}
	if _, ok := d.cluster().Node(cluster.NodeName(node)); !ok {
		return nil, control.Errorf(control.NotFound, "node %s: there is none of that name", node).WithHint("dim node ls lists the nodes")
	}
	return nil, control.Errorf(control.NotFound, "node %s: this server has no replica of it", node).
		WithHint("dim node show " + node + " tells its servers; ask there")
}

// rulesOf is what the description says of the state of n's replica of im.
func rulesOf(n *cluster.Node, im *cluster.Image) replica.Rules {
	quota := n.Quota(im)
	rules := replica.Rules{SavedFor: im.SavedFor, QuotaBytes: quota.Bytes, QuotaFiles: quota.Files}
	if s := im.Snapshots; s != nil {
		rules.Snapshots, rules.SnapshotsFor, rules.SnapshotCopy = s.Keep, s.For, s.Copy
	}
	return rules
}

// Saved implements control.Backend.
func (d *daemon) Saved(_ context.Context, node string) ([]control.SavedEntry, error) {
	r, err := d.replicaOf(node)
	if err != nil {
		return nil, err
	}
	list, err := layers.Of(r).Saved()
	return savedList(list), err
}

func savedList(list []layer.SetAside) []control.SavedEntry {
	out := make([]control.SavedEntry, len(list))
	for i := range list {
		out[i] = saved(&list[i])
	}
	return out
}

func saved(a *layer.SetAside) control.SavedEntry {
	return control.SavedEntry{
		Path: "/" + control.Path(a.Path), Stamp: a.ID(), Time: a.Stamp.UTC(), Kind: string(a.Kind), Type: typeName(a.Type), Size: a.Size,
		Entries: a.Entries, Why: a.Why, Image: a.Image,
	}
}

// typeName is what a person calls a type of object; "" for none.
func typeName(t vfs.Type) string {
	names := map[vfs.Type]image.Type{
		vfs.Regular: image.Regular, vfs.Directory: image.Directory, vfs.Symlink: image.Symlink, vfs.CharDevice: image.CharDevice,
		vfs.BlockDevice: image.BlockDevice, vfs.FIFO: image.FIFO,
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
func (d *daemon) Restore(_ context.Context, node string, q control.RestoreRequest) ([]control.RestoredEntry, error) {
	r, err := d.replicaOf(node)
	if err != nil {
		return nil, err
	}
	list, err := layers.Of(r).Restore(layers.RestoreOptions{Path: string(q.Path), From: q.From, To: string(q.To), Dry: q.DryRun})
	out := make([]control.RestoredEntry, len(list))
	for i, b := range list {
		out[i] = control.RestoredEntry{Saved: saved(&b.Saved), Path: "/" + control.Path(b.Path), Displaced: b.Displaced}
		if !q.DryRun {
			d.log.Info("a set-aside copy came back", "node", node, "path", "/"+b.Path, "stamp", b.Saved.ID())
		}
	}
	if errors.Is(err, layers.ErrNotSaved) {
		return nil, control.Errorf(control.NotFound, "%v", err).WithHint("dim node saved " + node + " lists what is")
	}
	d.push.Wake(cluster.NodeName(node))
	return out, err
}

// Forget implements control.Backend.
func (d *daemon) Forget(_ context.Context, node string, q control.ForgetRequest) ([]control.SavedEntry, error) {
	r, err := d.replicaOf(node)
	if err != nil {
		return nil, err
	}
	list, err := layers.Of(r).Forget(layers.ForgetOptions{Path: string(q.Path), From: q.From, Before: q.Before, Dry: q.DryRun})
	if err == nil && !q.DryRun && len(list) > 0 {
		d.log.Info("set-aside copies removed", "node", node, "entries", len(list))
	}
	return savedList(list), err
}

// expireEvery is how often what was set aside is looked through for what is too old.
const expireEvery = time.Hour

// expire removes what was set aside long ago, until ctx ends.
func (d *daemon) expire(ctx context.Context) error {
	tick := time.NewTicker(expireEvery)
	defer tick.Stop()
	for {
		if _, err := layers.Expire(d.set, d.log); err != nil {
			d.log.Error("what was set aside long ago cannot be removed", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// NodeChanges implements control.Backend.
func (d *daemon) NodeChanges(_ context.Context, node string, yield func(control.Change) bool) error {
	r, err := d.replicaOf(node)
	if err != nil {
		return err
	}
	list, err := layers.Of(r).Diff("")
	if err != nil {
		return err
	}
	for _, o := range list {
		c := control.Change{Path: "/" + o.Path, Kind: control.ChangeKind(o.Kind), Type: typeName(o.Type), Size: o.Size, Was: o.Was, What: o.Attrs}
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
func (d *daemon) Reset(_ context.Context, node string, q control.ResetRequest) ([]control.SavedEntry, error) {
	r, err := d.replicaOf(node)
	if err != nil {
		return nil, err
	}
	if len(q.Paths) == 0 && !q.DryRun && !q.Force && d.liveness.State(cluster.NodeName(node)).MayRun {
		return nil, control.Errorf(control.Conflict, "reset %s: it may be running: what it wrote would vanish from under its services", node).
			WithHint("switch it off first, name the paths, or add --force and boot it again afterwards")
	}
	paths := make([]string, len(q.Paths))
	for i, p := range q.Paths {
		paths[i] = string(p)
	}
	list, err := layers.Of(r).Reset(layers.ResetOptions{Paths: paths, Dry: q.DryRun})
	if err == nil && !q.DryRun && len(list) > 0 {
		d.log.Info("a node's own files were set aside", "node", node, "entries", len(list), "stamp", list[0].ID())
	}
	d.push.Wake(cluster.NodeName(node))
	return savedList(list), err
}
