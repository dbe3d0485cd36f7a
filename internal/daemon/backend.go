package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"dim/internal/cluster"
	"dim/internal/control"
	"dim/internal/coord"
	"dim/internal/image"
	"dim/internal/problems"
	"dim/internal/rollout"
)

// The daemon is what the control API asks: control.Backend. Status is in status.go, nodes in nodes.go, captures in capture.go.
var _ control.Backend = (*daemon)(nil)

// Description implements control.Backend.
func (d *daemon) Description(context.Context) (control.Description, error) {
	now := d.declared()
	in := now.state.Description
	if in == nil {
		return control.Description{}, control.Errorf(control.NotFound, "no cluster description has been applied")
	}
	out := control.Description{
		Main: in.Files[0].Name, Files: map[string][]byte{}, Digest: in.Digest.String(), Revision: in.Revision, Applied: in.Applied, Problem: now.problem,
	}
	for _, f := range in.Files {
		out.Files[f.Name] = f.Data
	}
	return out, nil
}

// Apply implements control.Backend.
func (d *daemon) Apply(ctx context.Context, in control.Description) (control.Description, error) {
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
		return in, invalid(err)
	}
	if _, ok := c.Server(d.server); !ok {
		return in, control.Errorf(control.Invalid, "apply %s: it has no server %s, which is the one that runs here", in.Main, d.server)
	}
	shared, err := d.change(ctx)
	if err != nil {
		return in, err
	}
	revision := in.Revision
	if revision == 0 {
		revision = coord.Any
	}
	if _, err := shared.PutDescription(ctx, describe(c), revision); err != nil {
		return in, coded(err)
	}
	if err := d.refresh(ctx, shared); err != nil {
		return in, err
	}
	return d.Description(ctx)
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

// coded gives the errors of the shared state the API's codes.
func coded(err error) error {
	for target, code := range map[error]control.Code{
		coord.ErrConflict: control.Conflict, coord.ErrUnavailable: control.Unavailable, coord.ErrNotFound: control.NotFound,
		rollout.ErrConflict: control.Conflict, rollout.ErrState: control.Conflict,
	} {
		if errors.Is(err, target) {
			return control.Errorf(code, "%v", err)
		}
	}
	return err
}

// Images implements control.Backend.
func (d *daemon) Images(context.Context) ([]control.Image, error) {
	now := d.declared()
	var list []control.Image
	for _, im := range now.cluster.Images {
		list = append(list, d.image(now, im))
	}
	for name := range now.state.Images {
		if _, ok := now.cluster.Image(cluster.ImageName(name)); !ok {
			list = append(list, d.image(now, &cluster.Image{Name: cluster.ImageName(name)}))
		}
	}
	slices.SortFunc(list, func(a, b control.Image) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func (d *daemon) image(now *declared, im *cluster.Image) control.Image {
	out := control.Image{Name: string(im.Name), Arch: im.Arch, Master: im.Master, Durable: string(im.Durability), Problem: d.wrong.Text(problems.Image(im.Name))}
	for _, n := range now.cluster.Nodes {
		if n.Image != nil && n.Image.Name == im.Name {
			out.Nodes++
		}
	}
	out.Watch = d.declaredWatch(now, out.Name)
	known := now.state.Images[out.Name]
	if v, ok := known.Newest(); ok {
		shown := d.shown(now, v)
		out.Newest, out.Versions = &shown, len(known.Versions)
	}
	current, _ := known.Followed()
	out.Current = current.Number
	return out
}

// shown returns v as the API shows it.
func (d *daemon) shown(now *declared, v image.Version) control.Version {
	out := control.Version{
		Image: v.Image, Number: v.Number, Digest: v.Digest.String(), Created: v.Created, Master: v.Master, Parent: v.Parent,
		Files: v.Files, Bytes: v.Bytes, Tags: append([]string{}, v.Tags...), Nodes: []string{},
	}
	for _, n := range now.cluster.Nodes {
		if x := d.exports.node(n.Name); x != nil && x.fs.Version().Image == v.Image && x.fs.Version().Number == v.Number {
			out.Nodes = append(out.Nodes, string(n.Name))
		}
	}
	if im, ok := now.cluster.Image(cluster.ImageName(v.Image)); ok {
		out.Durable = string(im.Durability)
		release, err := d.assets.release(v, im)
		if err != nil {
			out.Problem = err.Error()
		}
		out.Kernel = release
	}
	return out
}

// Versions implements control.Backend.
func (d *daemon) Versions(_ context.Context, name string) ([]control.Version, error) {
	now := d.declared()
	_, declared := now.cluster.Image(cluster.ImageName(name))
	known := now.state.Images[name]
	if known == nil && !declared {
		return nil, control.Errorf(control.NotFound, "image %s: there is none of that name", name).WithHint("dim image ls lists the images")
	}
	list := []control.Version{}
	if known != nil {
		for _, v := range known.Versions {
			list = append(list, d.shown(now, v))
		}
	}
	return list, nil
}

// Version implements control.Backend.
func (d *daemon) Version(_ context.Context, ref string) (control.Version, error) {
	now := d.declared()
	v, err := now.resolve(ref)
	if err != nil {
		return control.Version{}, err
	}
	out := d.shown(now, v)
	if ref == v.Image {
		out.Watch = d.declaredWatch(now, v.Image)
	}
	return out, nil
}

func (c *declared) resolve(ref string) (image.Version, error) {
	r, err := image.ParseRef(ref)
	if err != nil {
		return image.Version{}, control.Errorf(control.Invalid, "%v", err)
	}
	v, ok := c.state.Resolve(r)
	if !ok {
		return v, control.Errorf(control.NotFound, "version %s: there is none", ref).WithHint(c.versionsHint(r.Image))
	}
	return v, nil
}

// versionsHint tells where the versions of an image are, or come from.
func (c *declared) versionsHint(name string) string {
	_, known := c.cluster.Image(cluster.ImageName(name))
	switch _, captured := c.state.Images[name].Newest(); {
	case captured:
		return "dim image log " + name + " lists them"
	case known:
		return "dim image capture " + name + " makes the first"
	}
	return "dim image ls lists the images"
}

// changed returns c as the API shows it.
func changed(c image.Change) control.Change {
	out := control.Change{Path: "/" + c.Path}
	e := c.New
	switch {
	case c.Old == nil:
		out.Kind = control.Added
	case c.New == nil:
		out.Kind, e = control.Removed, c.Old
	case c.Old.Type != c.New.Type || c.Old.Type != image.Directory && c.Old.Digest != c.New.Digest ||
		c.Old.Target != c.New.Target || c.Old.Major != c.New.Major || c.Old.Minor != c.New.Minor:
		out.Kind, out.Was = control.Content, c.Old.Size
	default:
		out.Kind, out.What = control.Attributes, attributes(c.Old, c.New)
	}
	out.Type, out.Size = e.Type.String(), e.Size
	return out
}

// attributes names the attributes in which two entries of one content differ.
func attributes(a, b *image.Entry) string {
	var names []string
	for _, x := range []struct {
		name    string
		differs bool
	}{
		{"mode", a.Mode != b.Mode},
		{"owner", a.UID != b.UID || a.GID != b.GID},
		{"time", a.Mtime != b.Mtime},
		{"links", a.Link != b.Link || a.Nlink != b.Nlink},
		{"holes", !slices.Equal(a.Data, b.Data)},
		{"xattr", !slices.EqualFunc(a.Xattrs, b.Xattrs, func(p, q image.Xattr) bool {
			return p.Name == q.Name && string(p.Value) == string(q.Value)
		})},
	} {
		if x.differs {
			names = append(names, x.name)
		}
	}
	return strings.Join(names, " ")
}

// Tag implements control.Backend.
func (d *daemon) Tag(ctx context.Context, ref, tag string) (control.Version, error) {
	v, err := d.declared().resolve(ref)
	if err != nil {
		return control.Version{}, err
	}
	shared, err := d.change(ctx)
	if err != nil {
		return control.Version{}, err
	}
	if err := shared.PutTag(ctx, v.Image, tag, v.Number); err != nil {
		return control.Version{}, coded(err)
	}
	if err := d.refresh(ctx, shared); err != nil {
		return control.Version{}, err
	}
	return d.Version(ctx, v.Ref().String())
}
