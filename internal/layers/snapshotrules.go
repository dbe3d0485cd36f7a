package layers

import (
	"dim/internal/image"
	"dim/internal/image/treediff"
	"dim/internal/layer"
	"dim/internal/vfs"
)

// rule decides about an entry of the snapshot as a switch from the snapshot's version to the present one would:
// where the master has changed what the node had too, the master wins. held is what of the entry does not come
// back.
//
// merged tells that e is a file of records that is merged instead.
func (r *snapshotRestore) rule(e *layer.CopyEntry) (
	how layer.Choice, held []layer.AsideKind, merged bool, err error,
) {
	if r.out.Unknown {
		return r.fit(e), nil, false, nil
	}
	c, shows, changed := r.changed(e.At)
	if !changed || r.e.HasNodeFile(e.At) || r.e.Kept(e.At) {
		return how, nil, false, nil
	}
	if how, merged, err = r.merge(e, c); merged || err != nil {
		return how, nil, merged, err
	}
	if vfs.TypeOf(e.Stat.Mode) != vfs.Directory {
		if stays, err := r.e.Stays(c, e); stays || err != nil {
			return how, nil, false, err
		}
	}
	how, held = r.overruled(e, &c, shows)
	return how, held, false, nil
}

// merge decides about an entry of the snapshot that a rule merges with the master's.
func (r *snapshotRestore) merge(e *layer.CopyEntry, c treediff.Change) (how layer.Choice, merged bool, err error) {
	if vfs.TypeOf(e.Stat.Mode) != vfs.Regular {
		return how, false, nil
	}
	how, conflicts, merged, err := r.e.Merge(c, e.Entry)
	if !merged || err != nil || how.Leave {
		return how, merged, err
	}
	r.there[e.At] = false
	if how.Link == nil {
		now, ok := r.e.At(e.At)
		r.note(RestoredPath{
			Path: e.At, What: wasRestored, Kind: layer.AsideEntry, Conflicts: conflicts,
			Displaced: ok && (now.Kind() != 0 || now.Whiteout()),
		})
	}
	return how, true, nil
}

// overruled decides about an entry of the snapshot at whose path the master has changed c since.
func (r *snapshotRestore) overruled(
	e *layer.CopyEntry, c *treediff.Change, shows bool,
) (how layer.Choice, held []layer.AsideKind) {
	isDir := vfs.TypeOf(e.Stat.Mode) == vfs.Directory
	removed := c.Old != nil && c.New == nil
	switch {
	case layer.IsWhiteout(&e.Stat) && shows:
		return layer.Choice{Leave: true}, []layer.AsideKind{layer.AsideRemoval}
	case layer.IsWhiteout(&e.Stat):
		return layer.Choice{Leave: removed}, nil // there is nothing to hide any more
	case !isDir, c.New != nil && c.New.Type != image.Directory:
		return layer.Choice{Leave: true}, []layer.AsideKind{layer.AsideEntry}
	}
	how.NoEmpty = removed && e.At != ""
	attributes := c.New != nil && c.New.Type == image.Directory
	opaque := shows && e.Opaque()
	if attributes {
		mine, now := layer.AttrsOf(&e.Stat), attrsOf(c.New)
		if mine != now && (c.Old == nil || c.Old.Type != image.Directory || mine != attrsOf(c.Old)) {
			held = append(held, layer.AsideAttributes)
		}
	}
	if opaque {
		held = append(held, layer.AsideOpaque)
	}
	how.Adapt = func(to layer.Entry) error {
		if opaque {
			if err := to.DropOpaque(); err != nil {
				return err
			}
		}
		if !attributes {
			return nil
		}
		return giveVersionAttrs(to, c)
	}
	return how, held
}

func attrsOf(e *image.Entry) layer.Attrs { return layer.Attrs{Mode: e.Mode, UID: e.UID, GID: e.GID} }

// giveVersionAttrs gives a directory the owner, mode and extended attributes that the version's has now.
func giveVersionAttrs(e layer.Entry, c *treediff.Change) error {
	if err := e.SetAttrs(attrsOf(c.New)); err != nil {
		return err
	}
	var old []image.Xattr
	if c.Old != nil {
		old = c.Old.Xattrs
	}
	return e.ReplaceXattrs(old, c.New.Xattrs)
}

// fit adapts an entry of a snapshot whose version is not known to the present one: a whiteout must hide
// something, and a directory cannot merge with an entry that is no directory.
func (r *snapshotRestore) fit(e *layer.CopyEntry) layer.Choice {
	var version vfs.Attr
	has, nodeFile := r.e.VersionEntry(e.At, &version), r.e.HasNodeFile(e.At)
	switch {
	case layer.IsWhiteout(&e.Stat):
		return layer.Choice{Leave: !has && !nodeFile}
	case vfs.TypeOf(e.Stat.Mode) != vfs.Directory, (!has || version.Type == vfs.Directory) && !nodeFile:
		return layer.Choice{}
	}
	return layer.Choice{Adapt: layer.Entry.SetOpaque}
}
