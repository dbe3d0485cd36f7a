package api

import (
	"context"
	"slices"
	"strings"

	"dim/internal/control"
	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/pkgdb"
	"dim/internal/verdict"
)

// changed returns c as the API shows it.
func changed(c treediff.Change) control.Change {
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
		if c.Old.Type != c.New.Type {
			out.What = typeText(c.Old) + " → " + typeText(c.New)
		}
	default:
		out.Kind, out.What = control.Attributes, attributes(c.Old, c.New)
	}
	out.Type, out.Size = e.Type.String(), e.Size
	return out
}

// typeText returns the type of an entry for people, with the target of a symlink.
func typeText(e *image.Entry) string {
	if e.Type == image.Symlink {
		return "symlink to " + e.Target
	}
	return e.Type.String()
}

// attributes returns the names of the attributes in which two entries of one content differ.
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

// Diff implements control.Backend.
func (api *API) Diff(
	ctx context.Context, from, to string, yield func(control.Change) bool,
) (control.Comparison, error) {
	now := api.Follow.Now()
	a, err := now.Resolve(from)
	if err != nil {
		return control.Comparison{}, err
	}
	b, err := now.Resolve(to)
	if err != nil {
		return control.Comparison{}, err
	}
	out := control.Comparison{From: a.Ref().String(), To: b.Ref().String(), Counts: map[control.ChangeKind]int{}}
	changes, err := api.Compare.Changes(ctx, &a, &b)
	if err != nil {
		return out, err
	}
	for _, c := range changes {
		shown := changed(c)
		out.Counts[shown.Kind]++
		if !yield(shown) {
			return out, nil // the caller has gone
		}
	}
	v, err := api.Compare.Verdict(ctx, &a, &b)
	out.Verdict, out.Packages, out.Warnings = meant(v), packages(v.Packages), unread(v)
	return out, err
}

// meant returns v as the API shows it.
func meant(v verdict.Verdict) control.Verdict {
	out := control.Verdict{
		Data: v.Data, Load: v.Load, Programs: v.Programs, Boot: v.Boot, Init: v.Init, Reboot: v.Reboot(),
		Unknown: v.Unknown,
	}
	for _, r := range v.Reload {
		out.Reload = append(out.Reload, control.Reload{Command: r.Command, Paths: r.Paths})
	}
	for _, s := range v.Restart {
		out.Restart = append(out.Restart, control.Restart{Unit: s.Unit, Because: s.Because})
	}
	return out
}

// packages returns changes of packages as the API shows them.
func packages(list []pkgdb.Change) []control.PackageChange {
	out := make([]control.PackageChange, 0, len(list))
	for _, c := range list {
		out = append(out, control.PackageChange{Name: c.Name, Arch: c.Arch, From: c.From, To: c.To})
	}
	return out
}

// unread returns a warning for each package database that could not be read.
func unread(v verdict.Verdict) []string {
	var list []string
	for _, text := range v.Unread {
		list = append(list, "packages are compared as far as both databases could be read: "+text)
	}
	return list
}
