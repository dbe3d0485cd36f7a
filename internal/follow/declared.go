package follow

import (
	"errors"
	"fmt"
	"slices"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/rollout"
)

// Declared is the declared state as this server understands it. It is never changed, only replaced.
type Declared struct {
	State   coord.State
	Cluster *cluster.Cluster
	Digest  image.Digest // of the description that Cluster was parsed from
	Problem string       // why the description in State is not the one followed; "": it is

	rollouts *rollout.Records // nil: see Rollouts
}

// Rollouts returns the rollouts of d.State.
func (d *Declared) Rollouts() *rollout.Records {
	if d.rollouts == nil {
		return new(rollout.Records).Of(d.State) // the zero Records has nothing to take over
	}
	return d.rollouts
}

// With returns what is declared if a change of the state leads to s. The description stays.
func (d *Declared) With(s coord.State) *Declared {
	return &Declared{State: s, Cluster: d.Cluster, Digest: d.Digest, Problem: d.Problem, rollouts: d.Rollouts().Of(s)}
}

// NodesOf returns the nodes whose roots a server serves; see Serves.
func (d *Declared) NodesOf(server cluster.ServerName) []*cluster.Node {
	first := d.Cluster.NodesOf(server)
	if len(d.State.Layers) == 0 {
		return first
	}
	return slices.DeleteFunc(slices.Clone(first), func(n *cluster.Node) bool { return !d.Serves(server, n) })
}

// Follows returns what n's replica follows now, and from the node's next boot on (the zero Ref: the same).
func (d *Declared) Follows(n *cluster.Node) (now, next image.Ref) {
	return d.State.Follows(string(n.Name), string(n.Image.Name))
}

// OtherHeads returns the heads that have joined, but for one, in order of name. One that the description has no more
// takes part until it is removed.
func (d *Declared) OtherHeads(except cluster.ServerName) (list []cluster.ServerName) {
	for name, joined := range d.State.Servers {
		server := cluster.ServerName(name)
		s, declared := d.Cluster.Server(server)
		if server != except && slices.Contains(joined.Roles, string(cluster.RoleHead)) &&
			(!declared || s.Has(cluster.RoleHead)) {
			list = append(list, server)
		}
	}
	slices.Sort(list)
	return list
}

// Version returns the version that n follows now.
func (d *Declared) Version(n *cluster.Node) (image.Version, error) {
	r, _ := d.Follows(n)
	v, ok := d.State.Resolve(r)
	if !ok {
		return v, fmt.Errorf("image %s has no version yet: run `dim image capture %s` on the head", r, r.Image)
	}
	return v, nil
}

// Missing tells why n has no version, unless its image was just not captured yet.
func (d *Declared) Missing(n *cluster.Node) error {
	r, _ := d.Follows(n)
	if r.Number == 0 && r.Tag == "" {
		return nil
	}
	return fmt.Errorf("serve %s: there is no %s", n.Name, r)
}

// Resolve returns the version that a reference names as a person writes it. The error is a control.Error.
func (d *Declared) Resolve(ref string) (image.Version, error) {
	r, err := image.ParseRef(ref)
	if err != nil {
		return image.Version{}, control.Errorf(control.Invalid, "%v", err)
	}
	v, ok := d.State.Resolve(r)
	if ok {
		return v, nil
	}
	what := "no such version: " + ref
	if !d.knows(r.Image) {
		what = "no such image: " + r.Image
	}
	return v, control.Errorf(control.NotFound, "%s", what).WithHint(d.versionsHint(r.Image))
}

// knows reports whether the description or a version has an image with this name.
func (d *Declared) knows(name string) bool {
	_, captured := d.State.Images[name]
	_, described := d.Cluster.Image(cluster.ImageName(name))
	return captured || described
}

// versionsHint tells how to find or make versions of an image.
func (d *Declared) versionsHint(name string) string {
	_, known := d.Cluster.Image(cluster.ImageName(name))
	switch _, captured := d.State.Images[name]; {
	case captured:
		return "dim image log " + name + " lists them"
	case known:
		return "dim image capture " + name + " makes the first"
	}
	return "dim image ls lists the images"
}

// Select is Select with d's description.
func (d *Declared) Select(set string) ([]*cluster.Node, error) { return Select(d.Cluster, set) }

// Select returns the nodes of a node set, at least one. The error is a control.Error; it tells a text that is not a
// node set from one that names what does not exist.
func Select(c *cluster.Cluster, set string) ([]*cluster.Node, error) {
	nodes, err := c.Select(set)
	e, failed := errors.AsType[*cluster.SelectError](err)
	switch {
	case failed && e.Syntax:
		return nil, control.Errorf(control.Invalid, "%s", e.Message).WithHint(e.Hint)
	case failed:
		return nil, control.Errorf(control.NotFound, "%s", e.Message).WithHint(e.Hint)
	case err == nil && len(nodes) == 0:
		return nil, control.Errorf(control.NotFound, "no node is in %q", set).WithHint("@* is all nodes")
	}
	return nodes, err
}

// kept is what a restart is to find: the state with the description that is followed. A description that cannot be
// followed does not keep the server from starting. The older revision makes the next start look at it again.
func (d *Declared) kept(old *Declared) coord.State {
	s := d.State
	if d.Problem == "" && s.Description != nil {
		return s
	}
	s.Description, s.Revision = old.description(), old.State.Revision
	return s
}

// description returns the description that d.Cluster was parsed from.
func (d *Declared) description() *coord.Description {
	if in := d.State.Description; in != nil && in.Digest == d.Digest {
		return in
	}
	made := Describe(d.Cluster)
	return &made
}

// empty reports whether nothing was declared in s yet, or all was lost.
func empty(s coord.State) bool { return s.Description == nil && len(s.Images) == 0 }
