package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/follow"
	"dim/internal/image"
	"dim/internal/problems"
	"dim/internal/store"
	"dim/internal/versionfs"
)

// Images implements control.Backend.
func (api *API) Images(context.Context) ([]control.Image, error) {
	now := api.Follow.Now()
	var list []control.Image
	for _, im := range now.Cluster.Images {
		list = append(list, api.image(now, im))
	}
	for name := range now.State.Images {
		if _, ok := now.Cluster.Image(cluster.ImageName(name)); !ok {
			list = append(list, api.image(now, &cluster.Image{Name: cluster.ImageName(name)}))
		}
	}
	slices.SortFunc(list, func(a, b control.Image) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func (api *API) image(now *follow.Declared, im *cluster.Image) control.Image {
	out := control.Image{
		Name: string(im.Name), Arch: im.Arch, Master: im.Master, Durable: string(im.Durability),
		Problem: api.Problems.Text(problems.Image(im.Name)),
	}
	out.Nodes, out.Use = api.use(now, im.Name)
	out.Watch = api.watch(now, out.Name)
	known := now.State.Images[out.Name]
	if v, ok := known.Newest(); ok {
		shown := api.version(now, v)
		out.Newest, out.Versions = &shown, len(known.Versions)
	}
	current, _ := known.Followed()
	out.Current = current.Number
	return out
}

// use returns how many nodes have an image, and which versions they show.
func (api *API) use(now *follow.Declared, name cluster.ImageName) (nodes int, list []control.Use) {
	counts := map[control.Use]int{}
	for _, n := range now.Cluster.Nodes {
		if n.Image == nil || n.Image.Name != name {
			continue
		}
		nodes++
		var u control.Use
		if shows := api.shows(n); shows.Image == string(name) {
			u.Version = shows.Number
		}
		_, next := now.Follows(n)
		u.Next = next.Number
		counts[u]++
	}
	for u, n := range counts {
		u.Count = n
		list = append(list, u)
	}
	slices.SortFunc(list, func(a, b control.Use) int {
		return cmp.Or(b.Count-a.Count, b.Version-a.Version, b.Next-a.Next)
	})
	return nodes, list
}

// shows returns the version that a node's root shows, as far as its server has reported; the zero Ref is none, or not
// known.
func (api *API) shows(n *cluster.Node) image.Ref {
	if n.Server().Name != api.Server {
		said, _, _ := api.Fleet.LastNode(n)
		return said.Shows
	}
	v, ok := api.Serving.Shows(n.Name)
	if !ok {
		return image.Ref{}
	}
	return v.Ref()
}

// version returns v as the API shows it.
func (api *API) version(now *follow.Declared, v image.Version) control.Version {
	out := control.Version{
		Image: v.Image, Number: v.Number, Digest: v.Digest.String(), Created: v.Created, Master: v.Master,
		Parent: v.Parent, Files: v.Files, Bytes: v.Bytes, Tags: append([]string{}, v.Tags...), Nodes: []string{},
	}
	for _, n := range now.Cluster.Nodes {
		if api.shows(n) == v.Ref() {
			out.Nodes = append(out.Nodes, string(n.Name))
		}
	}
	if im, ok := now.Cluster.Image(cluster.ImageName(v.Image)); ok {
		out.Durable = string(im.Durability)
		api.addKernel(&out, v, im)
	}
	return out
}

// addKernel adds which kernel a version boots, or why it cannot. A server without the version does not know it.
func (api *API) addKernel(out *control.Version, v image.Version, im *cluster.Image) {
	if _, err := api.Store.Resolve(v.Ref()); errors.Is(err, store.ErrNotFound) {
		return
	}
	release, err := api.BootFiles.Release(v, im)
	if err != nil {
		out.Problem = err.Error()
	}
	out.Kernel = release
}

// Versions implements control.Backend.
func (api *API) Versions(_ context.Context, name string) ([]control.Version, error) {
	now := api.Follow.Now()
	_, declared := now.Cluster.Image(cluster.ImageName(name))
	known := now.State.Images[name]
	if known == nil && !declared {
		return nil, control.Errorf(control.NotFound, "no such image: %s", name).
			WithHint("dim image ls lists the images")
	}
	list := []control.Version{}
	if known != nil {
		for _, v := range known.Versions {
			list = append(list, api.version(now, v))
		}
	}
	return list, nil
}

// Version implements control.Backend.
func (api *API) Version(_ context.Context, ref string) (control.Version, error) {
	now := api.Follow.Now()
	v, err := now.Resolve(ref)
	if err != nil {
		return control.Version{}, err
	}
	out := api.version(now, v)
	if im, ok := now.Cluster.Image(cluster.ImageName(v.Image)); ok && im.Kernel.Version == "" {
		out.OtherKernels = api.Masters.OtherKernels(&v)
	}
	if ref == v.Image {
		out.Watch = api.watch(now, v.Image)
	}
	return out, nil
}

// Installed implements control.Backend.
func (api *API) Installed(ctx context.Context, ref string) (out control.Installed, err error) {
	v, err := api.Follow.Now().Resolve(ref)
	if err != nil {
		return out, err
	}
	if err := api.checkArrived(v); err != nil {
		return out, err
	}
	found, err := api.Packages.List(ctx, versionfs.New(api.Store, v.Root))
	if err != nil {
		return out, fmt.Errorf("list the packages of %s: %w", v.Ref(), err)
	}
	out = control.Installed{
		Image: v.Image, Number: v.Number, Unread: append([]string{}, found.Unread...),
		Packages: make([]control.InstalledPackage, 0, len(found.Packages)),
	}
	for _, p := range found.Packages {
		out.Packages = append(out.Packages, control.InstalledPackage{Name: p.Name, Arch: p.Arch, Version: p.Version})
	}
	return out, nil
}

// watch returns how an image's master is watched; nil: it is not.
func (api *API) watch(now *follow.Declared, name string) *control.Watch {
	w := api.Masters.Watched(now, name)
	if !w.On {
		return nil
	}
	return &w
}

// Watch implements control.Backend.
func (api *API) Watch(ctx context.Context, r control.WatchRequest) (control.Watch, error) {
	return api.Masters.Watch(ctx, r)
}

// RemoveVersion implements control.Backend.
func (api *API) RemoveVersion(ctx context.Context, ref string, r control.RemoveRequest) (control.PruneResult, error) {
	return api.Registry.Remove(ctx, ref, r)
}

// Prune implements control.Backend.
func (api *API) Prune(ctx context.Context, r control.PruneRequest) (control.PruneResult, error) {
	return api.Registry.Prune(ctx, r)
}

// Tag implements control.Backend.
func (api *API) Tag(ctx context.Context, ref, tag string) (control.Version, error) {
	v, err := api.Follow.Now().Resolve(ref)
	if err != nil {
		return control.Version{}, err
	}
	return api.changeTag(ctx, v, func(c *coord.Coord) error { return c.PutTag(ctx, v.Image, tag, v.Number) })
}

// Untag implements control.Backend.
func (api *API) Untag(ctx context.Context, ref string) (control.Version, error) {
	v, err := api.Follow.Now().Resolve(ref)
	if err != nil {
		return control.Version{}, err
	}
	r, _ := image.ParseRef(ref) // Resolve has parsed it
	if r.Tag == "" {
		return control.Version{}, control.Errorf(control.Invalid,
			"remove tag %s: it names no tag, as %s@stable does", ref, v.Image)
	}
	return api.changeTag(ctx, v, func(c *coord.Coord) error { return c.RemoveTag(ctx, v.Image, r.Tag, v.Number) })
}

func (api *API) changeTag(
	ctx context.Context, v image.Version, change func(*coord.Coord) error,
) (control.Version, error) {
	shared, err := api.Follow.Change(ctx)
	if err != nil {
		return control.Version{}, err
	}
	if err := change(shared); err != nil {
		return control.Version{}, follow.APIError(err)
	}
	if err := api.Follow.Refresh(ctx, shared); err != nil {
		return control.Version{}, err
	}
	return api.Version(ctx, v.Ref().String())
}
