package api

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"dim/internal/cluster"
	"dim/internal/cluster/nodeset"
	"dim/internal/control"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/layer"
	"dim/internal/layers"
	"dim/internal/pkgdb"
	"dim/internal/recordmerge"
	"dim/internal/rollout"
)

// addPreview adds to out what the moves of a dry run would set aside on nodes that are served here.
func (api *API) addPreview(
	ctx context.Context, now *follow.Declared, out *control.Rollout, rings [][]move,
) (err error) {
	moves := slices.DeleteFunc(slices.Concat(rings...), func(m move) bool { return m.from == m.to })
	out.Own, err = api.preview(ctx, now, moves, pkgdb.OnConflict(out.OnConflict))
	return err
}

func (api *API) preview(
	ctx context.Context, now *follow.Declared, moves []move, on pkgdb.OnConflict,
) ([]control.OwnChanges, error) {
	var list []layer.SetAside
	left, kept := map[cluster.NodeName]string{}, map[cluster.NodeName]string{}
	for _, m := range moves {
		v, ok := now.State.Resolve(m.to)
		if !ok {
			continue
		}
		preview, err := api.Serving.Preview(ctx, m.nodes, v, on)
		if err != nil {
			return nil, err
		}
		list = append(list, preview.Aside...)
		maps.Copy(left, preview.Left)
		maps.Copy(kept, preview.Kept)
	}
	return slices.Concat(leftNodes(left), keptNodes(kept), ownChanges(list)), nil
}

// checkArrived returns an error if this server does not have a version yet.
func (api *API) checkArrived(v image.Version) error {
	if here, err := api.Store.Resolve(v.Ref()); err != nil || here.Digest != v.Digest {
		return control.Errorf(control.NotFound, "%s has not arrived at %s yet", v.Ref(), api.Server)
	}
	return nil
}

// PreviewOwn implements control.Backend.
func (api *API) PreviewOwn(ctx context.Context, q control.PreviewRequest) ([]control.OwnChanges, error) {
	now := api.Follow.Now()
	var moves []move
	for _, m := range q.Moves {
		nodes, err := now.Select(m.Nodes)
		if err != nil {
			return nil, err
		}
		v, err := now.Resolve(m.To)
		if err != nil {
			return nil, err
		}
		if err := api.checkArrived(v); err != nil {
			return nil, err
		}
		moves = append(moves, move{to: v.Ref(), nodes: nodes})
	}
	return api.preview(ctx, now, moves, pkgdb.OnConflict(q.OnConflict))
}

// leftBy returns why nodes of the declared rings of a rollout stay because of their packages.
func (api *API) leftBy(r *rollout.Rollout) map[cluster.NodeName]string {
	left := map[cluster.NodeName]string{}
	for _, ring := range r.Rings[:r.Ring+1] {
		for _, name := range ring.Nodes {
			if text := api.Serving.Left(cluster.NodeName(name)); text != "" {
				left[cluster.NodeName(name)] = text
			}
		}
	}
	return left
}

// keptBy returns which packages of their own the nodes have that show the version of a rollout with which such packages
// stay.
func (api *API) keptBy(r *rollout.Rollout) map[cluster.NodeName]string {
	kept := map[cluster.NodeName]string{}
	if r.OnConflict != pkgdb.NodeWins {
		return kept
	}
	for _, name := range r.Nodes() {
		node := cluster.NodeName(name)
		served, ok := api.Serving.Node(node)
		if !ok || served.Replica == nil || served.Replica.Version().Ref() != r.Ref() {
			continue
		}
		found, err := api.packagesOf(name, served.Replica)
		switch {
		case err != nil:
			api.Log.Error("packages of a node cannot be read", "node", name, "error", err)
		case found.Unread != "":
			kept[node] = found.Unread
		case len(found.Own) > 0:
			kept[node] = "has packages of its own: " + pkgdb.Describe(found.Own)
		}
	}
	return kept
}

// leftNodes groups the nodes that stay for the same reason, the largest groups first.
func leftNodes(left map[cluster.NodeName]string) []control.OwnChanges {
	return sameText(left, func(o *control.OwnChanges, text string) {
		if o.Left = text; text == "" {
			o.Left = "not moved for other such reasons; dim rollout status lists each node"
		}
	})
}

// keptNodes groups the nodes whose same packages stay theirs, the largest groups first.
func keptNodes(kept map[cluster.NodeName]string) []control.OwnChanges {
	return sameText(kept, func(o *control.OwnChanges, text string) {
		if o.Kept = text; text == "" {
			o.Kept = "other packages stay the nodes'; dim node show NODE lists them"
		}
	})
}

// sameText groups the nodes that have the same text, the largest groups first. What is over maxOwn is one group, the
// last, of which set is told no text.
func sameText(texts map[cluster.NodeName]string, set func(*control.OwnChanges, string)) []control.OwnChanges {
	nodes := map[string][]string{}
	for node, text := range texts {
		nodes[text] = append(nodes[text], string(node))
	}
	sorted := slices.SortedFunc(maps.Keys(nodes), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(nodes[b]), len(nodes[a])), strings.Compare(a, b))
	})
	if len(sorted) > maxOwn {
		var rest []string
		for _, text := range sorted[maxOwn-1:] {
			rest = append(rest, nodes[text]...)
		}
		sorted = append(sorted[:maxOwn-1], "")
		nodes[""] = rest
	}
	var out []control.OwnChanges
	for _, text := range sorted {
		o := control.OwnChanges{
			Nodes: nodeset.Fold(nodes[text]), Count: len(nodes[text]),
			First: []control.Path{}, Packages: []string{}, Accounts: []string{}, Notes: []string{},
		}
		set(&o, text)
		out = append(out, o)
	}
	return out
}

// asideBy returns what the switches of a rollout, or of its undo, have set aside on the nodes that are served here.
func (api *API) asideBy(r *rollout.Rollout) []layer.SetAside {
	var list []layer.SetAside
	for _, ring := range r.Rings[:r.Ring+1] {
		for _, name := range ring.Nodes {
			served, ok := api.Serving.Node(cluster.NodeName(name))
			if !ok {
				continue
			}
			saved, err := layers.Of(served.Replica).SavedSince(ring.Declared)
			if err != nil {
				api.Log.Error("saved area cannot be read", "node", name, "error", err)
				continue
			}
			for i := range saved {
				why := strings.Fields(saved[i].Why)
				if len(why) == 3 && why[0] == "switch" && slices.Contains(why[1:], r.Ref().String()) {
					list = append(list, saved[i])
				}
			}
		}
	}
	return list
}

// Bounds of what is told of the nodes' own changes.
const (
	maxOwn      = 20 // OwnChanges, with the one for the rest
	maxOwnPaths = 5  // paths of each
	maxOwnNames = 50 // packages, accounts, notes of each
)

// ownGroup is nodes that lose the same.
type ownGroup struct {
	lost  ownLost
	paths int
	first []control.Path
	nodes []string
}

// ownLost is what a person must know of what was set aside on a node.
type ownLost struct{ packages, accounts, notes []string }

func (l *ownLost) none() bool { return len(l.packages)+len(l.accounts)+len(l.notes) == 0 }

// ownChanges groups what was set aside by node and by what is lost. Nodes that lose packages and accounts come first,
// then the largest groups.
func ownChanges(list []layer.SetAside) []control.OwnChanges {
	byNode := map[string][]*layer.SetAside{}
	for i := range list {
		if a := &list[i]; !a.Merged || len(a.Conflicts) > 0 { // else nothing is lost
			byNode[a.Node] = append(byNode[a.Node], a)
		}
	}
	groups := map[string]*ownGroup{}
	for _, node := range slices.Sorted(maps.Keys(byNode)) {
		lost := lostOf(byNode[node])
		key := fmt.Sprintf("%q", lost)
		g := groups[key]
		if g == nil {
			g = &ownGroup{lost: lost}
			for _, a := range byNode[node][:min(len(byNode[node]), maxOwnPaths)] {
				g.first = append(g.first, "/"+control.Path(a.Path))
			}
			groups[key] = g
		}
		g.paths, g.nodes = g.paths+len(byNode[node]), append(g.nodes, node)
	}
	return bounded(groups)
}

// bounded returns groups as the API shows them, at most maxOwn. What is over that is one group, the last.
func bounded(groups map[string]*ownGroup) []control.OwnChanges {
	sorted := slices.SortedFunc(maps.Values(groups), func(a, b *ownGroup) int {
		switch {
		case a.lost.none() && !b.lost.none():
			return 1
		case b.lost.none() && !a.lost.none():
			return -1
		}
		return cmp.Or(cmp.Compare(len(b.nodes), len(a.nodes)), strings.Compare(a.nodes[0], b.nodes[0]))
	})
	if len(sorted) > maxOwn {
		rest := &ownGroup{}
		for _, g := range sorted[maxOwn-1:] {
			rest.nodes, rest.paths = append(rest.nodes, g.nodes...), rest.paths+g.paths
			rest.lost.packages = append(rest.lost.packages, g.lost.packages...)
			rest.lost.accounts = append(rest.lost.accounts, g.lost.accounts...)
			rest.lost.notes = append(rest.lost.notes, g.lost.notes...)
		}
		sorted = append(sorted[:maxOwn-1], rest)
	}
	out := make([]control.OwnChanges, len(sorted))
	for i, g := range sorted {
		out[i] = control.OwnChanges{
			Nodes: nodeset.Fold(g.nodes), Count: len(g.nodes), Paths: g.paths, First: g.first,
			Packages: cut(g.lost.packages), Accounts: cut(g.lost.accounts), Notes: cut(g.lost.notes),
		}
	}
	return out
}

// cut returns names sorted, each once, at most maxOwnNames; the last one then says how many there are besides.
func cut(names []string) []string {
	slices.Sort(names)
	names = slices.Compact(names)
	if n := len(names) - maxOwnNames; n > 0 {
		names = append(names[:maxOwnNames], fmt.Sprintf("%d more", n))
	}
	return append([]string{}, names...)
}

// lostOf returns what is lost with what was set aside on one node.
func lostOf(list []*layer.SetAside) ownLost {
	var lost ownLost
	for _, a := range list {
		what := database(a.Path)
		if what != "" && a.Kind == layer.AsideEntry && !a.Merged {
			note := fmt.Sprintf("%s of the node (/%s) is set aside as a whole", what, a.Path)
			lost.notes = append(lost.notes, note)
		}
		for _, c := range a.Conflicts {
			lost.conflict(a.Path, c)
		}
	}
	return lost
}

// conflict adds a conflict of the file at a path: a package or account that is no longer as the node had it, or a note.
func (l *ownLost) conflict(path string, c recordmerge.Conflict) {
	switch {
	case c.Kind != recordmerge.Changed || c.Key == "":
		l.notes = append(l.notes, fmt.Sprintf("/%s: %s", path, c))
	case path == pkgdb.DpkgStatus:
		l.packages = append(l.packages, c.Key)
	case path == "etc/passwd" || path == "etc/group":
		l.accounts = append(l.accounts, c.Key)
	default:
		l.notes = append(l.notes, fmt.Sprintf("/%s: %s", path, c))
	}
}

// database returns what the file at a path is a database of; "" for other files. What a node has written into such a
// file is lost to its programs if the file is set aside as a whole.
func database(path string) string {
	switch {
	case path == pkgdb.DpkgStatus:
		return "the database of packages"
	case slices.Contains(pkgdb.DatabaseFiles(), path):
		return pkgdb.ManagerOf(path) + "'s database of packages"
	case path == "etc/passwd" || path == "etc/group":
		return "the list of accounts"
	}
	return ""
}
