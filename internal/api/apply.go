package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dim/internal/cluster"
	"dim/internal/cluster/changes"
	"dim/internal/cluster/learned"
	"dim/internal/cluster/nodeset"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
)

// Apply implements control.Backend.
func (api *API) Apply(ctx context.Context, r control.ApplyRequest) (control.ApplyResult, error) {
	shared, err := api.Follow.Change(ctx)
	if err == nil {
		err = api.Follow.Refresh(ctx, shared) // another server may have applied one a moment ago
	}
	p := application{api: api, request: &r, now: api.Follow.Now(), shared: shared}
	if perr := p.parse(); perr != nil {
		return control.ApplyResult{}, perr
	}
	if err != nil && !r.DryRun {
		return control.ApplyResult{}, err
	}
	if r.Revision != 0 && r.Revision != revision(p.now) {
		return control.ApplyResult{}, control.Errorf(control.Conflict,
			"apply %s: the applied description has revision %d, not %d", r.Main, revision(p.now), r.Revision).
			WithHint(fmt.Sprintf("dim cluster log lists who has applied what; dim cluster diff %d lists what changed",
				r.Revision))
	}
	out, refusal, err := p.plan(ctx)
	switch {
	case err != nil:
		return out, err
	case r.DryRun && refusal != nil:
		out.Refused, out.Hint = refusal.Message, refusal.Hint
		return out, nil
	case r.DryRun:
		return out, nil
	case refusal != nil:
		return out, refusal
	}
	if out.Revision, err = p.put(ctx, &out); err != nil {
		return out, err
	}
	if err := api.Follow.Refresh(ctx, shared); err != nil {
		return out, control.Errorf(control.Unavailable,
			"apply %s: it is applied as revision %d, and this server does not follow it yet: %v", r.Main, out.Revision,
			err)
	}
	return out, nil
}

// application is one call of Apply.
type application struct {
	api     *API
	request *control.ApplyRequest
	now     *follow.Declared
	next    *cluster.Cluster
	shared  *coord.Coord // nil in a dry run without the shared state
	left    []follow.Left
	ended   []string // which learned hardware addresses the description ends, and why
}

// parse parses the description, with the hardware addresses that were learned and still hold.
func (p *application) parse() (err error) {
	in := &p.request.Description
	in.Files = maps.Clone(in.Files)
	if !p.request.Learned {
		list, err := learned.Renamed(follow.Learned(p.now.State.Description), p.request.NewNames())
		if err != nil {
			return err
		}
		setLearned(in, list)
	}
	if p.next, err = p.api.parse(in); err != nil {
		return err
	}
	if err := checkRenames(p.now.Cluster, p.next, p.request.Renames); err != nil {
		return err
	}
	if p.ended = p.next.Unlearned(); len(p.ended) > 0 {
		setLearned(in, learned.Format(p.next.Learned()))
		p.next, err = p.api.parse(in)
	}
	return err
}

// setLearned gives a description a list of learned hardware addresses; nil: none.
func setLearned(d *control.Description, list []byte) {
	if list == nil {
		delete(d.Files, learned.File)
		return
	}
	d.Files[learned.File] = list
}

// plan returns what applying the description does, and why it is refused.
func (p *application) plan(ctx context.Context) (out control.ApplyResult, refusal *control.Error, err error) {
	renames := withRenames(p.request.Renames, changes.Renames(p.now.Cluster, p.next))
	p.left = p.now.Left(p.next, renames)
	out = control.ApplyResult{
		Cluster: p.next.Name, Revision: revision(p.now), DryRun: p.request.DryRun, Renames: renames,
		Left: leftLayers(p.next, p.left),
	}
	out.Changes = p.changes(out.Renames)
	if err := p.takenBack(ctx, &out); err != nil {
		return out, nil, err
	}
	return out, p.refuse(&out), nil
}

// refuse returns why the description is not applied; nil: it is. It adds to out.Asks the reasons to which a person can
// consent.
func (p *application) refuse(out *control.ApplyResult) *control.Error {
	r := p.request
	if p.next.Name != p.now.Cluster.Name && !r.Force {
		return control.Errorf(control.Conflict,
			"apply %s: it describes cluster %s, and this is a server of cluster %s", r.Main, p.next.Name,
			p.now.Cluster.Name).WithHint("--dry-run lists what would change; --force applies it nevertheless")
	}
	refusal := inRollout(p.now, out.Renames)
	if refusal != nil {
		return refusal
	}
	if len(out.Left) > 0 && !r.LeaveLayers {
		refusal = leftError(&r.Description, out.Left)
		out.Asks = append(out.Asks, refusal.Message)
	}
	if r.Yes {
		return refusal
	}
	for i := range out.Changes {
		if c := &out.Changes[i]; c.Subject == "node" && c.Kind == control.Removed {
			out.Asks = append(out.Asks, removalText(c))
		}
	}
	out.Asks = append(out.Asks, p.ended...)
	if len(out.TakenBack) > 0 {
		out.Asks = append(out.Asks, takenBackText(out))
	}
	if refusal == nil && len(out.Asks) > 0 {
		refusal = control.Errorf(control.Held, "apply %s: %s", r.Main, strings.Join(out.Asks, "; ")).
			WithHint("dim cluster plan FILE lists it; --yes applies it")
	}
	return refusal
}

// inRollout refuses to rename nodes that a rollout is moving by their names.
func inRollout(now *follow.Declared, renames []control.Rename) *control.Error {
	if len(renames) == 0 {
		return nil
	}
	active, err := now.Rollouts().Active()
	if err != nil {
		return control.Errorf(control.Internal, "%v", err)
	}
	for i := range active {
		moved := map[string]bool{}
		for _, node := range active[i].Nodes() {
			moved[node] = true
		}
		for _, r := range renames {
			if moved[r.From] {
				return control.Errorf(control.Conflict, "rename %s to %s: rollout %d is moving it", r.From, r.To,
					active[i].ID).WithHint(fmt.Sprintf("wait for it, or: dim rollout stop %d", active[i].ID))
			}
		}
	}
	return nil
}

// removalText says which nodes are removed, and how many of them run.
func removalText(c *control.DescriptionChange) string {
	text := fmt.Sprintf("%s %s removed", cutSet(c.Names, c.Count), isAre(c.Count))
	switch {
	case c.Up == 1:
		text += ", of which 1 runs now and would lose its root"
	case c.Up > 1:
		text += fmt.Sprintf(", of which %d run now and would lose their roots", c.Up)
	}
	return text
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// takenBackText says whose changes a description takes back.
func takenBackText(out *control.ApplyResult) string {
	var who []string
	for _, a := range out.Since {
		text := fmt.Sprintf("revision %d", a.Revision)
		if a.By != "" {
			text += " by " + a.By
		}
		who = append(who, text)
	}
	return "it takes back changes of " + strings.Join(who, ", ") + ", which it was not made from"
}

// put makes the description the applied one, in one transaction with what it decides about the layers of nodes: no
// server serves a node whose layer another one has, whenever this is interrupted.
func (p *application) put(ctx context.Context, out *control.ApplyResult) (int64, error) {
	d := follow.Describe(p.next)
	d.By, d.From, d.Message = p.request.By, p.request.From, p.request.Message
	d.Summary = changes.Summary(out.Changes)
	r := follow.Replacement{
		Before: p.now.Cluster, Next: p.next, Leaving: p.left, Renames: out.Renames, ID: rand.Text(),
	}
	p.api.Follow.Expect(d.Digest, p.next)
	got, err := p.shared.Apply(ctx, d, revision(p.now), r.Decide)
	if errors.Is(err, coord.ErrConflict) {
		return got, control.Errorf(control.Conflict,
			"apply %s: somebody has applied another description in the meantime", p.request.Main).
			WithHint("dim cluster plan FILE lists the differences to that one")
	}
	if errors.Is(err, coord.ErrUnavailable) || ctx.Err() != nil {
		return got, control.Errorf(control.Unavailable, "apply %s: it may be applied or not: %v", p.request.Main, err).
			WithHint("when dim status shows that the shared state answers, dim cluster log shows whether it is " +
				"applied; to apply it again does no harm")
	}
	return got, follow.APIError(err)
}

// leftLayers groups nodes whose layers are not on the servers that c gives them to.
func leftLayers(c *cluster.Cluster, nodes []follow.Left) (list []control.LeftLayers) {
	type move struct{ from, to cluster.ServerName }
	groups := map[move][]*cluster.Node{}
	var order []move
	for _, l := range nodes {
		m := move{l.At, l.Node.Server().Name}
		if groups[m] == nil {
			order = append(order, m)
		}
		groups[m] = append(groups[m], l.Node)
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
	e := control.Errorf(control.Held,
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
		Name: in.Main, XML: in.Files[in.Main], Learned: in.Files[learned.File],
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

// changes returns what applying the description changes, with its files that differ.
func (p *application) changes(renames []control.Rename) []control.DescriptionChange {
	now := p.now
	list := changes.Compare(now.Cluster, p.next, renames)
	for i, change := range list {
		list[i].Up = p.api.up(now, &change)
		if change.Subject == "cluster" && change.Attribute == "name" {
			list[i].Note = "is another cluster: it is applied only with --force"
		}
		if change.Subject == "node" && change.Attribute == "image" && change.To != "" {
			if _, captured := now.State.Images[change.To].Newest(); !captured {
				list[i].Note = "has no version yet: these nodes cannot boot until it is captured"
			}
		}
	}
	return append(list, changedFiles(now.Cluster, &p.request.Description)...)
}

// up returns how many of the nodes that a change is about run now.
func (api *API) up(now *follow.Declared, change *control.DescriptionChange) (count int) {
	if change.Subject != "node" || change.Kind == control.Added {
		return 0
	}
	names := change.Names
	if change.Kind == control.Renamed {
		names = change.From
	}
	list, err := nodeset.Expand(names, nodeset.Options{})
	if err != nil {
		return 0
	}
	for _, name := range list {
		if n, ok := now.Cluster.Node(cluster.NodeName(name)); ok && api.Driver.Runs(n) {
			count++
		}
	}
	return count
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
