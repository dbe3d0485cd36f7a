package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"dim/internal/cluster"
	"dim/internal/cluster/changes"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
)

// Description implements control.Backend.
func (api *API) Description(context.Context) (control.Description, error) {
	now := api.Follow.Now()
	in := now.State.Description
	if in == nil {
		return control.Description{}, control.Errorf(control.NotFound, "no cluster description has been applied")
	}
	out := control.Description{
		Main: in.Files[0].Name, Files: map[string][]byte{}, Digest: in.Digest.String(), Revision: in.Revision,
		Applied: in.Applied, Problem: now.Problem,
	}
	for _, f := range in.Files {
		out.Files[f.Name] = f.Data
	}
	return out, nil
}

// Apply implements control.Backend.
func (api *API) Apply(ctx context.Context, r control.ApplyRequest) (control.ApplyResult, error) {
	c, err := api.parse(&r.Description)
	if err != nil {
		return control.ApplyResult{}, err
	}
	now := api.Follow.Now()
	var shared *coord.Coord
	if !r.DryRun {
		if shared, err = api.Follow.Change(ctx); err != nil {
			return control.ApplyResult{}, err
		}
		if err := api.Follow.Refresh(ctx, shared); err != nil { // another server may have applied one a moment ago
			return control.ApplyResult{}, err
		}
		now = api.Follow.Now()
	}
	applied := revision(now)
	nodes := now.Left(c)
	out := control.ApplyResult{
		Cluster: c.Name, Revision: applied, DryRun: r.DryRun, Changes: changesTo(now, c, &r.Description),
		Left: leftLayers(now, c, nodes),
	}
	if r.Revision != 0 && r.Revision != applied {
		return out, control.Errorf(control.Conflict,
			"apply %s: the applied description has revision %d, not %d", r.Main, applied, r.Revision).
			WithHint("dim cluster show prints the applied one; dim cluster apply FILE --dry-run lists the differences")
	}
	refusal := refuse(now, c, &r, out.Left)
	if r.DryRun {
		if refusal != nil {
			out.Refused, out.Hint = refusal.Message, refusal.Hint
		}
		return out, nil
	}
	if refusal != nil {
		return out, refusal
	}
	out.Revision, err = put(ctx, shared, now, c)
	switch {
	case errors.Is(err, coord.ErrConflict):
		return out, control.Errorf(control.Conflict,
			"apply %s: somebody has applied another description in the meantime", r.Main).
			WithHint("dim cluster apply FILE --dry-run lists the differences to that one")
	case err != nil:
		return out, follow.APIError(err)
	}
	if err := shared.Decide(ctx, follow.Leave(c, out.Revision, nodes)); err != nil {
		return out, follow.APIError(err)
	}
	return out, api.Follow.Refresh(ctx, shared)
}

// refuse returns why a person must consent before c is applied; nil: nobody must.
func refuse(
	now *follow.Declared, c *cluster.Cluster, r *control.ApplyRequest, left []control.LeftLayers,
) *control.Error {
	if c.Name != now.Cluster.Name && !r.Force {
		return control.Errorf(control.Conflict,
			"apply %s: it describes cluster %s, and this is a server of cluster %s", r.Main, c.Name, now.Cluster.Name).
			WithHint("--dry-run lists what would change; --force applies it nevertheless")
	}
	if len(left) > 0 && !r.LeaveLayers {
		return leftError(&r.Description, left)
	}
	return nil
}

// put makes c the applied description in place of the one that is applied now. It notes first which servers have the
// layers of the nodes, so that no other server serves them whenever this is interrupted.
func put(ctx context.Context, shared *coord.Coord, now *follow.Declared, c *cluster.Cluster) (int64, error) {
	if now.State.Description != nil {
		if err := shared.Decide(ctx, follow.Claim(now.Cluster)); err != nil {
			return 0, err
		}
	}
	return shared.PutDescription(ctx, follow.Describe(c), revision(now))
}

// leftLayers groups nodes whose layers are not on the servers that c gives them to.
func leftLayers(now *follow.Declared, c *cluster.Cluster, nodes []*cluster.Node) (list []control.LeftLayers) {
	type move struct{ from, to cluster.ServerName }
	groups := map[move][]*cluster.Node{}
	var order []move
	for _, n := range nodes {
		m := move{now.LayerAt(n), n.Server().Name}
		if groups[m] == nil {
			order = append(order, m)
		}
		groups[m] = append(groups[m], n)
	}
	for _, m := range order {
		_, known := c.Server(m.from)
		list = append(list, control.LeftLayers{
			Nodes: cluster.Fold(groups[m]), Count: len(groups[m]), From: string(m.from), To: string(m.to), Gone: !known,
		})
	}
	return list
}

// leftError refuses a description that gives nodes to servers that do not have their layers.
func leftError(in *control.Description, left []control.LeftLayers) *control.Error {
	first := &left[0]
	e := control.Errorf(control.Conflict,
		"apply %s: %s would start on %s without their layers, which are on %s",
		in.Main, first.Nodes, first.To, first.From).
		WithHint("--dry-run lists these nodes; --leave-layers applies it nevertheless, and their layers stay there")
	if more := len(left) - 1; more > 0 {
		e.Message += fmt.Sprintf(" (and %d more such sets of nodes)", more)
	}
	return e
}

// parse returns the cluster that a description declares. It must have this server.
func (api *API) parse(in *control.Description) (*cluster.Cluster, error) {
	c, err := cluster.Parse(cluster.Source{
		Name: in.Main, XML: in.Files[in.Main],
		Open: func(name string) ([]byte, error) {
			if data, ok := in.Files[name]; ok {
				return data, nil
			}
			return nil, fmt.Errorf("%s did not come with the description", name)
		},
	})
	if err != nil {
		return nil, invalid(err)
	}
	if _, ok := c.Server(api.Server); !ok {
		return nil, control.Errorf(control.Invalid,
			"apply %s: it has no server %s, which is the one that runs here", in.Main, api.Server)
	}
	return c, nil
}

// revision returns the revision of the applied description; 0: none is applied yet.
func revision(now *follow.Declared) int64 {
	if now.State.Description == nil {
		return 0
	}
	return now.State.Description.Revision
}

// changesTo returns what applying c changes, with the files of its description that differ.
func changesTo(now *follow.Declared, c *cluster.Cluster, in *control.Description) []control.DescriptionChange {
	list := changes.Compare(now.Cluster, c)
	for i, change := range list {
		if change.Subject == "cluster" && change.Attribute == "name" {
			list[i].Note = "is another cluster: it is applied only with --force"
		}
		if change.Subject == "node" && change.Attribute == "image" && change.To != "" {
			if _, captured := now.State.Images[change.To].Newest(); !captured {
				list[i].Note = "has no version yet: these nodes cannot boot until it is captured"
			}
		}
	}
	return append(list, changedFiles(now.Cluster, in)...)
}

// changedFiles returns the files of the description in that differ from those that old was parsed from. The main file
// is the same one, whatever it is called.
func changedFiles(old *cluster.Cluster, in *control.Description) (list []control.DescriptionChange) {
	names := map[control.ChangeKind][]string{}
	was := map[string]bool{}
	for i, f := range old.Sources() {
		if i == 0 {
			f.Name = in.Main
		}
		was[f.Name] = true
		if data, ok := in.Files[f.Name]; !ok {
			names[control.Removed] = append(names[control.Removed], f.Name)
		} else if !bytes.Equal(data, f.Data) {
			names[control.Changed] = append(names[control.Changed], f.Name)
		}
	}
	for name := range in.Files {
		if !was[name] {
			names[control.Added] = append(names[control.Added], name)
		}
	}
	for _, kind := range []control.ChangeKind{control.Removed, control.Added, control.Changed} {
		if n := len(names[kind]); n > 0 {
			slices.Sort(names[kind])
			list = append(list, control.DescriptionChange{
				Subject: "file", Kind: kind, Names: strings.Join(names[kind], " "), Count: n,
			})
		}
	}
	return list
}

// invalid turns the problems of a description into an API error that lists them all.
func invalid(err error) error {
	e := control.Errorf(control.Invalid, "%v", err)
	if ps, ok := errors.AsType[*cluster.Problems](err); ok {
		e.Message = fmt.Sprintf("the description has %d problems", len(ps.List)+ps.More)
		for _, p := range ps.List {
			e.Details = append(e.Details, p.String())
		}
	}
	return e
}
