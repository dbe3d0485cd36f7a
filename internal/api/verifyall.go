package api

import (
	"context"
	"fmt"
	"slices"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/fleet"
	"dim/internal/follow"
	"dim/internal/image"
)

// VerifyAll implements control.Backend for this server and the nodes of all. Of each other server that should have the
// version, or reported it, the answer has the name alone.
func (api *API) VerifyAll(
	ctx context.Context, ref string, progress func(control.Progress),
) (out control.VerifyAllResult, err error) {
	if !api.Follow.IsHead() {
		_, err := api.Follow.Change(ctx)
		return out, err
	}
	now := api.Follow.Now()
	v, err := now.Resolve(ref)
	if err != nil {
		return out, err
	}
	out = control.VerifyAllResult{Ref: v.Ref().String(), Digest: v.Digest.String(), Differ: []control.NodeDiffers{}}
	needed := map[cluster.ServerName]bool{api.Server: true} // a head has the newest of all
	for _, n := range now.Cluster.Nodes {
		if follows, err := now.Version(n); err != nil || follows.Digest != v.Digest {
			continue
		}
		needed[n.Server().Name] = true
		if text := api.differs(n, v); text != "" {
			out.Differ = append(out.Differ, control.NodeDiffers{Node: string(n.Name), Text: text})
			continue
		}
		out.Equal++
	}
	out.Servers = api.holders(now, v, needed)
	for i := range out.Servers {
		if s := &out.Servers[i]; s.Server == string(api.Server) {
			done, err := api.Verify(ctx, out.Ref, progress)
			if err != nil {
				return out, err
			}
			s.Objects, s.Bytes, s.Problems, s.Replaced = done.Objects, done.Bytes, done.Problems, done.Replaced
		}
	}
	return out, nil
}

// holders returns the servers that are needed for a version, and those that reported that they have it.
func (api *API) holders(
	now *follow.Declared, v image.Version, needed map[cluster.ServerName]bool,
) (list []control.ServerVerified) {
	for _, s := range now.Cluster.Servers {
		h, _ := api.Fleet.Server(s.Name)
		has := h.Report != nil && slices.ContainsFunc(h.Versions, func(held fleet.Version) bool {
			return held.Digest == v.Digest && held.Missing == nil
		})
		if needed[s.Name] || has {
			none := []string{}
			list = append(list, control.ServerVerified{Server: string(s.Name), Problems: none, Replaced: none})
		}
	}
	return list
}

// differs says how a node that follows v does not show it; "" if it does.
func (api *API) differs(n *cluster.Node, v image.Version) string {
	shown, ref := image.Digest{}, image.Ref{}
	if n.Server().Name == api.Server {
		if shows, ok := api.Serving.Shows(n.Name); ok {
			shown, ref = shows.Digest, shows.Ref()
		}
	} else {
		said, at, ok := api.Fleet.Node(n)
		switch {
		case !ok:
			return fmt.Sprintf("%s has not reported it", n.Server().Name)
		case !fleet.Fresh(at):
			return fmt.Sprintf("%s is silent; it showed %s", n.Server().Name, said.Shows)
		}
		shown, ref = said.Digest, said.Shows
	}
	switch {
	case ref.IsZero():
		return "it has no root"
	case ref != v.Ref():
		return fmt.Sprintf("it shows %s", ref)
	case shown != v.Digest:
		return fmt.Sprintf("it shows another %s, with the digest %s", ref, shown.Short())
	}
	return ""
}
