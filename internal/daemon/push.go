package daemon

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"dim/internal/caller"
	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/problems"
	"dim/internal/push"
	"dim/internal/replica"
)

// caller returns the node that calls, by its address. Any user of a node has its address; what is believed comes from its superuser.
func (d *daemon) caller(r *http.Request) (cluster.NodeName, error) {
	peer, err := caller.OfRequest(r)
	if err != nil {
		return "", err
	}
	who, _ := caller.Resolve(d.cluster(), peer)
	switch {
	case !who.Superuser:
		return "", fmt.Errorf("port %d is one that any user may have: calls must come from below 1024, as the superuser's do", peer.Remote.Port())
	case who.Node == nil:
		return "", fmt.Errorf("%s is no node's address", who.Peer.Remote.Addr())
	case !d.mine(who.Node):
		return "", fmt.Errorf("another server serves %s", who.Node.Name)
	}
	return who.Node.Name, nil
}

// seenAt notes a sign of life of a node's process.
func (d *daemon) seenAt(node cluster.NodeName, at time.Time) { d.liveness.Seen(node, at) }

// changesSince returns what has changed in a node's replica.
func (d *daemon) changesSince(node cluster.NodeName, image string, stamp int64) (push.Changes, error) {
	if n, ok := d.cluster().Node(node); ok && image == "" {
		image = string(n.Image.Name)
	}
	r, ok := d.set.Find(replica.ReplicaTree(string(node), image))
	if !ok {
		return push.Changes{}, fmt.Errorf("%s has no replica of image %q here", node, image)
	}
	l := r.ChangedDirs(stamp)
	return push.Changes{Image: image, Stamp: l.Stamp, Dirs: l.Dirs}, nil
}

// mountedOn returns the paths of n's replica on which it has mounted something: what it has said last, also before this server was started, else what
// the description says of nodes that run. When it boots anew, what it had mounted is gone.
func (d *daemon) mountedOn(n *cluster.Node) []string {
	said, ok := d.push.Mounts(n.Name)
	state := d.liveness.State(n.Name)
	if !ok || said.Image != string(n.Image.Name) || state.BootedSince(said.Called) {
		if len(n.Image.Mounts) == 0 || !state.Running {
			return nil
		}
		return n.Image.Mounts
	}
	var paths []string
	for _, m := range said.Mounts {
		paths = append(paths, m.Path)
	}
	return paths
}

// hold notes the replicas that stay for a mount. They are tried again, the others are not: their exports are done.
func (d *daemon) hold(held []replica.Held, list []*export, failed map[problems.Subject]error) {
	for _, h := range held {
		failed[problems.Node(h.Node)] = heldError(h)
		for _, x := range list {
			if x.node == cluster.NodeName(h.Node) && !x.old {
				x.from = madeFrom{}
			}
		}
	}
}

// heldError is a replica that does not follow for a mount, in words for a person.
type heldError replica.Held

func (h heldError) Error() string {
	return fmt.Sprintf("its replica stays as it is: a mount there is on /%s, which changes; unmount it, or reboot the node", h.Path)
}

// pushed returns what is known of the process on n that hears of switches; nil when it was not heard.
func (d *daemon) pushed(n *cluster.Node) *control.Push {
	said, ok := d.push.Status(n.Name)
	if !ok {
		return nil
	}
	out := &control.Push{
		State: control.PushLost, Reported: said.Called, Memory: said.Memory, Omitted: said.Omitted, Mounts: []control.NodeMount{}, Stale: []control.Process{},
		Restart: restartOf(said.Stale),
	}
	if said.Connected(time.Now()) {
		out.State = control.PushBehind
		if r, ok := d.set.Find(replica.ReplicaTree(string(n.Name), said.Image)); ok && r.ChangedDirs(said.Stamp).Stamp == said.Stamp {
			out.State = control.PushCurrent
		}
	}
	for _, m := range said.Mounts {
		out.Mounts = append(out.Mounts, control.NodeMount{Path: "/" + m.Path, Type: m.Type})
	}
	for _, p := range said.Stale {
		out.Stale = append(out.Stale, control.Process{PID: p.PID, Name: p.Name, Unit: p.Unit, Path: "/" + p.Path, More: p.More})
	}
	return out
}

// restartOf returns what has to be restarted until nothing uses replaced files: units, and processes that belong to none.
func restartOf(stale []push.Process) []string {
	what := []string{}
	for _, p := range stale {
		name := p.Unit
		switch {
		case p.PID == 1:
			name = "init"
		case name == "":
			name = fmt.Sprintf("%s (pid %d)", p.Name, p.PID)
		}
		if !slices.Contains(what, name) {
			what = append(what, name)
		}
	}
	slices.Sort(what)
	return what
}

// restarts returns what a node itself says is to be restarted there. It is exact when all of its processes were looked through after the last
// switch.
func (d *daemon) restarts(node string) (what []string, exact bool) {
	n, ok := d.cluster().Node(cluster.NodeName(node))
	if !ok {
		return nil, false
	}
	p := d.pushed(n)
	if p == nil || p.State != control.PushCurrent || p.Omitted > 0 {
		return nil, false
	}
	return p.Restart, true
}

// pushProblems lists the nodes whose process has gone while they run on: their kernels keep for long what they know.
func (d *daemon) pushProblems(context.Context) []problems.Problem {
	var list []problems.Problem
	now := time.Now()
	for _, n := range d.cluster().Nodes {
		said, ok := d.push.Status(n.Name)
		state := d.liveness.State(n.Name)
		if !ok || said.Connected(now) || state.BootedSince(said.Called) {
			continue
		}
		if state.LastCall.Before(said.Called.Add(push.LostAfter)) {
			continue // it is off
		}
		list = append(list, problems.Problem{
			About: problems.Node(n.Name), Since: said.Called,
			Text: "its process that hears of switches is gone: changes may take an hour to show there",
			Hint: "reboot it; or on the node, after each switch: find / -xdev -type d -exec stat --cached=never {} + >/dev/null",
		})
	}
	return list
}
