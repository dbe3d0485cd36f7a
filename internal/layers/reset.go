package layers

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"dim/internal/image/fileid"
	"dim/internal/layer"
	"dim/internal/replica"
	"dim/internal/vfs"
)

// ResetOptions select what is to be reset.
type ResetOptions struct {
	Paths []string // what is at or below them; none: the whole layer
	Dry   bool     // only tell what would be done
}

// Reset sets aside what the layer has at and below the paths, so that the version and the node files show
// again. Saved lists what it returns from then on.
//
// The whole layer goes in one step. A node that runs meanwhile keeps the files that it has open.
func (l Layer) Reset(o ResetOptions) ([]layer.SetAside, error) {
	clean := make([]string, len(o.Paths))
	for i, p := range o.Paths {
		var err error
		if clean[i], err = cleanPath(p); err != nil {
			return nil, err
		}
	}
	e, err := l.r.Edit("reset")
	if err != nil {
		return nil, err
	}
	r := reset{Layer: l, e: e}
	if len(clean) == 0 || slices.Contains(clean, "") {
		return r.all(o.Dry)
	}
	if o.Dry {
		for _, path := range clean {
			err = errors.Join(err, r.each(path, r.planned))
		}
		return r.list, e.Cancel(err)
	}
	e.SnapshotFirst()
	for _, path := range clean {
		if err == nil {
			err = r.each(path, r.move)
		}
	}
	return e.Moved(), e.End(err)
}

// reset is one call of Reset.
type reset struct {
	Layer
	e    *replica.Edit
	list []layer.SetAside // what would be set aside
}

// each calls do for what is to be set aside at and below a path.
func (r *reset) each(path string, do func(entry replica.LayerEntry, kind layer.AsideKind) error) error {
	entry, ok := r.e.At(path)
	if !ok {
		return nil
	}
	if err := r.walk(entry, do); err != nil {
		return fmt.Errorf("reset /%s: %w", path, err)
	}
	return nil
}

// walk is each for an entry. Directories that merge stay, with the version's owner and mode.
func (r *reset) walk(entry replica.LayerEntry, do func(entry replica.LayerEntry, kind layer.AsideKind) error) error {
	switch kind := entry.Kind(); {
	case entry.Whiteout():
		return do(entry, layer.AsideRemoval)
	case kind == 0:
	case kind != vfs.Directory || !entry.Merges() || entry.Path() != "" && entry.VersionKind() != vfs.Directory:
		return do(entry, layer.AsideEntry)
	default:
		differs, err := attrsDiffer(entry)
		if err == nil && differs {
			err = do(entry, layer.AsideAttributes)
		}
		if err != nil {
			return err
		}
	}
	for below := range entry.Entries() {
		if err := r.walk(below, do); err != nil {
			return err
		}
	}
	return nil
}

// attrsDiffer reports whether the node has given a directory of the version other attributes.
func attrsDiffer(entry replica.LayerEntry) (bool, error) {
	var st unix.Stat_t
	if err := entry.Stat(&st); err != nil {
		return false, err
	}
	version, ok := entry.VersionDir()
	return ok && version != layer.AttrsOf(&st), nil
}

// planned collects what would be set aside.
func (r *reset) planned(entry replica.LayerEntry, kind layer.AsideKind) error {
	node, image := r.r.Name()
	a := layer.SetAside{Node: node, Image: image, Path: entry.Path(), Stamp: r.e.Stamp(), Kind: kind, Why: "reset"}
	r.list = append(r.list, a)
	return nil
}

func (r *reset) move(entry replica.LayerEntry, kind layer.AsideKind) error {
	if kind != layer.AsideAttributes {
		return r.e.SetAside(entry)
	}
	version, _ := entry.VersionDir()
	return r.e.SetAttrs(entry.Path(), version)
}

// all sets the whole layer aside.
func (r *reset) all(dry bool) ([]layer.SetAside, error) {
	if err := r.walk(r.e.Root(), r.planned); err != nil || dry || len(r.list) == 0 {
		return r.list, r.e.Cancel(err)
	}
	r.e.SnapshotFirst()
	return r.list, r.e.End(r.dropLayer())
}

// dropLayer moves the layer to the saved area, by one rename.
func (r *reset) dropLayer() error {
	if err := r.r.Fault("before reset"); err != nil {
		return err
	}
	if err := r.e.Renew(); err != nil {
		return err
	}
	dir, err := r.e.MakePath(string(r.home))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	area, err := r.e.MakePath(r.home.Saved())
	if err != nil {
		return err
	}
	defer unix.Close(area)
	if err := markDirectories(r.e.Root()); err != nil {
		return err
	}
	upper, stamp := layer.Home("").Upper(""), layer.StampName(r.e.Stamp())
	if err := layer.At(dir, upper).SetWhy("reset"); err != nil {
		return err
	}
	if err := r.r.Fault("in reset"); err != nil {
		return err
	}
	if err := unix.Renameat(dir, upper, area, stamp); err != nil {
		return fmt.Errorf("set the layer aside: %w", err)
	}
	return errors.Join(r.e.Sync(area), r.e.Sync(dir))
}

// markDirectories prepares the directories at and below entry that merge with the version's for the saved area,
// where a directory with an id is an entry as a whole. These are there for what is in them, and perhaps for the
// attributes that the node has given them.
func markDirectories(entry replica.LayerEntry) error {
	path := entry.Path()
	if entry.Kind() != vfs.Directory || entry.Opaque() || entry.ID() != fileid.OfDir(path) && path != "" {
		return nil
	}
	at, release, err := entry.Open()
	if err != nil {
		return err
	}
	defer release()
	if err := at.DropID(); err != nil {
		return err
	}
	differs, err := attrsDiffer(entry)
	if err == nil && differs {
		err = at.SetAttributes()
	}
	if err != nil {
		return err
	}
	for below := range entry.Entries() {
		if err := markDirectories(below); err != nil {
			return err
		}
	}
	return nil
}
